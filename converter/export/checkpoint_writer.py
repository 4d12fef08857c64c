"""Writing the files of a checkpoint folder: weights, config, tokenizer, and the modules of embedding models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter.export.configuration import config_of
from tritpack.converter.export.proof import prove
from tritpack.converter.export.storage_choice import (
    BYTES_PER_WEIGHT,
    in_source_order,
    largest_linear,
    prepared,
)
from tritpack.converter.export.tokenizer import tokenizer_files
from tritpack.converter.families.family import Family
from tritpack.converter.pipeline.in_order import in_order, threads_for
from tritpack.converter.sampling import generation_config
from tritpack.converter.sources.source_model import SourceModel
from tritpack.converter.storage.mlx import Mlx
from tritpack.converter.storage.storage import DTYPE_NAMES, Storage, encoded
from tritpack.formats.arrays import Bytes
from tritpack.formats.model_spec import LINEARS, ROPE_FACTORS
from tritpack.formats.names import DTYPES
from tritpack.formats.safetensors_writer import Entry, write_safetensors

SENTENCE_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


class CheckpointWriter:
    """Writes one model in one family's names.

    storage: how the linears are stored. float_dtype: of norms and tables.
    """

    def __init__(self, model: SourceModel, family: Family, storage: Storage, float_dtype: str) -> None:
        self.model, self.family, self.storage, self.float_dtype = model, family, storage, float_dtype
        self._linears = frozenset(model.spec.linear_names())

    def write(self, folder: Path, progress: Callable[[str, int, int], None]) -> None:
        """Write every file. Raises OSError and WriteFailed."""
        for name, document in self._documents().items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
        write_safetensors(folder / "model.safetensors", list(self._entries()), self._data(), progress=progress)

    def prove(self, folder: Path) -> tuple[float, list[str]]:
        """Read the folder again and compare; see prove of proof.py."""
        return prove(folder, self.model, self.family, self.storage)

    # -- documents -----------------------------------------------------------------------------------------------------

    def _documents(self) -> dict[str, Any]:
        spec = self.model.spec
        files, ids = tokenizer_files(self.model.metadata)
        name = self.model.metadata.get("general.name")
        files["config.json"] = {**({"_name_or_path": name} if name else {}), **self._config(), **ids}
        if generation := {**ids, **generation_config(self.model.metadata)}:
            files["generation_config.json"] = generation
        if spec.is_embedding_model:
            files["modules.json"] = SENTENCE_MODULES
            files["1_Pooling/config.json"] = {"pooling_mode": {"last": "lasttoken"}.get(spec.pooling, spec.pooling)}
        return files

    def _config(self) -> dict[str, Any]:
        spec = self.model.spec
        widest = max(self.storage.dtype, self.float_dtype, key=DTYPES.index)
        config = config_of(spec, self.family, widest)
        quantization = self.storage.config()
        if not quantization:
            return config
        is_mlx = isinstance(self.storage, Mlx)
        if is_mlx:
            config["quantization"] = quantization
        if self.family.embedding:
            return config  # the names of its tensors say that these are master weights
        if spec.projection_norms and not is_mlx:
            quantization |= {"use_rms_norm": True, "rms_norm_eps": spec.projection_norm_eps}
        config["quantization_config"] = quantization
        return config

    # -- tensors -------------------------------------------------------------------------------------------------------

    def _entries(self) -> Iterator[Entry]:
        for name, shape in self.model.spec.tensor_shapes().items():
            if name in self._linears:
                stem = self.target_name(name).removesuffix("weight")
                for part, dtype, size in self.storage.written_parts(shape[0], shape[1]):
                    yield Entry(stem + part, dtype, size)
            elif name != ROPE_FACTORS:  # these are in config.json
                yield Entry(self.target_name(name), DTYPE_NAMES[self.float_dtype][0], shape)

    def _data(self) -> Iterator[Iterable[Bytes]]:
        """Yield the bytes of each entry, in pieces."""
        shapes = self.model.spec.tensor_shapes()
        linears = [name for name in shapes if name in self._linears]
        stored = in_order(self._stored, linears, threads_for(BYTES_PER_WEIGHT * largest_linear(self.model)))
        for name in shapes:
            if name in self._linears:
                yield from next(stored)
            elif name != ROPE_FACTORS:
                offset = np.float32(self.family.offset_of(name))
                yield (encoded(piece - offset, self.float_dtype) for piece in self.model.tensors[name].pieces())

    def _stored(self, name: str) -> list[list[Bytes]]:
        """Return the pieces of each part of a linear."""
        tensor = self.model.tensors[name]
        ternary = tensor.ternary()
        assert ternary is not None
        parts = self.storage.write(prepared(in_source_order(self.model, name, ternary), self.storage))
        pieces = [list(part) for part in parts]
        tensor.release()
        return pieces

    def target_name(self, name: str) -> str:
        """Return the checkpoint's name of a GGUF tensor."""
        part = name.rpartition(".")[0].rpartition(".")[2]
        linear = part.removesuffix("_norm_in")
        if part.endswith("_norm_in") and linear in LINEARS and not self.family.embedding:
            return self.family.source_name(name.replace(part, linear)).replace(".weight", ".rms_norm.weight")
        return self.family.source_name(name)
