"""How a checkpoint stores a ternary linear: one module per way, for reading and writing."""
