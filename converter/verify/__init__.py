"""Proves that a packed file holds the model of its source; README.md is the guide."""
