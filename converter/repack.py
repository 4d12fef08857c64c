"""A packed file to another layout, from the file alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tritpack.converter.convert import Conversion, RunOptions, run_conversion
from tritpack.converter.options import ConvertOptions, read_tilings
from tritpack.converter.plan import MAX_MEMORY
from tritpack.converter.sources.open import is_gguf
from tritpack.converter.sources.repair import ReadRequest
from tritpack.formats.errors import Unreadable
from tritpack.formats.names import PQ2_TYPE_IDS, TL2_TYPE_IDS
from tritpack.formats.progress import Progress


def repack(
    file: str | Path,
    output: str | Path,
    *,
    read_as: str | None = None,
    repair: bool = False,
    reference: str | Path | None = None,
    outtype: str = "auto",
    embedding_type: str = "auto",
    target: str = "tritpack",
    name: str | None = None,
    allow_scale_rounding: bool = False,
    allow_wrong_engine: bool = False,
    tiling: Sequence[str] = (),
    kernel_config: str | Path | None = None,
    tl2_id: int = TL2_TYPE_IDS[0],
    pq2_id: int = PQ2_TYPE_IDS[0],
    split_max_bytes: int | None = None,
    split_max_tensors: int | None = None,
    threads: int = 0,
    max_memory: int = MAX_MEMORY,
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write a GGUF file again in another layout, without the checkpoint and without losing a bit.

    Of a model of an architecture that tritpack does not run, the ternary tensors get another layout, and all other
    tensors and the metadata stay as they are.

    The arguments are the options of the command (`target` is --for); see ConvertOptions and, for read_as, repair and
    reference, ReadRequest. tiling and kernel_config also say how tl1 and tl2 tensors of the input are tiled if the file
    does not record it. threads, max_memory, force: as for convert.
    Raises Unreadable, Unsupported, UsageError, WriteFailed.
    """
    options = ConvertOptions(
        outtype=outtype,
        embedding_type=embedding_type,
        target=target,
        name=name,
        allow_scale_rounding=allow_scale_rounding,
        allow_wrong_engine=allow_wrong_engine,
        tiling=tiling,
        kernel_config=kernel_config,
        tl2_id=tl2_id,
        pq2_id=pq2_id,
        split_max_bytes=split_max_bytes,
        split_max_tensors=split_max_tensors,
        reading=reading_of(file, read_as, repair, reference, tiling, kernel_config),
    )
    run = RunOptions(threads=threads, max_memory=max_memory, force=force, progress=progress)
    [conversion] = run_conversion(file, output, [options], run)
    return conversion


def reading_of(
    file: str | Path,
    read_as: str | None,
    repair: bool,
    reference: str | Path | None,
    tiling: Sequence[str],
    kernel_config: str | Path | None,
) -> ReadRequest:
    """Return how the file is to be read. Raises Unreadable if it is not a GGUF file."""
    path = Path(file)
    if not is_gguf(path):
        if not path.exists():
            raise Unreadable("does not exist", path=path)
        packed = sorted(path.glob("*.gguf")) if path.is_dir() else []
        hint = f"give the GGUF file itself: {packed[0]}" if packed else "tritpack convert reads checkpoints"
        raise Unreadable("is not a GGUF file", path=path, hint=hint)
    return ReadRequest(
        read_as, repair, read_tilings(tiling, kernel_config), reference=None if reference is None else Path(reference)
    )
