"""Ways to break a packed file: its metadata, its tensor table, its codes, scales and floats."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.make.checkpoints import edited_gguf
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.layouts.catalog import REPAIRABLE
from tritpack.formats.ternary import TernaryTensor

ARCH = "bitnet-b1.58"
Metadata = dict[str, Any]
Arrays = dict[str, np.ndarray]
Edit = Callable[[Path, Path], Path]
"""(good file, where to write) -> the broken file."""


def metadata(change: Callable[[Metadata], object]) -> Edit:
    return lambda good, bad: edited_gguf(good, bad, metadata=change)


def key(name: str, value: object) -> Edit:
    return metadata(lambda pairs: pairs.update({name: value}))


def without(*names: str) -> Edit:
    return metadata(lambda pairs: [pairs.pop(name) for name in names])


def arrays(change: Callable[[Arrays], object]) -> Edit:
    """Of the stored bytes of tensors."""
    return lambda good, bad: edited_gguf(good, bad, tensors=change)


def norm(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    def edit(tensors: Arrays) -> None:
        floats = tensors[name].view(np.float32)
        floats[:] = change(floats.copy())

    return arrays(edit)


def ternary(change: Callable[[TernaryTensor], TernaryTensor], *names: str) -> Edit:
    """Codes and scales of tensors, packed again; all linears if none is named."""

    def edit(good: Path, bad: Path) -> Path:
        file = GgufFile(good)

        def repack(tensors: Arrays) -> None:
            for name, info in file.tensors.items():
                if (names and name not in names) or (found := file.ternary(info)) is None:
                    continue
                layout = file.layout_of(info)
                assert layout is not None
                tensors[name] = layout.pack(change(found))

        return edited_gguf(good, bad, tensors=repack)

    return edit


def codes(change: Callable[[np.ndarray], np.ndarray], *names: str) -> Edit:
    return ternary(
        lambda tensor: TernaryTensor(np.ascontiguousarray(change(tensor.codes.copy())), tensor.scales), *names
    )


def scales(change: Callable[[TernaryTensor], Any], *names: str) -> Edit:
    return ternary(lambda tensor: TernaryTensor(tensor.codes, np.float32(change(tensor)).reshape(-1, 1)), *names)


def tensors_as(change: Callable[[list[tuple[TensorPlan, np.ndarray]]], list[tuple[TensorPlan, np.ndarray]]]) -> Edit:
    """The tensor table itself."""

    def edit(good: Path, bad: Path) -> Path:
        file = GgufFile(good)
        table = [
            (TensorPlan(info.name, info.shape, info.type_id, info.nbytes), file.bytes_of(info).copy())
            for info in file.tensors.values()
        ]
        table = change(table)
        write_gguf(bad, file.metadata, [plan for plan, _ in table], ([data] for _, data in table))
        return bad

    return edit


def drop(part: str) -> Edit:
    return tensors_as(lambda table: [row for row in table if part not in row[0].name])


def retyped(part: str, type_id: int, nbytes: Callable[[int, int], int]) -> Edit:
    def change(table: list[tuple[TensorPlan, np.ndarray]]) -> list[tuple[TensorPlan, np.ndarray]]:
        result = []
        for plan, data in table:
            if part in plan.name:
                size = nbytes(*plan.shape)
                plan, data = dataclasses.replace(plan, type_id=type_id, nbytes=size), np.zeros(size, np.uint8)
            result.append((plan, data))
        return result

    return tensors_as(change)


def untie(table: list[tuple[TensorPlan, np.ndarray]]) -> list[tuple[TensorPlan, np.ndarray]]:
    plan, data = next(row for row in table if row[0].name == "token_embd.weight")
    return [*table, (dataclasses.replace(plan, name="output.weight"), np.roll(data, 2))]


def renamed_architecture(pairs: Metadata) -> None:
    for name in [name for name in pairs if name.startswith(f"{ARCH}.")]:
        pairs[name.replace(ARCH, "llama", 1)] = pairs.pop(name)
    pairs["general.architecture"] = "llama"


def swap_two_tokens(pairs: Metadata) -> None:
    tokens = list(pairs["tokenizer.ggml.tokens"])
    tokens[70], tokens[71] = tokens[71], tokens[70]
    pairs["tokenizer.ggml.tokens"] = tokens


def written_by_another_tool(pairs: Metadata) -> None:
    """Without what GGUF has no keys for: llama.cpp knows its own rules by name, and no normaliser."""
    for name in [name for name in pairs if name.startswith("tritpack.tokenizer.")]:
        pairs.pop(name)
    pairs.pop("tritpack.version")


def bos_twice(pairs: Metadata) -> None:
    pairs["tokenizer.chat_template"] = "{{ bos_token }}" + pairs["tokenizer.chat_template"]


def exchanged(first: str, second: str) -> Edit:
    def change(tensors: Arrays) -> None:
        tensors[first], tensors[second] = tensors[second], tensors[first]

    return arrays(change)


def stale_scale(tensors: Arrays) -> None:
    """Repacked codes with the trailer of the tensor that stood there before."""
    tensors["blk.1.ffn_up.weight"][-32:] = tensors["blk.0.ffn_up.weight"][-32:]


def in_order_of(layout: str) -> Edit:
    """What bitnet.cpp writes on another machine under the same type id."""

    def change(good: Path, bad: Path) -> Path:
        file = GgufFile(good)

        def repack(tensors: Arrays) -> None:
            for name, info in file.tensors.items():
                if (found := file.ternary(info)) is not None:
                    tensors[name] = REPAIRABLE[layout].pack(found)

        return edited_gguf(good, bad, tensors=repack)

    return change


def flip_one(tensor: np.ndarray) -> np.ndarray:
    tensor[3, 77] = (int(tensor[3, 77]) + 2) % 3 - 1
    return tensor


def rotary(codes_: np.ndarray, head_dim: int = 64) -> np.ndarray:
    rows = len(codes_)
    return codes_[np.arange(rows).reshape(-1, 2, head_dim // 2).swapaxes(1, 2).reshape(-1)]


def unrotary(codes_: np.ndarray, head_dim: int) -> np.ndarray:
    rows = len(codes_)
    return codes_[np.argsort(np.arange(rows).reshape(-1, 2, head_dim // 2).swapaxes(1, 2).reshape(-1))]


def absmean_again(tensor: TernaryTensor) -> float:
    return float(np.abs(tensor.dequantize()).mean(dtype=np.float64))


def shifted(codes_: np.ndarray) -> np.ndarray:
    return np.roll(codes_.reshape(-1), 128).reshape(codes_.shape)


def nan(values: np.ndarray) -> np.ndarray:
    values[3] = np.nan
    return values


# -- edits for edited_gguf --------------------------------------------------------------------------------------------


def flip_code(tensors: Arrays) -> None:
    """One code of one tensor: the first byte's highest pair becomes another legal code."""
    data = tensors["blk.1.ffn_up.weight"]
    old = data[0] >> 6
    data[0] = (data[0] & 0x3F) | ((old + 1) % 3) << 6


def swap_gate_and_up(tensors: Arrays) -> None:
    a, b = "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"
    tensors[a], tensors[b] = tensors[b], tensors[a]


def key_of(name: str, value: object) -> Callable[[Metadata], None]:
    return lambda metadata: metadata.update({name: value})
