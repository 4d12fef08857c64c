"""Changing the metadata of a packed file: keys one by one, and known faults all at once."""
