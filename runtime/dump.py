"""Dump of a model: one flat file of the C structs, with offsets in place of pointers.

tests/c/run_dump.c runs it where there is no Python, for example under an emulator. The machine must be little-endian,
with 64 bits, or with 32 bits and aligned int64.
"""

from __future__ import annotations

import ctypes
import dataclasses
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from tritpack.runtime.abi import HparamsStruct, LayerStruct, TensorStruct
from tritpack.runtime.library import CTensor, model_structs
from tritpack.runtime.model import Model

MAGIC = b"tpdump3\0"
ALIGNMENT = 64


@dataclasses.dataclass(frozen=True)
class FlatStructs:
    """What tp_model_new takes, as bytes that do not depend on this process.

    hparams: without its pointers, which come last. frequencies, signs: the float32 arrays that they point to. layers:
    of all layers. ends: embedding, final norm and head. `data` of a tensor is its offset, or 0 if it is absent.
    """

    hparams: bytes
    frequencies: list[bytes]
    signs: bytes
    layers: bytes
    ends: bytes


def flat_structs(model: Model, offset_of: Callable[[str, CTensor], int]) -> FlatStructs:
    """Return the structs of `model`. offset_of: called once per tensor, with its GGUF name, in the order of the
    structs; it says where the bytes will lie."""
    made = model_structs(model.spec, model.c_model.tensors)
    last = HparamsStruct.sign_widths
    names = {tensor.data.ctypes.data: name for name, tensor in model.c_model.tensors.items()}
    ends = (made.embedding, made.norm, made.output)
    for tensor in _tensors(made.layers, *ends):
        if tensor.data:
            name = names[tensor.data]
            tensor.data = offset_of(name, model.c_model.tensors[name])
    return FlatStructs(
        bytes(made.hparams)[: last.offset + last.size],
        [array.tobytes() for array in made.frequencies],
        made.signs.tobytes(),
        bytes(made.layers),
        b"".join(map(bytes, ends)),
    )


def dump(model: Model, path: str | Path, tokens: Sequence[int], generate: int) -> None:
    """Write `model`, a prompt of `tokens`, and the number of tokens to decode greedily after it.

    The file holds: magic; uint64 size of the file in bytes; uint32 layers, prompt tokens, tokens to decode, frequencies
    per head (twice as many if layers use a sliding window), signs; hparams without its pointers; layers; embedding,
    final norm, head; the prompt as int32; frequencies and signs as float32; then the tensors, aligned to 64 bytes.
    `data` of a tensor is its offset in the file, or 0 if it is absent.
    """
    blobs: list[tuple[int, bytes]] = []
    free = 0

    def offset_of(name: str, tensor: CTensor) -> int:
        nonlocal free
        blobs.append((free, tensor.data.tobytes()))
        free += -(-tensor.data.nbytes // ALIGNMENT) * ALIGNMENT
        return blobs[-1][0]

    prompt = struct.pack(f"<{len(tokens)}i", *tokens)
    free = -(-len(_head(flat_structs(model, offset_of), model, prompt, generate, 0)) // ALIGNMENT) * ALIGNMENT
    blobs.clear()  # now it is known where the first of them lies
    flat = flat_structs(model, offset_of)
    size = max(at + len(blob) for at, blob in blobs)
    with Path(path).open("wb") as stream:
        stream.write(_head(flat, model, prompt, generate, size))
        for at, blob in blobs:
            stream.write(bytes(at - stream.tell()) + blob)


def _head(flat: FlatStructs, model: Model, prompt: bytes, generate: int, size: int) -> bytes:
    frequencies = b"".join(flat.frequencies)
    counts = (model.spec.layers, len(prompt) // 4, generate, len(frequencies) // 4, len(flat.signs) // 4)
    numbers = struct.pack("<Q5I", size, *counts)
    return MAGIC + numbers + flat.hparams + flat.layers + flat.ends + prompt + frequencies + flat.signs


def _tensors(layers: ctypes.Array[LayerStruct], *others: TensorStruct) -> list[TensorStruct]:
    parts = [name for name, kind, *_ in LayerStruct._fields_ if kind is TensorStruct]
    return [getattr(layer, part) for layer in layers for part in parts] + list(others)
