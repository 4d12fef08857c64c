"""From any source back to a checkpoint: a transformers folder in one of several storages, or MLX.

It is the other end of the one pipeline. The model comes from where `convert` takes it, every tensor is streamed, and
the folder gets its name only after it was read again and every code and scale compared. storage_choice.py says which
storage, converter/storage/ has the bytes of each, configuration.py writes config.json.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import shutil
from pathlib import Path

from tritpack.converter.export.checkpoint_writer import CheckpointWriter
from tritpack.converter.export.configuration import family_of
from tritpack.converter.export.folder import put_in_place, refuse_folder
from tritpack.converter.export.proof import prove
from tritpack.converter.export.storage_choice import choose_float_dtype, choose_kind, choose_storage, dtypes_of
from tritpack.converter.sources.open import open_source
from tritpack.converter.sources.source_model import SourceModel, from_checkpoint, from_gguf
from tritpack.converter.targets.layout_choice import ROUNDING_KEY
from tritpack.formats.errors import TritpackError, UsageError, WriteFailed
from tritpack.formats.files import lock, partial_of, refuse_impossible, remove_abandoned
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.inputs import Unchanged
from tritpack.formats.progress import Progress, silent
from tritpack.runtime import packers


@dataclasses.dataclass
class Export:
    """The result of an export.

    storage: how linears are stored. dtype: of the floats that belong to linears. scale_loss: the largest change of a
    scale, in parts of itself. warnings: one line for everything a user should know.
    """

    folder: Path
    storage: str
    dtype: str
    scale_loss: float
    nbytes: int
    warnings: list[str]


def export(
    source: str | Path,
    output: str | Path,
    *,
    to: str = "hf",
    storage: str = "auto",
    dtype: str = "auto",
    group_size: int | None = None,
    revision: str | None = None,
    allow_scale_rounding: bool = False,
    allow_wrong_engine: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> Export:
    """Write SOURCE (a GGUF, or whatever convert takes) as a checkpoint folder.

    to: `hf` or `mlx`. storage: of hf, how linears are stored; auto is packed, or ternary_floats for models with float
    activations. dtype: of floats; auto is the smallest that holds all of them. group_size: of mlx; the largest that
    fits if it is None. allow_scale_rounding: change scales that cannot be held. allow_wrong_engine: write for an engine
    that would run another model. force: replace the checkpoint's files in a folder that is not empty.
    Raises Unsupported with the reason, Unreadable, UsageError, WriteFailed.
    """
    refuse_impossible(output)
    folder = Path(output).resolve()
    refuse_folder(folder, output, force=force)
    packers.use_c_packers()
    model, unchanged = _source_model(source, output, revision)
    family, warnings = family_of(model.spec), list(model.warnings)
    if (lost := model.metadata.get(ROUNDING_KEY)) is not None:
        warnings.append(f"an earlier step has changed scales already, with a relative change of up to {lost:.2g}")
    kind = choose_kind(model, family, to, storage, allow_wrong_engine, warnings)
    if group_size is not None and kind.name != "mlx":
        raise UsageError(f"--group-size is for MLX, and linears stored as {kind.name} have no groups")
    dtypes = dtypes_of(dtype)
    float_dtype = choose_float_dtype(model, family, dtypes)
    of_linears = ("float32",) if dtype == "auto" and not kind.exact else dtypes
    stored = choose_storage(model, kind, of_linears, group_size, allow_scale_rounding)
    if "tokenizer.ggml.model" not in model.metadata:
        warnings.append("the source has no tokenizer, so the folder has none")
    for left in sorted(folder.parent.glob(f".{glob.escape(folder.name)}.*.old")):
        warnings.append(
            f"an export that was killed left {left}, with files that it was replacing: move them back, or delete it"
        )
    writer = CheckpointWriter(model, family, stored, float_dtype)
    nbytes, scale_loss = _write(writer, folder, output, unchanged, progress, warnings)
    return Export(Path(output), stored.name, stored.dtype, scale_loss, nbytes, warnings)


def _source_model(source: str | Path, output: str | Path, revision: str | None) -> tuple[SourceModel, Unchanged]:
    opened = open_source(source, revision=revision)
    if isinstance(opened, GgufFile):
        return from_gguf(opened), opened.unchanged
    if opened.folder.resolve() == Path(output).resolve():
        raise UsageError("is the source itself", path=output)
    return from_checkpoint(opened, None, None), opened.unchanged


def _write(
    writer: CheckpointWriter,
    folder: Path,
    output: str | Path,
    unchanged: Unchanged,
    progress: Progress,
    warnings: list[str],
) -> tuple[int, float]:
    """Write and prove the folder under a temporary name, then put it in place. Return its bytes and the scale loss."""
    partial, descriptor = partial_of(folder), None
    try:
        remove_abandoned(folder)
        partial.mkdir()
        descriptor = os.open(partial, os.O_RDONLY)
        lock(descriptor)
        writer.write(partial, progress)
        scale_loss, remarks = prove(partial, writer.model, writer.family, writer.storage)
        nbytes = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
        unchanged.check()
        put_in_place(partial, folder)
    except OSError as error:
        raise WriteFailed(f"cannot be written: {error.strerror or error}", path=output) from error
    except TritpackError as error:
        error.path = _shown(error.path, partial, output)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)
    warnings += remarks
    return nbytes, scale_loss


def _shown(path: str | os.PathLike[str] | None, partial: Path, output: str | Path) -> str | os.PathLike[str] | None:
    """Return the path that an error names, with the output in place of the temporary folder."""
    if path is None or not Path(path).is_relative_to(partial):
        return path
    return Path(output) / Path(path).relative_to(partial)
