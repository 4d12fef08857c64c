"""The second opinion: shares no code with families, storage, layouts or C."""
