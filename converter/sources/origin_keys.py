"""Keys in which GGUF files record where they come from. Without the reader of READMEs, so that inspect stays quick."""

from __future__ import annotations

HUB = "https://huggingface.co/"
"""The Hub's address in files, whatever mirror a download came from."""
COMMIT_KEY = "tritpack.source.commit"
REPOSITORY_KEY = "general.source.huggingface.repository"
