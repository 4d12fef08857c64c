"""Comparisons that the rungs are made of: tensors, outputs, steps through the layers, metadata values."""
