"""From a checkpoint to a proved artefact, and the command line."""
