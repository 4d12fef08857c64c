"""The one pass over a source: its files are read once, in order, hashed, and every tensor goes to its place."""
