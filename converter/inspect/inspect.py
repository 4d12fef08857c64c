"""`tritpack inspect`: what a packed file or a checkpoint folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def inspect(file: str | Path, *, stats: bool = False) -> dict[str, Any]:
    """Return what `tritpack inspect --json` prints. Raises Unreadable if the file or folder cannot be parsed.

    stats: also decode every ternary tensor (scale, shares, entropy, codes_sha256), and compare each tensor with the
    hashes that the file records. A tensor that cannot be decoded or that differs is damage in the result, and not an
    error. `problems` has the damage, and what readers may stumble over besides.
    """
    if stats:
        from tritpack.runtime import packers

        packers.use_c_packers()
    if Path(file).is_dir():  # what reads checkpoints takes time to import, and a GGUF needs none of it
        from tritpack.converter.inspect.checkpoint import inspect_checkpoint
        from tritpack.converter.sources.checkpoint import CheckpointFolder

        return inspect_checkpoint(CheckpointFolder(file), stats) | {"file": str(file)}
    from tritpack.converter.inspect.gguf import inspect_gguf
    from tritpack.formats.gguf_reader import GgufFile, ReadOptions

    return inspect_gguf(GgufFile(file, ReadOptions(any_part=True)), stats) | {"file": str(file)}
