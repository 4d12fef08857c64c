"""From any source back to a checkpoint: a transformers folder in one of several storages, MLX, or compressed-tensors.

It is the other end of the one pipeline. The model comes from where `convert` takes it, every tensor is streamed, and
the folder gets its name only after it was read again and every code and scale compared. storage_choice.py says which
storage, converter/storage/ has the bytes of each, configuration.py writes config.json. For ONNX Runtime, onnx_graphs.py
writes a graph per linear instead of a checkpoint.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tritpack.converter.export.checkpoint_writer import CheckpointWriter
from tritpack.converter.export.configuration import family_of
from tritpack.converter.export.differences import differences
from tritpack.converter.export.folder import put_in_place, refuse_folder
from tritpack.converter.export.hybrid_writer import HybridWriter
from tritpack.converter.export.storage_choice import choose_float_dtype, choose_kind, choose_storage, dtypes_of
from tritpack.converter.families.family import Family
from tritpack.converter.sources.open import open_source
from tritpack.converter.sources.source_model import SourceModel, from_checkpoint, from_gguf
from tritpack.converter.storage.storage import Storage, Written
from tritpack.converter.targets.layout_choice import ROUNDING_KEY
from tritpack.formats.errors import TritpackError, Unsupported, UsageError, WriteFailed
from tritpack.formats.files import lock, partial_of, refuse_impossible, remove_abandoned
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.inputs import Unchanged
from tritpack.formats.names import EXPORT_TARGETS
from tritpack.formats.progress import Progress, silent
from tritpack.runtime import packers


@dataclasses.dataclass
class Export:
    """The result of an export.

    storage: how linears are stored. dtype: of the floats that belong to linears. scale_loss: the largest change of a
    scale, in parts of itself. warnings: one line for everything a user should know. differences: what the runtime
    computes otherwise than the model, a sentence each.
    """

    folder: Path
    storage: str
    dtype: str
    scale_loss: float
    nbytes: int
    warnings: list[str]
    differences: list[str]


class Writer(Protocol):
    """What writes the files of one export, and reads them again."""

    def write(self, folder: Path, progress: Progress, /) -> None:
        """Write every file. Raises OSError and WriteFailed."""

    def prove(self, folder: Path, /) -> tuple[float, list[str]]:
        """Compare the files with the source. Return the largest relative change of a scale, and what to warn of."""


@dataclasses.dataclass(frozen=True)
class _Wishes:
    """Arguments of `export`."""

    to: str
    storage: str
    dtype: str
    group_size: int | None
    allow_scale_rounding: bool
    allow_wrong_engine: bool


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
    note: Callable[[str], object] = str,
) -> Export:
    """Write SOURCE (a GGUF, or whatever convert takes) as a checkpoint folder, or as ONNX graphs.

    to: `hf`, `mlx`, `compressed-tensors` or `onnx`. storage: of hf, how linears are stored; auto is packed, or
    ternary_floats for models with float activations. dtype: of floats; auto is the smallest that holds all of them, and
    float32 for onnx. group_size: weights per scale, of all but hf; the largest that fits if it is None.
    allow_scale_rounding: change scales that cannot be held. allow_wrong_engine: write for an engine that would run
    another model. force: replace the checkpoint's files in a folder that is not empty. note: called with each sentence
    of Export.differences, before anything is written.
    Raises Unsupported with the reason, Unreadable, UsageError, WriteFailed, and MissingRequirement for onnx.
    """
    wishes = _Wishes(to, storage, dtype, group_size, allow_scale_rounding, allow_wrong_engine)
    if to not in EXPORT_TARGETS:
        raise UsageError(f"--to {to} is unknown", hint=f"choose one of: {', '.join(EXPORT_TARGETS)}")
    refuse_impossible(output)
    folder = Path(output).resolve()
    refuse_folder(folder, output, force=force)
    packers.use_c_packers()
    model, unchanged = _source_model(source, output, revision)
    family, warnings = family_of(model.spec), list(model.warnings)
    if (lost := model.metadata.get(ROUNDING_KEY)) is not None:
        warnings.append(f"an earlier step has changed scales already, with a relative change of up to {lost:.2g}")
    said = differences(model.spec, family, to)
    writer, stored = (_graphs if to == "onnx" else _checkpoint)(model, family, wishes, said, warnings)
    for left in sorted(folder.parent.glob(f".{glob.escape(folder.name)}.*.old")):
        warnings.append(
            f"an export that was killed left {left}, with files that it was replacing: move them back, or delete it"
        )
    for sentence in said:
        note(sentence)
    nbytes, scale_loss = _write(writer, folder, output, unchanged, progress, warnings)
    return Export(Path(output), stored.name, stored.dtype, scale_loss, nbytes, warnings, said)


def _checkpoint(
    model: SourceModel, family: Family, wishes: _Wishes, said: list[str], warnings: list[str]
) -> tuple[Writer, Written]:
    """Choose how a checkpoint is stored. Raises UsageError and Unsupported."""
    kind = choose_kind(model, family, wishes.to, wishes.storage, wishes.allow_wrong_engine, warnings)
    if wishes.group_size is not None and wishes.to not in ("mlx", "compressed-tensors"):
        raise UsageError(f"--group-size is not for --to {wishes.to}: linears stored as {kind.name} have no groups")
    dtypes = dtypes_of(wishes.dtype)
    is_hybrid = model.spec.delta_net is not None
    if is_hybrid and wishes.to == "compressed-tensors":
        raise Unsupported("compressed-tensors is not written for Qwen3.5: nothing here reads it back")
    float_dtype = "float32" if is_hybrid else choose_float_dtype(model, family, dtypes)
    of_linears = ("float32",) if wishes.dtype == "auto" and not kind.exact else dtypes
    stored = choose_storage(model, kind, of_linears, wishes.group_size, wishes.allow_scale_rounding)
    assert isinstance(stored, Storage)
    if "tokenizer.ggml.model" not in model.metadata:
        warnings.append("the source has no tokenizer, so the folder has none")
    if wishes.to == "compressed-tensors" and stored.dtype == "float32":
        said.append("some scales need float32, and vLLM rounds scales to the float16 or bfloat16 in which it computes")
    if is_hybrid:
        return HybridWriter(model, family, stored, dtypes), stored
    return CheckpointWriter(model, family, stored, float_dtype), stored


def _graphs(
    model: SourceModel, family: Family, wishes: _Wishes, said: list[str], warnings: list[str]
) -> tuple[Writer, Written]:
    """Choose how the graphs of the linears are written. Raises UsageError, Unsupported, MissingRequirement."""
    from tritpack.converter.export import onnx_graphs

    if wishes.storage != "auto":
        raise UsageError("--storage is for --to hf")
    if model.spec.rotation:
        raise Unsupported("has weights in a rotated basis, and a graph of one product does not rotate its input")
    dtypes = onnx_graphs.float_types(wishes.dtype)
    stored = choose_storage(model, onnx_graphs.MatMulNBits, dtypes, wishes.group_size, wishes.allow_scale_rounding)
    return onnx_graphs.GraphWriter(model, family, stored, said), stored


def _source_model(source: str | Path, output: str | Path, revision: str | None) -> tuple[SourceModel, Unchanged]:
    opened = open_source(source, revision=revision)
    if isinstance(opened, GgufFile):
        return from_gguf(opened), opened.unchanged
    if opened.folder.resolve() == Path(output).resolve():
        raise UsageError("is the source itself", path=output)
    return from_checkpoint(opened, None, None), opened.unchanged


def _write(
    writer: Writer,
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
        scale_loss, remarks = writer.prove(partial)
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
