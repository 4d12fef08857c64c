"""From any source back to a checkpoint folder, or to graphs of its linears."""
