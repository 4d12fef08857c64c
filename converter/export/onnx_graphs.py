"""One small ONNX graph per linear: a MatMulNBits node of ONNX Runtime with 2 bits, and its initialisers.

Format: "MatMulNBits" in ONNX Runtime's ContribOperators.md. Weight (r, c) is (field - 2) * scale of its block, since 2
is the zero point where none is given; fields lie four to a byte, low bits first, and blocks along the rows.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter.export.storage_choice import in_source_order, linears, prepared
from tritpack.converter.families.family import Family
from tritpack.converter.sources.source_model import SourceModel
from tritpack.converter.storage.storage import Written
from tritpack.converter.targets.scale_rounding import loss
from tritpack.converter.version import VERSION
from tritpack.formats.arrays import Codes
from tritpack.formats.errors import MissingRequirement, Unsupported, UsageError, WriteFailed
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.layouts.mlx2 import ONE_MORE
from tritpack.formats.names import GROUP_SIZES
from tritpack.formats.progress import Progress
from tritpack.formats.ternary import TernaryTensor, scales_differ

BLOCKS = (*GROUP_SIZES, 16)
"""Weights per scale that the operator has, of those that divide the rows of models; largest first."""
DTYPES = ("float32", "float16")
"""Types of inputs, scales and results; ONNX Runtime has no bfloat16 of it on a CPU."""
LIST = "graphs.json"
IR_VERSION, OPSET = 8, 17
"""As old as the node allows, so that old readers take the file."""


@dataclasses.dataclass(frozen=True)
class MatMulNBits(Written):
    """What the operator holds. block: weights per scale."""

    name = "matmul_nbits"

    block: int = 128

    @classmethod
    def candidates(cls, dtype: str, group_size: int | None) -> Sequence[Written]:
        if group_size is not None and group_size not in BLOCKS:
            raise UsageError(f"--group-size {group_size} is unknown", hint=f"one of {', '.join(map(str, BLOCKS))}")
        return [cls(dtype, block) for block in (BLOCKS if group_size is None else (group_size,))]

    def nearest_grid(self, rows: int, cols: int, scale_blocks: tuple[int, int]) -> tuple[int, int]:
        fits = cols // scale_blocks[1] % self.block == 0
        return scale_blocks if fits else (scale_blocks[0], cols // self.block)

    def shape_misfit(self, rows: int, cols: int) -> str | None:
        if cols % self.block:
            return f"its rows of {cols} weights are not whole blocks of {self.block}"
        return LAYOUTS["mlx2"].shape_misfit(rows, cols)


def float_types(asked: str) -> tuple[str, ...]:
    """Return the float types that the argument of --dtype allows. Raises UsageError."""
    if asked == "auto":
        return DTYPES[:1]
    if asked not in DTYPES:
        raise UsageError(f"--dtype {asked} is not for --to onnx", hint=f"choose one of: auto, {', '.join(DTYPES)}")
    return (asked,)


class GraphWriter:
    """Writes the linears of one model, a file each, and a list of them. said: sentences that the list repeats.

    Raises MissingRequirement without the onnx package.
    """

    def __init__(self, model: SourceModel, family: Family, storage: Written, said: Sequence[str]) -> None:
        assert isinstance(storage, MatMulNBits)
        self.model, self.family, self.storage, self.said = model, family, storage, said
        self._onnx = _library()

    def write(self, folder: Path, progress: Progress) -> None:
        """Write every file. Raises OSError."""
        names, listed = self.model.spec.linear_names(), []
        for done, (name, _) in enumerate(linears(self.model)):
            progress(name, done, len(names))
            ternary = self._expected(name)
            module = self.family.source_name(name).removesuffix(".weight")
            (folder / f"{module}.onnx").write_bytes(self._graph(module, ternary).SerializeToString(deterministic=True))
            rows, cols = ternary.shape
            listed.append(
                {
                    "file": f"{module}.onnx",
                    "tensor": f"{module}.weight",
                    "gguf_name": name,
                    "shape": [rows, cols],
                    "scales": ternary.granularity,
                    "codes_sha256": ternary.codes_sha256(),
                }
            )
        document = {
            "schema": "tritpack.onnx/1",
            "model": str(self.model.metadata.get("general.name", "")),
            "bits": 2,
            "block_size": self.storage.block,
            "dtype": self.storage.dtype,
            "notes": list(self.said),
            "graphs": listed,
        }
        (folder / LIST).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
        progress("", len(names), len(names))

    def _expected(self, name: str) -> TernaryTensor:
        ternary = self.model.tensors[name].ternary()
        assert ternary is not None
        return prepared(in_source_order(self.model, name, ternary), self.storage)

    def _graph(self, module: str, ternary: TernaryTensor) -> Any:
        """Return the model of one linear: y = x W^T, x (..., columns), y (..., rows)."""
        helper, numpy_helper = self._onnx.helper, self._onnx.numpy_helper
        (rows, cols), block = ternary.shape, self.storage.block
        kind = np.dtype(self.storage.dtype)
        scales = np.repeat(ternary.scales, rows // len(ternary.scales), axis=0)
        scales = np.repeat(scales, cols // block // scales.shape[1], axis=1)
        codes = (LAYOUTS["mlx2"].pack(ternary) + ONE_MORE).reshape(rows, cols // block, block // 4)
        node = helper.make_node(
            "MatMulNBits",
            ["x", "codes", "scales"],
            ["y"],
            domain="com.microsoft",
            K=cols,
            N=rows,
            bits=2,
            block_size=block,
        )
        element = helper.np_dtype_to_tensor_dtype(kind)
        graph = helper.make_graph(
            [node],
            module,
            [helper.make_tensor_value_info("x", element, ["batch", "tokens", cols])],
            [helper.make_tensor_value_info("y", element, ["batch", "tokens", rows])],
            [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scales.astype(kind), "scales")],
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tritpack", producer_version=VERSION
        )

    def prove(self, folder: Path) -> tuple[float, list[str]]:
        """Read the graphs again and compare every code and scale. Return the largest relative change of a scale.

        Raises WriteFailed for what did not survive.
        """
        worst = 0.0
        for name, tensor in linears(self.model):
            source = tensor.ternary()
            assert source is not None
            expected = self._expected(name)
            module = self.family.source_name(name).removesuffix(".weight")
            back = read_graph(folder / f"{module}.onnx")
            if not np.array_equal(back.codes, expected.codes) or scales_differ(back, expected)[0].any():
                raise WriteFailed("did not survive the export; this is a bug of tritpack", tensor=name)
            worst = max(worst, loss(in_source_order(self.model, name, source), expected))
        return worst, []


def read_graph(path: Path) -> TernaryTensor:
    """Return codes and scales of a graph that GraphWriter has written. Raises Unsupported for others."""
    graph = _library().load(path).graph
    parts = {part.name: _library().numpy_helper.to_array(part) for part in graph.initializer}
    settings = {attribute.name: attribute.i for attribute in graph.node[0].attribute}
    if len(graph.node) != 1 or graph.node[0].op_type != "MatMulNBits" or settings.get("bits") != 2:
        raise Unsupported("is not one MatMulNBits node with 2 bits", path=path)
    rows, cols = settings["N"], settings["K"]
    fields = parts["codes"][..., None] >> np.array([0, 2, 4, 6], np.uint8) & 3
    codes: Codes = fields.reshape(rows, -1)[:, :cols].astype(np.int8) - np.int8(2)
    return TernaryTensor(codes, parts["scales"].astype(np.float32))


def _library() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingRequirement("ONNX graphs need the onnx package", hint='pip install "tritpack[onnx]"') from error
    import onnx.numpy_helper  # the package does not always import it

    return onnx
