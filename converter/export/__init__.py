"""From a packed file back to a checkpoint folder."""
