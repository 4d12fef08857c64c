"""Whether a source is the model of a file: the codes say so, which no fine-tuned model of the same shape shares."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tritpack.converter.sources.source_tensors import SourceTensor
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile, ReadOptions, TensorInfo
from tritpack.formats.names import READ_AS
from tritpack.formats.ternary import TernaryTensor

AS_STORED = "i2_s"
"""The name of the order in which a file is read without --read-as."""


def order_of_source(file: GgufFile, source: Mapping[str, SourceTensor], read_as: str | None = None) -> str:
    """Return in which order of bytes the file has the codes of the source: AS_STORED, or one of names.READ_AS.

    All ternary tensors of the first, the middle and the last block are compared. read_as: the only order to try.
    Raises UsageError, without a path, if it is another model or cannot be compared, and what reading a tensor raises.
    """
    tensors = _compared(file, source)
    if not tensors:
        hint = "tritpack metadata set gives a key a value without a source"
        raise UsageError("has no tensor whose codes could show that it is the model of the file", hint=hint)
    others = (name for name in READ_AS if any(tensor.layout == AS_STORED for tensor in tensors))
    readers = {name: GgufFile(file.path, ReadOptions(read_as=name)) for name in ([read_as] if read_as else others)}
    orders = readers if read_as else {AS_STORED: file, **readers}
    for tensor in tensors:
        right = source[tensor.name].ternary()
        source[tensor.name].release()
        if right is None:
            raise UsageError(f"cannot be compared with the file: its tensor {tensor.name!r} is not ternary")
        orders = {name: reader for name, reader in orders.items() if _has_codes(reader, tensor, right)}
        if not orders:
            hint = "if it is the right source, the file is damaged: tritpack verify names the tensors that differ"
            raise UsageError(f"is another model: the file has other codes in tensor {tensor.name!r}", hint=hint)
    return next(iter(orders))


def _compared(file: GgufFile, source: Mapping[str, SourceTensor]) -> list[TensorInfo]:
    """Return the ternary tensors of three blocks; all of them where none is in a block."""
    ternary = [t for t in file.tensors.values() if file.layout_of(t) and t.name in source and 0 not in t.shape]
    blocks = sorted({block for tensor in ternary if (block := _block(tensor)) is not None})
    if not blocks:
        return ternary
    chosen = {blocks[0], blocks[len(blocks) // 2], blocks[-1]}
    return [tensor for tensor in ternary if _block(tensor) in chosen]


def _block(tensor: TensorInfo) -> int | None:
    kind, *rest = tensor.name.split(".")
    return int(rest[0]) if kind == "blk" and rest and rest[0].isdecimal() else None


def _has_codes(file: GgufFile, tensor: TensorInfo, right: TernaryTensor) -> bool:
    """Whether a tensor has these codes, read as `file` reads it."""
    try:
        ternary = file.ternary(tensor)
    except (Unreadable, Unsupported):  # in a wrong order, the codes may be none
        return False
    finally:
        file.release(tensor)
    return ternary is not None and np.array_equal(ternary.codes, right.codes)
