"""STQ1_0 tensors and files, packed weight by weight from the engine's own table of patterns.

No code of formats/layouts packs them. The table is that of llama.cpp PR 22836: two bits per lane, low bits first, less
one.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.model_spec import LINEARS
from tritpack.formats.ternary import TernaryTensor

CODEBOOK = bytes.fromhex("a9892909a68626069a921a126a624a42")
"""The patterns of sign 0; those of sign 1 are 0xAA less these."""


def sparse_tensor(rows: int, cols: int, seed: int) -> TernaryTensor:
    """Return random codes of which one in four is zero, with a random float16 scale per 256 weights."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(np.array([-1, 1], np.int8), (rows, cols))
    for row in codes:
        for start in range(0, cols, 64):
            for i in range(16):
                row[start + i + 16 * rng.integers(4)] = 0
    scales = rng.uniform(0.01, 0.1, (rows, cols // 256)).astype(np.float16).astype(np.float32)
    return TernaryTensor(codes, scales)


def packed(tensor: TernaryTensor) -> np.ndarray:
    """Return the bytes of a tensor, uint8 (rows * cols / 256 * 42,). Its scales are float16, one per 256 weights."""
    table = [*CODEBOOK, *(0xAA - pattern for pattern in CODEBOOK)]
    out = bytearray()
    for codes, scale in zip(tensor.codes.reshape(-1, 256).tolist(), tensor.scales.reshape(-1).tolist(), strict=True):
        slots, signs = bytearray(32), bytearray(8)
        for g in range(64):
            lanes = [codes[g // 16 * 64 + g % 16 + 16 * lane] for lane in range(4)]
            index = table.index(sum(code + 1 << 2 * lane for lane, code in enumerate(lanes)))
            slots[g // 2] |= (index & 15) << 4 * (g % 2)
            signs[g // 8] |= (index >> 4) << g % 8
        out += slots + signs + struct.pack("<e", scale)
    return np.frombuffer(bytes(out), np.uint8)


def written(source: Path, target: Path, type_id: int = 43, **metadata: Any) -> dict[str, TernaryTensor]:
    """Write a GGUF like `source` whose linears are STQ1_0 with other codes; return these. metadata: keys that change,
    with `__` for dots; those of ours go, as of a file of another tool."""
    file = GgufFile(source)
    keys = {key: value for key, value in file.metadata.items() if not key.startswith(("tritpack.", "general.source."))}
    keys |= {key.replace("__", "."): value for key, value in metadata.items()}
    truth, plans, pieces = {}, [], []
    for seed, (name, info) in enumerate(file.tensors.items()):
        data, kind = file.bytes_of(info), info.type_id
        if name.split(".")[-2] in LINEARS:
            truth[name] = sparse_tensor(info.rows, info.cols, seed)
            data, kind = packed(truth[name]), type_id
        plans.append(TensorPlan(name, info.shape, kind, data.size))
        pieces.append([data])
    write_gguf(target, keys, plans, pieces)
    return truth
