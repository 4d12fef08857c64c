"""Dump of a model: one flat file of the C structs, with offsets in place of pointers.

tests/c/run_dump.c runs it where there is no Python, for example under an emulator. The machine must be little-endian,
with 64 bits, or with 32 bits and aligned int64.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from pathlib import Path

from tritpack.runtime.abi import HparamsStruct, LayerStruct, TensorStruct
from tritpack.runtime.library import model_structs
from tritpack.runtime.model import Model

MAGIC = b"tpdump2\0"
ALIGNMENT = 64


def dump(model: Model, path: str | Path, tokens: Sequence[int], generate: int) -> None:
    """Write `model`, a prompt of `tokens`, and the number of tokens to decode greedily after it.

    The file holds: magic; uint64 size of the file in bytes; uint32 layers, prompt tokens, tokens to decode, frequencies
    per head (twice as many if layers use a sliding window); hparams without its pointers; layers; embedding, final
    norm, head; the prompt as int32; the frequencies as float32; then the tensors, aligned to 64 bytes. `data` of a
    tensor is its offset in the file, or 0 if it is absent.
    """
    c_model = model.c_model
    made = model_structs(model.spec, c_model.tensors)
    last = HparamsStruct.rope_factor
    hparams = bytes(made.hparams)[: last.offset + last.size]
    prompt = struct.pack(f"<{len(tokens)}i", *tokens)
    frequencies = b"".join(array.tobytes() for array in made.frequencies)
    numbers = struct.pack("<4I", model.spec.layers, len(tokens), generate, len(frequencies) // 4)
    structs = (made.layers, made.embedding, made.norm, made.output)
    start = len(MAGIC + numbers + hparams + prompt + frequencies) + 8 + sum(map(ctypes.sizeof, structs))
    offset, blobs = -(-start // ALIGNMENT) * ALIGNMENT, []
    by_address = {tensor.data.ctypes.data: tensor for tensor in c_model.tensors.values()}
    for tensor in _tensors(made.layers, made.embedding, made.norm, made.output):
        if tensor.data:
            blobs.append((offset, by_address[tensor.data].data.tobytes()))
            tensor.data = offset
            offset += -(-len(blobs[-1][1]) // ALIGNMENT) * ALIGNMENT
    size = struct.pack("<Q", max(at + len(blob) for at, blob in blobs))
    with Path(path).open("wb") as stream:
        stream.write(MAGIC + size + numbers + hparams + b"".join(map(bytes, structs)) + prompt + frequencies)
        for at, blob in blobs:
            stream.write(bytes(at - stream.tell()) + blob)


def _tensors(layers: ctypes.Array[LayerStruct], *others: TensorStruct) -> list[TensorStruct]:
    parts = [name for name, kind, *_ in LayerStruct._fields_ if kind is TensorStruct]
    return [getattr(layer, part) for layer in layers for part in parts] + list(others)
