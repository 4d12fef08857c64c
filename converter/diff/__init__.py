"""diff: two packed files or checkpoints, compared as models across layouts and containers."""
