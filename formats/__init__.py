"""Bytes: what a packed ternary tensor and a model file are. Imports nothing of ours; needs no compiler."""
