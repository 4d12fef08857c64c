"""How a checkpoint stores a ternary linear: one module per way, for reading and writing."""

TRANSFORMERS = ("packed", "master_weights", "ternary_floats")
"""The storages that `export --to hf` writes, in the order of --storage. Named here so that --help imports no numpy."""
