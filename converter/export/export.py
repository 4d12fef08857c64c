"""From any source back to a checkpoint: a transformers folder (packed, online or floats), or MLX.

The other end of the one pipeline: the material comes from where `convert` takes it, every tensor is streamed, and the
folder gets its name only after it was read again and every code and scale compared.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter.export.configuration import config_of, family_of
from tritpack.converter.export.tokenizer import tokenizer_files
from tritpack.converter.families.family import Family
from tritpack.converter.sources.checkpoint import HASHED_FILES, INDEX, CheckpointFolder
from tritpack.converter.sources.open import open_source
from tritpack.converter.sources.source_model import Material, of_checkpoint, of_gguf
from tritpack.converter.sources.source_tensors import Origin
from tritpack.converter.sources.ternarize import ABSMEAN_FLOOR
from tritpack.converter.storage.stores import DTYPES, Floats, Mlx, Online, Packed, Store, encoded, held
from tritpack.converter.targets.layout_choice import ROUNDING_KEY
from tritpack.converter.targets.scale_rounding import loss
from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import TritpackError, Unsupported, UsageError, WriteFailed
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import LINEARS, ModelSpec
from tritpack.formats.safetensors_writer import Entry, write_safetensors
from tritpack.formats.ternary import TernaryTensor, scales_differ
from tritpack.runtime import packers

FORMS = ("auto", "packed", "online", "floats")
ONLINE_TOLERANCE = {"float32": 5e-7, "float16": 1e-3, "bfloat16": 1e-2}
"""How far the scale of +-scale / p may come back from where it was, in parts of itself (absmean in float32)."""


@dataclasses.dataclass
class Export:
    """What came of it: the folder, how linears are stored, the dtype, the largest change of a scale in parts of itself,
    and one line for everything a user should know."""

    folder: Path
    form: str
    dtype: str
    scale_loss: float
    nbytes: int
    warnings: list[str]


def export(
    source: str | Path,
    output: str | Path,
    *,
    to: str = "hf",
    form: str = "auto",
    dtype: str = "auto",
    group_size: int | None = None,
    revision: str | None = None,
    allow_scale_rounding: bool = False,
    allow_wrong_engine: bool = False,
    force: bool = False,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Export:
    """Write SOURCE (a GGUF, or whatever convert takes) as a checkpoint folder.

    to: `hf` or `mlx`. form: of hf, how linears are stored; auto is packed, or floats for models with float activations.
    dtype: of floats; auto is the smallest that holds all of them. group_size: of mlx. allow_scale_rounding: change
    scales that cannot be held. allow_wrong_engine: write for an engine that would run another model. Raises Unsupported
    with the reason, Unreadable, UsageError, WriteFailed.
    """
    folder = Path(output).resolve()
    _refuse_folder(folder, output, force=force)
    packers.use_c_packers()
    opened = open_source(source, revision=revision)
    if isinstance(opened, CheckpointFolder) and opened.folder.resolve() == folder:
        raise UsageError(f"{output}: is the source itself")
    material = of_gguf(opened, False) if isinstance(opened, GgufFile) else of_checkpoint(opened, None, None, False)
    known, warnings = family_of(material.spec), list(material.warnings)
    if (lost := material.metadata.get(ROUNDING_KEY)) is not None:
        warnings.append(f"an earlier step has changed scales already, by up to {lost:.2g} of themselves")
    form = _form(material.spec, known, to, form, allow_wrong_engine, warnings)
    if group_size is not None and form != "mlx":
        raise UsageError(f"--group-size is for MLX's own form, and {form} linears have no groups")
    job = _Job(material, known, to, form, warnings)
    store = job.choose(dtype, group_size, allow_scale_rounding)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        job.write(partial, store, progress)
        job.prove(partial, store)
        nbytes = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
        _put_in_place(partial, folder)
    except OSError as error:
        raise WriteFailed(f"{output}: cannot be written: {error.strerror or error}") from error
    except TritpackError as error:
        message = error.message.replace(str(partial), str(output))
        path = None if error.path is None else str(error.path).replace(str(partial), str(output))
        raise type(error)(message, path=path, tensor=error.tensor, hint=error.hint) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Export(Path(output), job.form, store.dtype, job.scale_loss, nbytes, job.warnings)


def _refuse_folder(folder: Path, name: str | Path, *, force: bool) -> None:
    if str(name) == "" or not folder.name:
        raise UsageError(f"{str(name)!r}: is no name of a folder to write")
    if not folder.parent.is_dir():
        raise WriteFailed(f"{name}: the folder {folder.parent} does not exist")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{name}: is a file, expected the name of a folder to write")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UsageError(f"{name}: is not empty", hint="pass --force to replace the checkpoint in it")


def _put_in_place(partial: Path, folder: Path) -> None:
    """Give a complete folder its name. In one that is there, the files of a checkpoint make room, and come back if
    anything goes wrong; all else stays."""
    if not folder.is_dir():
        os.replace(partial, folder)
        return
    names = {*HASHED_FILES, INDEX, *(path.name for path in (*folder.glob("model*.safetensors"), *partial.iterdir()))}
    if (folder / "1_Pooling" / "config.json").is_file():
        names.add("1_Pooling")
    old, new = partial.with_suffix(".old"), sorted(path.name for path in partial.iterdir())
    old.mkdir()
    try:
        for name in sorted(names):
            if (folder / name).exists():
                os.replace(folder / name, old / name)
        for name in new:
            os.replace(partial / name, folder / name)
    except BaseException:
        # By where files are, not by what was begun: an interruption may come before or behind any of these moves.
        for name in new:
            if not (partial / name).exists():
                os.replace(folder / name, partial / name)
        for path in old.iterdir():
            os.replace(path, folder / path.name)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)  # only now: had anything failed to come back, it would still be there


def _form(spec: ModelSpec, known: Family, to: str, asked: str, allow_wrong: bool, warnings: list[str]) -> str:
    """How linears are stored; what an engine would then run otherwise is refused, or warned of."""
    if to not in ("hf", "mlx"):
        raise UsageError(f"--to {to} is unknown", hint="choose one of: hf, mlx")
    if asked not in FORMS:
        raise UsageError(f"--form {asked} is unknown", hint=f"choose one of: {', '.join(FORMS)}")
    if to == "mlx" and asked != "auto":
        raise UsageError("--form is for --to hf")
    form = asked
    if to == "mlx" and known.name == "bitnet":
        warnings.append("mlx-lm runs BitNet from transformers' packed form, which is what is written")
        form = "packed"
    elif to == "mlx":
        form = "mlx"
        if form not in known.checkpoints:
            raise Unsupported(f"{known.title} cannot be exported to MLX: it is not read back from there")
    elif form == "auto":
        form = "floats" if not spec.int8_activations else "online" if known.embedding else "packed"
    if known.embedding and form != "online":
        raise Unsupported(f"{known.title} is loaded from masters only", hint="--form online")
    if known.name == "minicpm":
        warnings.append("transformers has no MiniCPM of its own: loading this needs OpenBMB's remote code")
    if runs_int8(form) != spec.int8_activations:
        kinds = {True: "int8 activations", False: "float activations"}
        wrong = (
            f"{form} linears are run with {kinds[runs_int8(form)]}, and this model has {kinds[spec.int8_activations]}"
        )
        if not allow_wrong:
            hint = "--allow-wrong-engine writes it all the same"
            raise Unsupported(wrong, hint=hint if to == "mlx" else f"--form auto fits the model; {hint}")
        warnings.append(wrong)
    return form


def runs_int8(form: str) -> bool:
    """Whether linears stored so are run with int8 activations."""
    return form in ("packed", "online")


@dataclasses.dataclass
class _Job:
    material: Material
    known: Family
    to: str
    form: str
    warnings: list[str]
    scale_loss: float = 0.0
    float_dtype: str = "float32"
    """Of norms and tables."""

    # -- the decision --------------------------------------------------------------------------------------------------

    def choose(self, dtype: str, group_size: int | None, allow_rounding: bool) -> Store:
        """The store that holds everything exactly, or what was asked for. Raises Unsupported with the first misfit."""
        if dtype not in ("auto", *DTYPES):
            raise UsageError(f"--dtype {dtype} is unknown", hint=f"choose one of: auto, {', '.join(DTYPES)}")
        dtypes = [dtype] if dtype != "auto" else list(DTYPES)
        self.float_dtype, lost = dtypes[-1], None
        for each in dtypes:
            if (lost := self._floats_misfit(each)) is None:
                self.float_dtype = each
                break
        if lost:
            raise Unsupported(lost, hint="--dtype float32 holds everything")
        reasons = []
        for each in ["float32"] if dtype == "auto" and self.form == "online" else dtypes:
            for store in self._stores(each, group_size):
                if (reason := self._misfit(store)) is None:
                    return store
                reasons.append(reason)
        if not allow_rounding:
            hint = "--allow-scale-rounding changes the scales and says by how much"
            wider = "" if dtypes[-1] == "float32" else "--dtype float32 may hold it; "
            raise Unsupported(reasons[-1], hint=wider + hint)
        store = next(iter(self._stores(dtypes[-1], group_size)))
        for name, origin in self._linears():
            rows, cols = self.material.spec.tensor_shapes()[name]
            if reason := store.shape_misfit(rows, cols):
                raise Unsupported(f"tensor {origin.name!r}: {reason}")
            ternary = _ternary(origin)
            self.scale_loss = max(self.scale_loss, loss(ternary, store.prepared(ternary)))
        return store

    def _stores(self, dtype: str, group_size: int | None) -> Iterator[Store]:
        if self.form == "packed":
            yield Packed(dtype)
            yield Packed(dtype, divides=True)
        elif self.form == "online":
            yield Online(dtype)
        elif self.form == "floats":
            yield Floats(dtype)
        else:
            for group in (128, 64, 32) if group_size is None else (group_size,):
                if group not in (32, 64, 128):
                    raise UsageError(f"--group-size {group} is unknown", hint="MLX has 32, 64 and 128")
                yield Mlx(dtype, group)

    def _floats_misfit(self, dtype: str) -> str | None:
        """Why norms and tables do not survive dtype, or None."""
        linears = set(self.material.spec.linear_names())
        for name, origin in self.material.origins.items():
            if name in linears or not self._written(name):
                continue
            for piece in origin.pieces():
                offset = self._offset(name)
                if not np.array_equal(held(piece - offset, dtype) + offset, piece):
                    return f"tensor {origin.name!r} holds values that {dtype} does not"
            origin.release()
        return None

    def _misfit(self, store: Store) -> str | None:
        """Why a store does not hold every linear exactly, or None."""
        for name, origin in self._linears():
            rows, cols = self.material.spec.tensor_shapes()[name]
            if reason := store.shape_misfit(rows, cols):
                return f"tensor {origin.name!r}: {reason}"
            scales = origin.scales()
            blocks = store.blocks(rows, cols, (scales.shape[0], scales.shape[1]))
            if blocks != scales.shape:
                found = f"{scales.shape[0]} x {scales.shape[1]} scales"
                return f"tensor {origin.name!r} has {found}, which {self.form} linears cannot hold"
            if not np.array_equal(kept := store.kept(scales), scales):
                place = np.unravel_index(int((kept != scales).argmax()), scales.shape)
                return (
                    f"tensor {origin.name!r}: the scale {scales[place]:.9g} would become {kept[place]:.9g} "
                    f"in {self.form} {store.dtype}"
                )
            if self.form == "online" and float(scales.min()) < ABSMEAN_FLOOR:
                least = f"the scale {scales.min():.3g} is below {ABSMEAN_FLOOR:g}, where absmean ends"
                return f"tensor {origin.name!r}: {least}"
            if not store.exact and store.dtype != "float32":
                return f"{self.form} {store.dtype} rounds scales to some {2.0**-9:.0e} of themselves"
        return None

    def _linears(self) -> Iterator[tuple[str, Origin]]:
        for name in self.material.spec.linear_names():
            yield name, self.material.origins[name]
            self.material.origins[name].release()

    def _written(self, name: str) -> bool:
        return name != "rope_freqs.weight"  # in config.json

    def _offset(self, name: str) -> np.float32:
        is_norm = name.rpartition(".")[0].endswith("norm")
        return np.float32(self.known.norm_offset if is_norm else 0)

    # -- the folder ----------------------------------------------------------------------------------------------------

    def write(self, folder: Path, store: Store, progress: Callable[[str, int, int], None]) -> None:
        spec = self.material.spec
        widest = max(store.dtype, self.float_dtype, key=("bfloat16", "float16", "float32").index)
        config = config_of(spec, self.known, widest)
        if quantization := store.config():
            self._say_quantization(config, quantization)
        files, ids = tokenizer_files(self.material.metadata)
        if not files:
            self.warnings.append("the source has no tokenizer, so the folder has none")
        named = {"_name_or_path": name} if (name := self.material.metadata.get("general.name")) else {}
        files["config.json"] = {**named, **config, **ids}
        if ids:
            files["generation_config.json"] = ids
        if spec.is_embedding_model:
            files["modules.json"] = _MODULES
            files["1_Pooling/config.json"] = {"pooling_mode": {"last": "lasttoken"}.get(spec.pooling, spec.pooling)}
        for name, document in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
        entries: list[Entry] = []
        linears = set(spec.linear_names())
        for name, shape in spec.tensor_shapes().items():
            target = self._target(name)
            if name in linears:
                stem = target.removesuffix("weight")
                entries += [Entry(stem + part, kind, size) for part, kind, size in store.parts(shape[0], shape[1])]
            elif self._written(name):
                entries.append(Entry(target, DTYPES[self.float_dtype][0], shape))
        write_safetensors(folder / "model.safetensors", entries, self._data(store, linears), progress=progress)

    def _data(self, store: Store, linears: set[str]) -> Iterator[Iterable[Bytes]]:
        """The bytes of each entry."""
        for name in self.material.spec.tensor_shapes():
            origin = self.material.origins[name]
            if name in linears:
                yield from store.data(store.prepared(self._in_source_order(name, _ternary(origin))))
                origin.release()
            elif self._written(name):
                yield (encoded(piece - self._offset(name), self.float_dtype) for piece in origin.pieces())

    def _in_source_order(self, name: str, ternary: TernaryTensor) -> TernaryTensor:
        order = self.material.spec.row_order(name)
        return ternary if order is None else ternary.with_rows(np.argsort(order))

    def _target(self, name: str) -> str:
        """What the checkpoint calls a tensor."""
        if not self._written(name):
            return name
        part = name.rpartition(".")[0].rpartition(".")[2]
        linear = part.removesuffix("_norm_in")
        if part.endswith("_norm_in") and linear in LINEARS and not self.known.embedding:
            return self.known.source_name(name.replace(part, linear)).replace(".weight", ".rms_norm.weight")
        return self.known.source_name(name)

    def _say_quantization(self, config: dict[str, Any], quantization: dict[str, Any]) -> None:
        spec = self.material.spec
        mlx = "bits" in quantization
        if mlx:
            config["quantization"] = quantization
        if self.known.embedding:
            return  # masters, by their names
        if spec.projection_norms and not mlx:
            quantization |= {"use_rms_norm": True, "rms_norm_eps": spec.projection_norm_eps}
        config["quantization_config"] = quantization

    # -- the proof -----------------------------------------------------------------------------------------------------

    def prove(self, folder: Path, store: Store) -> None:
        """Read the folder as any checkpoint and compare all of it with the source. Raises WriteFailed, Unsupported."""
        again = of_checkpoint(CheckpointFolder(folder), None, None, hashed=False)
        for field in dataclasses.fields(ModelSpec):
            mine, theirs = getattr(again.spec, field.name), getattr(self.material.spec, field.name)
            same_graph = field.name == "architecture" and self.known.name == "bitnet"
            told = field.name == "int8_activations" and runs_int8(self.form) != self.material.spec.int8_activations
            if mine != theirs and not same_graph and not told:
                raise Unsupported(f"{self.known.title} in transformers' words cannot say {field.name} {theirs!r}")
        for name, origin in self.material.origins.items():
            if not self._written(name):
                continue
            back = again.origins[name]
            if name in self.material.spec.linear_names():
                self._compare(name, _ternary(origin), _ternary(back), store)
            else:
                for mine, theirs in zip(origin.pieces(), back.pieces(), strict=True):
                    if not np.array_equal(mine, theirs):
                        raise WriteFailed(f"tensor {name!r} did not survive the export; this is a bug of tritpack")
            origin.release()
            back.release()
        for key, value in self.material.metadata.items():
            if key.startswith("tokenizer.") and str(again.metadata.get(key)) != str(value):
                self.warnings.append(f"{key} would be another one after reading the folder again")

    def _compare(self, name: str, source: TernaryTensor, back: TernaryTensor, store: Store) -> None:
        expected = store.prepared(source)
        if not np.array_equal(back.codes, expected.codes):
            raise WriteFailed(f"tensor {name!r}: codes did not survive the export; this is a bug of tritpack")
        if not expected.codes.any() and self.form != "packed":
            self.warnings.append(f"tensor {name!r} is all zero: in {self.form} linears it has no scale")
            return
        if store.exact:
            if scales_differ(back, expected)[0].any():
                raise WriteFailed(f"tensor {name!r}: scales did not survive the export; this is a bug of tritpack")
            return
        lost = loss(expected, back)
        self.scale_loss = max(self.scale_loss, lost)
        if lost > ONLINE_TOLERANCE[store.dtype]:
            raise WriteFailed(f"tensor {name!r}: its scale came back {lost:.1e} off; this is a bug of tritpack")


_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def _ternary(origin: Origin) -> TernaryTensor:
    found = origin.ternary()
    assert found is not None
    return found
