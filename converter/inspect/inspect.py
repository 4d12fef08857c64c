"""`tritpack inspect`: what a packed file or a checkpoint folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tritpack.converter.inspect.answers import answers
from tritpack.converter.inspect.gguf import inspect_gguf
from tritpack.converter.inspect.inputs import open_any, place_of
from tritpack.converter.inspect.needs import NeedsOptions
from tritpack.formats.gguf_reader import GgufFile


def inspect(
    file: str | Path, *, stats: bool = False, context: int | None = None, bandwidth: float | None = None
) -> dict[str, Any]:
    """Return what `tritpack inspect --json` prints. Raises Unreadable if the file or folder cannot be parsed, and what
    open_any raises.

    file: a GGUF, a checkpoint folder or a safetensors file here; ORG/NAME[@REVISION], a file in it, or an http(s)
    address: of these, headers alone are read, unless stats downloads them.
    stats: also decode every ternary tensor (scale, shares, entropy, codes_sha256), and compare each tensor with the
    hashes that the file records. A tensor that cannot be decoded or that differs is damage in the result, and not an
    error. `problems` has the damage, and what readers may stumble over besides. `answers` has five answers in plain
    words, of which the other keys are the details.
    context: tokens for which memory is counted; None takes the model's own, as far as 4 GiB hold its keys, values
    and recurrent states.
    bandwidth: GB/s that the memory gives; None takes this machine's, which is measured once.
    """
    return inspect_as(str(file), file, stats=stats, options=NeedsOptions(context, bandwidth))


def inspect_as(name: str, path: str | Path, *, stats: bool, options: NeedsOptions) -> dict[str, Any]:
    """Return what inspect does. name: what the user calls the file, which may be a copy from a bundle."""
    if stats:
        import numpy.linalg  # noqa: F401  numpy itself: see cli/late_numpy.py

        from tritpack.runtime import packers

        packers.use_c_packers()
    source = open_any(path, stats=stats, plain=not stats)
    if isinstance(source, GgufFile):
        place = place_of(source)
        result = inspect_gguf(source, Path(name).name if place else name, stats, options) | {"place": place}
    else:  # what reads checkpoints takes time to import, and a GGUF needs none of it
        from tritpack.converter.inspect.checkpoint import inspect_checkpoint

        result = inspect_checkpoint(source, name, stats, options)
    result["file"] = name
    return {**result, "answers": answers(result)}
