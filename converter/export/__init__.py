"""From any source back to a checkpoint folder for transformers or MLX."""
