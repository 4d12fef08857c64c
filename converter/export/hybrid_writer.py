"""Writing the checkpoint of a Qwen3.5 hybrid: transformers' folder, MLX's 2 bits, or the MLX pack of a rotated one.

Value heads go back into transformers' order. MLX's folders have the norms as factors and the taps of the convolution
as [channels, taps, 1], which is how mlx-lm knows them. A pack is what sources/hadamard_pack.py reads; the Python that
its config.json names (`requires_runtime`, which readers ask for) is not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter.export.checkpoint_writer import CheckpointWriter
from tritpack.converter.families.family import Family
from tritpack.converter.sources.checkpoint import HADAMARD
from tritpack.converter.sources.hadamard_pack import BASE, MODEL_TYPE
from tritpack.converter.sources.source_model import SourceModel
from tritpack.converter.storage.mlx import Mlx
from tritpack.converter.storage.storage import DTYPE_NAMES, Storage, encoded, held
from tritpack.formats.arrays import F32, Bytes
from tritpack.formats.delta_net import GATES
from tritpack.formats.errors import Unsupported
from tritpack.formats.model_spec import TABLES
from tritpack.formats.safetensors_writer import Entry

SMALLEST_FIRST = ("float16", "float32")
"""What norms, taps and decays are written as: the first that holds all values. Gates keep their type."""

OWN_TYPE = {"bf16": "bfloat16", "f16": "float16"}
"""Our name of a plain float type -> transformers'; all others are written as float32, if nothing smaller holds them."""


class HybridWriter(CheckpointWriter):
    """Writes one hybrid. dtypes: the float types that may be taken. Raises Unsupported for what cannot be written."""

    def __init__(self, model: SourceModel, family: Family, storage: Storage, dtypes: tuple[str, ...]) -> None:
        super().__init__(model, family, storage, "float32")
        self._inexact: list[str] = []
        self.is_mlx, self.dtypes, self.rotation = isinstance(storage, Mlx), dtypes, model.spec.rotation
        if self.rotation and not self.is_mlx:
            hint = "--to mlx writes the MLX pack, which mlx-lm and mlx-vlm run"
            raise Unsupported("has weights in a rotated basis, which only an MLX pack can say", hint=hint)
        if self.rotation and not self.rotation.grouped_heads and model.spec.delta_net and _moves_heads(model):
            raise Unsupported("the columns of ssm_out are rotated in GGUF's order of heads, and a pack has another")
        if self.is_mlx and model.spec.delta_net and not model.spec.delta_net.interval:
            raise Unsupported("its attention layers are not at equal intervals, which is all that mlx-lm can be told")
        tables = (f"{table}.weight" for table in TABLES)
        self._linears |= {name for name in tables if name in model.tensors and self._packs(name)}
        floats = [name for name in model.spec.tensor_shapes() if name not in self._linears]
        self._tables = {name: self._table_dtype(name) for name in floats if _is_table(name)}
        self._small = {name: self._float(name) for name in floats if not _is_table(name)}

    def _packs(self, table: str) -> bool:
        """Return whether an embedding or head is written as a linear is: in MLX, if it is ternary."""
        if not self.is_mlx:
            return False
        tensor, (rows, cols) = self.model.tensors[table], self.model.spec.tensor_shapes()[table]
        ternary = tensor.ternary() if tensor.may_be_ternary else None
        tensor.release()
        fits = ternary is not None and not any(
            (
                self.storage.shape_misfit(rows, cols),
                self.storage.scales_misfit(ternary.scales),
                self.storage.nearest_grid(rows, cols, ternary.scale_blocks) != ternary.scale_blocks,
            )
        )
        if not fits and self.rotation and self.rotation.turns(table):
            raise Unsupported("is rotated, and MLX's 2 bits do not hold it", tensor=tensor.name)
        return fits

    def prove(self, folder: Path) -> tuple[float, list[str]]:
        worst, warnings = super().prove(folder)
        if self._inexact:
            warnings.append(
                f"{len(self._inexact)} tensors of decays come back a last bit off, {self._inexact[0]!r} first: no "
                "float32 logarithm gives their values, which another program rounded"
            )
        return worst, warnings

    # -- documents -----------------------------------------------------------------------------------------------------

    def _config(self) -> dict[str, Any]:
        text = self._text_config()
        if not self.is_mlx:
            return {"architectures": [self.family.transformers_class], **text}
        quantization = {**self.storage.config(), "mode": "affine"}
        both = {"quantization": quantization, "tie_word_embeddings": self.model.spec.tied, "text_config": text}
        if not self.rotation:
            return {"model_type": BASE, **both, "quantization_config": quantization}
        modules = [
            {
                "path": self._module(name),
                "block": self.rotation.block if self.rotation.turns(name) else 0,
                "embedding": name in self.rotation.tables,
                "dtype": self.storage.dtype,
            }
            for name in self.model.spec.tensor_shapes()
            if name in self._linears
        ]
        return {
            "schema_version": 2,
            "model_type": MODEL_TYPE,
            "base_model_type": BASE,
            "requires_runtime": "runtime/artifact.py",
            "hadamard_config": HADAMARD,
            "tensor_namespace": "mlx-vlm-qwen3_5",
            "gdn_activation_layout": "grouped",
            "modules": modules,
            **both,
        }

    def _text_config(self) -> dict[str, Any]:
        spec, net = self.model.spec, self.model.spec.delta_net
        assert net is not None
        rope: dict[str, Any] = {
            "rope_type": "default",
            "rope_theta": spec.rope_theta,
            "partial_rotary_factor": spec.rope_width / spec.head_dim,
        }
        if spec.rope_sections:
            rope |= {"mrope_section": list(spec.rope_sections[:3]), "mrope_interleaved": True}
        return {
            "model_type": self.family.model_types[0],
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.hidden_size,
            "intermediate_size": spec.intermediate_size,
            "num_hidden_layers": spec.layers,
            "num_attention_heads": spec.heads,
            "num_key_value_heads": spec.kv_heads,
            "head_dim": spec.head_dim,
            "hidden_act": spec.activation,
            "attn_output_gate": True,
            "max_position_embeddings": spec.context_length,
            "rms_norm_eps": spec.norm_eps,
            "rope_parameters": rope,
            "layer_types": ["linear_attention" if recurs else "full_attention" for recurs in net.recurrent],
            **({"full_attention_interval": net.interval} if net.interval else {}),
            "linear_num_key_heads": net.key_heads,
            "linear_num_value_heads": net.value_heads,
            "linear_key_head_dim": net.state_size,
            "linear_value_head_dim": net.state_size,
            "linear_conv_kernel_dim": net.conv_taps,
            "mamba_ssm_dtype": "float32",
            "tie_word_embeddings": spec.tied,
            "torch_dtype": self.storage.dtype,
            "use_cache": True,
        }

    def _documents(self) -> dict[str, Any]:
        documents = super()._documents()
        if self.rotation:
            named = self.rotation.to_metadata(self.model.spec.tensor_shapes())
            documents[HADAMARD] = {key: self._plain(key, value) for key, value in named.items()}
        return documents

    def _plain(self, key: str, value: Any) -> Any:
        """Return a value of the contract as JSON has it."""
        if key.endswith("weight_names"):
            return [self.target_name(name) for name in value]
        return value.tolist() if isinstance(value, np.ndarray) else value

    # -- tensors -------------------------------------------------------------------------------------------------------

    def target_name(self, name: str) -> str:
        return self.family.source_name(name, "language_model.model." if self.is_mlx else "model.")

    def _module(self, name: str) -> str:
        """Return what a pack calls a matrix in `modules`."""
        return self.target_name(name).removeprefix("language_model.").removesuffix(".weight")

    def _entries(self) -> Iterator[Entry]:
        for name, shape in self.model.spec.tensor_shapes().items():
            stem = self.target_name(name).removesuffix("weight")
            if name in self._linears:
                for part, dtype, size in self.storage.written_parts(shape[0], shape[1]):
                    yield Entry(stem + part, dtype, size)
                if self.rotation and self.rotation.turns(name) and self.rotation.signs:
                    yield Entry(f"{stem}signs", "F32", (shape[1],))
                continue
            dtype = self._tables[name] if _is_table(name) else self._small[name][0]
            size = shape if _is_table(name) else self._small[name][1].shape
            yield Entry(self.target_name(name), DTYPE_NAMES[dtype][0], size)

    def _data(self) -> Iterator[Iterable[Bytes]]:
        for name, shape in self.model.spec.tensor_shapes().items():
            if name in self._linears:
                yield from self._stored(name)
                if self.rotation and self.rotation.turns(name) and self.rotation.signs:
                    yield [self.rotation.signs[shape[1]].view(np.uint8)]
            elif _is_table(name):
                yield (encoded(piece, self._tables[name]) for piece in self.model.tensors[name].pieces())
            else:
                dtype, values = self._small[name]
                yield [encoded(values, dtype)]

    def _float(self, name: str) -> tuple[str, F32]:
        """Return the float type of a norm, gate, tap or decay, and its values as the checkpoint has them."""
        tensor, spec = self.model.tensors[name], self.model.spec
        values = np.concatenate(list(tensor.pieces())).reshape(spec.tensor_shapes()[name])
        tensor.release()
        if (order := spec.row_order(name)) is not None:
            values = values[np.argsort(order)]
        part = name.removesuffix(".weight").rpartition(".")[2]
        if part == "ssm_conv1d":
            values = values[:, :, None] if self.is_mlx else values[:, None]
        if part == "ssm_a":
            values, is_exact = _logarithm(values)
            self._inexact += [] if is_exact else [tensor.name]
        values = values if self.is_mlx else values - np.float32(self.family.offset_of(name))
        own = OWN_TYPE.get(tensor.float_type(), "float32") if part in GATES else SMALLEST_FIRST[0]
        for dtype in (own, *SMALLEST_FIRST):
            if dtype in self.dtypes and np.array_equal(held(values, dtype), values):
                return dtype, values
        raise self._misfit(tensor.name)

    def _table_dtype(self, name: str) -> str:
        """Return the float type of a table that stays floats: its own, or the first that holds all of its values."""
        tensor = self.model.tensors[name]
        for dtype in (OWN_TYPE.get(tensor.float_type(), "float32"), *SMALLEST_FIRST):
            if dtype in self.dtypes and all(np.array_equal(held(piece, dtype), piece) for piece in tensor.pieces()):
                return dtype
        raise self._misfit(tensor.name)

    def _misfit(self, name: str) -> Unsupported:
        hint = "--dtype float32 holds everything"
        return Unsupported(f"holds values that {self.dtypes[-1]} does not", tensor=name, hint=hint)


def _is_table(name: str) -> bool:
    return name.removesuffix(".weight") in TABLES


def _moves_heads(model: SourceModel) -> bool:
    net = model.spec.delta_net
    return net is not None and net.key_heads not in (1, net.value_heads)


def _logarithm(values: F32) -> tuple[F32, bool]:
    """Return A_log, float32, and whether -exp of it in float64, rounded once, gives these values exactly.

    The nearest number is tried first, then its neighbours. A converter that rounds otherwise leaves values that no
    number gives; then it is the nearest.
    """
    guess = np.log(-values.astype(np.float64)).astype(np.float32)
    found, is_right = guess.copy(), np.zeros(guess.shape, bool)
    for direction in (np.inf, -np.inf):
        near = guess.copy()
        for _ in range(4):
            fits = (-np.exp(near.astype(np.float64))).astype(np.float32) == values
            found = np.where(fits & ~is_right, near, found)
            is_right |= fits
            near = np.nextafter(near, np.float32(direction))
    return found, bool(is_right.all())
