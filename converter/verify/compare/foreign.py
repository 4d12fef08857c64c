"""Files that another tool wrote: what they cannot say is taken from the source, their float tables are judged by
distance, and what an engine always does is its habit and not a mistake."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.compare.metadata_values import same
from tritpack.formats.arrays import F32, Bytes
from tritpack.formats.float_types import FLOAT_TYPES
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.layouts.catalog import READ_ONLY
from tritpack.formats.model_metadata import QUANTIZATION_KEY

ROTARY_TOLERANCE = 1e-5
"""Relative, for rotary frequency factors: other tools compute the same formula in float32."""
LAST_DIGITS = 2.0**-22
"""Relative: two units in the last place of float32."""
LOGARITHM_DIGITS = 2.0**-20
"""Relative: what half of the last bit of a float32 logarithm up to 16 makes of its exponential."""
CONTROL, USER_DEFINED = 3, 4
"""Of tokenizer.ggml.token_type."""
SPECIAL_ENDS = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
SPECIAL_TEXTS = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")


def is_foreign(file: GgufFile) -> bool:
    """Whether another tool than tritpack wrote the file."""
    return "tritpack.version" not in file.metadata


def has_foreign_tables(file: GgufFile) -> bool:
    """Whether another encoder may have written the float tables: `repack` keeps them as they are."""
    return comes_from_foreign(file)


def comes_from_foreign(file: GgufFile) -> bool:
    """Whether another tool chose what the file holds: tritpack converted or repacked another GGUF."""
    return is_foreign(file) or same(file.metadata.get("general.source.format"), "gguf")


def layout_not_run(file: GgufFile) -> str | None:
    """Why a file cannot be run although it may be right: a layout of its tensors is only read here. None if none is."""
    name = next((tensor.layout for tensor in file.tensors.values() if tensor.layout in READ_ONLY), None)
    return None if name is None else f"tritpack reads {name} and does not run it"


def is_silent_on_activations(file: GgufFile) -> bool:
    """Whether the file cannot say how activations are quantised: only tritpack has a key for it."""
    return is_foreign(file) and QUANTIZATION_KEY not in file.metadata


def same_but_for_rounding(ours: F32, expected: F32) -> bool:
    """Whether values are the same formula's, one of them computed in float16: llama.cpp's converter adds 1 to norms and
    takes exponentials in the type of the checkpoint. The exponentials of two libraries differ in the last digits."""
    with np.errstate(over="ignore"):
        short = (np.array_equal(a, b.astype(np.float16)) for a, b in ((ours, expected), (expected, ours)))
        return any(short) or bool(np.allclose(ours, expected, rtol=LAST_DIGITS, atol=0))


def is_decay(name: str) -> bool:
    """Whether a tensor holds -exp(A_log), of which a checkpoint stores A_log."""
    return name.endswith(".ssm_a")


def same_decays(ours: F32, expected: F32) -> bool:
    """Whether decays are equal but for a float32 logarithm between them, which an export to a checkpoint takes. Not
    every decay is the exponential of one."""
    return bool(np.allclose(ours, expected, rtol=LOGARITHM_DIGITS, atol=0))


def same_factors(ours: F32, expected: F32) -> bool:
    """Whether rotary factors are the same formula's, by whatever arithmetic."""
    return ours.shape == expected.shape and np.allclose(ours, expected, rtol=ROTARY_TOLERANCE, atol=0)


# -- float tables by another encoder -----------------------------------------------------------------------------------


def allowed_distance(kind: str, data: Bytes, rows: int, cols: int) -> F32:
    """How far each value may be from the source, float32 (rows, cols): by the step size of the block that holds it.

    An encoder that searches for the best scale may cut the largest values off by a step, which makes two steps. Where
    the scale of a sub-block is an integer itself, half a unit of it moves the ends of the sub-block too.
    """
    if kind == "f32":
        return np.zeros((rows, cols), np.float32)
    if kind in ("f16", "bf16"):
        return _spacing(kind, data).reshape(rows, cols)
    blocks = np.ascontiguousarray(data).reshape(-1, FLOAT_TYPES[kind].block_bytes)
    with np.errstate(invalid="ignore", over="ignore"):  # a scale that is not finite allows nothing
        limit = {"q8_0": _q8_0, "q6_k": _q6_k, "q4_k": _q4_k}[kind](blocks)
    width = FLOAT_TYPES[kind].block // limit.shape[1]
    return np.repeat(limit, width, axis=1).reshape(rows, cols).astype(np.float32)


def _spacing(kind: str, data: Bytes) -> F32:
    """The distance from each value to the next of its type."""
    if kind == "f16":
        steps: F32 = np.spacing(np.abs(np.ascontiguousarray(data).view("<f2"))).astype(np.float32)
        return steps
    exponents = np.ascontiguousarray(data).view("<u2").astype(np.uint32) << 16 & 0x7F800000
    return np.asarray(exponents.view(np.float32) * np.float32(2**-7), np.float32)


def _half(blocks: npt.NDArray[np.uint8], at: int) -> tuple[F32, F32]:
    """A float16 of each block, and how much rounding may have changed it: float32 (n, 1) twice."""
    value = np.abs(np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2"))
    return value.astype(np.float32), np.spacing(value).astype(np.float32) / 2


def _q8_0(blocks: npt.NDArray[np.uint8]) -> F32:
    d, error = _half(blocks, 0)
    return d + 127 * error


def _q6_k(blocks: npt.NDArray[np.uint8]) -> F32:
    d, error = _half(blocks, 208)
    scales = np.abs(blocks[:, 192:208].view(np.int8).astype(np.float32))
    return np.asarray(2 * d * scales + 32 * (d / 2 + 128 * error), np.float32)


def _q4_k(blocks: npt.NDArray[np.uint8]) -> F32:
    (d, error), (least, least_error) = _half(blocks, 0), _half(blocks, 2)
    low, high = blocks[:, 4:8], blocks[:, 12:16]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6) << 4], axis=1).astype(np.float32)
    return np.asarray(2 * d * scales + 15 * (d / 2 + 63 * error) + least / 2 + 63 * least_error, np.float32)


# -- habits of engines -------------------------------------------------------------------------------------------------


def is_habit_of_types(tokens: object, stored: object, expected: object) -> bool:
    """Whether token types differ only as llama.cpp has them: it marks user-defined tokens that look special, such as
    <|fim_prefix|>, as control tokens."""
    try:
        rows = list(zip(tokens, stored, expected, strict=True))  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return False
    return all(
        ours == theirs or ((ours, theirs) == (CONTROL, USER_DEFINED) and isinstance(text, str) and _looks_special(text))
        for text, ours, theirs in rows
    )


def _looks_special(text: str) -> bool:
    return text in SPECIAL_TEXTS or any(text.startswith(start) and text.endswith(end) for start, end in SPECIAL_ENDS)
