"""The faults of packed tensors: an order of bytes that only one engine reads, and rubbish where zeros belong."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from tritpack.converter.metadata.draft import Draft
from tritpack.converter.metadata.faults import Fault
from tritpack.converter.metadata.finding import FIXED, UNPROVED, Finding, Knowledge
from tritpack.converter.metadata.source_codes import AS_STORED
from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unreadable, UsageError
from tritpack.formats.gguf_reader import GgufFile, ReadOptions, TensorInfo
from tritpack.formats.integrity import recorded_hashes
from tritpack.formats.layouts import catalog
from tritpack.formats.layouts.bases import TRAILER, TrailingScale

SCALE_BYTES = 4
"""Of a trailer; the bytes after them are left to chance by bitnet.cpp's quantiser."""
FORM_KEY = "tritpack.source.form"
"""A key of files that were made of a checkpoint."""
REPAIR_KEY = "tritpack.repair.read_as"


def order(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """I2_S in the order that bitnet.cpp writes on ARM (64 codes in 16 bytes), or without activation parallelism.

    All orders take the same bytes, so that a source has to tell, or the user.
    """
    tensors = [tensor for tensor in draft.file.tensors.values() if tensor.layout == "i2_s" and 0 not in tensor.shape]
    if not tensors:
        if knowledge.read_as:
            raise UsageError(f"has no i2_s tensors to read as {knowledge.read_as}", path=draft.file.path)
        return
    if knowledge.read_as is None and not knowledge.has_source:
        if "tritpack.version" not in draft.metadata:
            yield Finding(
                UNPROVED, f"another tool wrote the {len(tensors)} i2_s tensors",
                "bitnet.cpp on ARM writes another order of bytes, which looks the same",
                "if the model talks nonsense: --source compares the codes, --read-as i2_s_arm reads that order",
            )  # fmt: skip
        return
    right = knowledge.read_as or knowledge.order_of_source
    if right == AS_STORED:
        return
    _refuse_proved(draft.file, tensors[0])
    other = GgufFile(draft.file.path, ReadOptions(read_as=right))
    misfits = [f"{t.name!r}: {why}" for t in tensors if (why := catalog.LAYOUTS["i2_s"].shape_misfit(t.rows, t.cols))]
    if misfits:
        raise UsageError(
            f"cannot be put into the order of i2_s: tensor {misfits[0]}", path=draft.file.path,
            hint=f"tritpack repack --read-as {right} --outtype t2 writes a layout that takes any shape",
        )  # fmt: skip
    for tensor in tensors:
        draft.refill(tensor, functools.partial(_reordered, other, tensor))
    draft.set(REPAIR_KEY, "str", right)
    how = "--read-as says so" if knowledge.read_as else "so they have the codes of the source"
    yield Finding(FIXED, f"{len(tensors)} i2_s tensors are in the order {right}: {how}", "put into that of i2_s")


def _refuse_proved(file: GgufFile, tensor: TensorInfo) -> None:
    """Raise UsageError for a file that tritpack made of a checkpoint, and that has the codes recorded then."""
    recorded = recorded_hashes(file).get(tensor.name)
    if recorded and FORM_KEY in file.metadata and recorded.codes_sha256 == _codes(file, tensor):
        message = "is in the order of i2_s: it has the codes that it recorded when it was made of a checkpoint"
        raise UsageError(message, path=file.path, tensor=tensor.name, hint="leave out --read-as")


def _codes(file: GgufFile, tensor: TensorInfo) -> str | None:
    try:
        ternary = file.ternary(tensor)
    except Unreadable:
        return None
    return None if ternary is None else ternary.codes_sha256()


def _reordered(file: GgufFile, tensor: TensorInfo) -> Bytes:
    layout = file.layout_of(tensor)
    assert layout is not None
    stored = file.bytes_of(tensor)
    ternary = layout.unpack(stored, tensor.rows, tensor.cols)
    file.release(tensor)
    return catalog.LAYOUTS["i2_s"].pack(ternary)


def rubbish_after_scales(draft: Draft, knowledge: Knowledge) -> Iterator[Finding]:
    """Bytes after the one scale of a tensor, which readers ignore: with zeros there, equal tensors have equal bytes."""
    tensors = [tensor for tensor in draft.file.tensors.values() if tensor.name not in draft.refilled]
    dirty = [tensor for tensor in tensors if _is_dirty(draft.file, tensor)]
    if not dirty:
        return
    for tensor in dirty:
        draft.refill(tensor, functools.partial(_cleaned, draft.file, tensor))
    fault = f"{len(dirty)} tensors have stray bytes after their scale, which bitnet.cpp leaves to chance"
    yield Finding(FIXED, fault, "set to zeros; no reader uses them, so that the file was not damaged")


def _is_dirty(file: GgufFile, tensor: TensorInfo) -> bool:
    is_trailing = isinstance(file.layout_of(tensor), TrailingScale)
    return is_trailing and bool(file.bytes_of(tensor)[-TRAILER + SCALE_BYTES :].any())


def _cleaned(file: GgufFile, tensor: TensorInfo) -> Bytes:
    data = file.bytes_of(tensor).copy()
    data[-TRAILER + SCALE_BYTES :] = 0
    return data


LAYOUT_FAULTS: dict[str, Fault] = {"order of i2_s": order, "rubbish after scales": rubbish_after_scales}
"""Every fault of tensors, by the name that users see."""
