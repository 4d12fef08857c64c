"""The second opinion on a checkpoint: it shares no code with families, storage, layouts and C."""
