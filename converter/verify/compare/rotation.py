"""Compares what FILE says of a rotated basis with the source's: keys that are lost, and signs, blocks and names that
differ. The keys are taken as they are, so that a mistake has its name even where they make no sense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tritpack.converter.verify.compare.metadata_values import same, short
from tritpack.converter.verify.findings import Finding, Kind
from tritpack.formats.arrays import F32
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.hadamard import PREFIX, Rotation

MEND = "no weight need change for that: tritpack convert or repack writes the keys anew from SOURCE"
SHOWN = 3
"""Names that a sentence lists."""


def rotation_findings(file: GgufFile, expected: Rotation | None) -> list[Finding]:
    """Return what of FILE's keys prism.hadamard.* is not the source's. expected: of the source, None for a plain
    basis."""
    keys = {key.removeprefix(PREFIX): value for key, value in file.metadata.items() if key.startswith(PREFIX)}
    if expected is None and not keys:
        return []
    if expected is None:
        what = "say that weights are in a rotated basis, and the source's are not: their inputs would be transformed"
        return [_finding(Kind.ROTATION_UNEXPECTED, f"the keys {PREFIX}* {what} for nothing")]
    if not keys:
        what = f"the weights are in a rotated basis ({expected}), and nothing says so: what runs it talks nonsense"
        return [_finding(Kind.ROTATION_LOST, f"all keys {PREFIX}* are lost: {what}")]
    return list(_differences(keys, expected))


def _finding(kind: Kind, sentence: str, tensor: str | None = None, **figures: Any) -> Finding:
    return Finding(kind, f"{sentence}; {MEND}", tensor, figures)


def _differences(keys: Mapping[str, Any], expected: Rotation) -> Iterator[Finding]:
    if not same(block := keys.get("block_size"), expected.block):
        sentence = f"{PREFIX}block_size is {short(block)}, the source has {expected.block}"
        yield _finding(Kind.ROTATION_BLOCK_DIFFERS, sentence, file=short(block), source=expected.block)
    yield from _signs(keys, expected.signs)
    inverse = _names(keys, "inverse_weight_names")
    if missing := sorted(expected.tables - inverse):
        sentence = f"{PREFIX}inverse_weight_names does not name {missing[0]}, whose rows would not be rotated back"
        yield _finding(Kind.TABLE_NOT_INVERTED, sentence, missing[0])
    yield from _names_differ("inverse_weight_names", inverse, expected.tables & inverse)
    yield from _names_differ("weight_names", _names(keys, "weight_names"), expected.weights)
    if not same(grouped := keys.get("gdn_v_grouped", False), expected.grouped_heads):
        order = "grouped by key head" if expected.grouped_heads else "tiled"
        sentence = f"{PREFIX}gdn_v_grouped is {short(grouped)}, and the columns of ssm_out are {order}"
        yield _finding(Kind.ROTATION_COLUMNS_DIFFER, sentence)


def _names(keys: Mapping[str, Any], key: str) -> frozenset[str]:
    names = keys.get(key)
    listed = names if isinstance(names, Sequence) and not isinstance(names, str) else ()
    return frozenset(name for name in listed if isinstance(name, str))


def _names_differ(key: str, found: frozenset[str], expected: frozenset[str]) -> Iterator[Finding]:
    for names, what in ((expected - found, "does not name"), (found - expected, "names, unlike the source,")):
        if names:
            some = ", ".join(sorted(names)[:SHOWN])
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            sentence = f"{PREFIX}{key} {what} {some}{more}"
            yield _finding(Kind.ROTATION_NAMES_DIFFER, sentence, min(names), names=sorted(names))


def _signs(keys: Mapping[str, Any], expected: Mapping[int, F32]) -> Iterator[Finding]:
    found = _vectors(keys)
    if found is None:
        return  # reading the file says what is wrong with it
    for width, signs in expected.items():
        ours = found.get(width)
        if ours is None or (ours == 1).all() > (signs == 1).all():
            how = "missing" if ours is None else "all 1"
            sentence = f"the signs for inputs of width {width} were lost: they are {how} ({PREFIX}sign_values)"
            yield _finding(Kind.SIGNS_LOST, sentence, width=width)
        elif not np.array_equal(ours, signs):
            count = int(np.count_nonzero(ours != signs))
            remark = _other_signs(width, ours, expected) or f"{count} of them are not the source's"
            sentence = f"the signs for inputs of width {width} are wrong: {remark} ({PREFIX}sign_values)"
            yield _finding(Kind.SIGNS_DIFFER, sentence, width=width, differing=count)
    if surplus := sorted(set(found) - set(expected)):
        sentence = f"there are signs for inputs of width {surplus[0]}, and the source has none"
        yield _finding(Kind.SIGNS_DIFFER, sentence, width=surplus[0])


def _other_signs(width: int, ours: F32, expected: Mapping[int, F32]) -> str:
    """Whose signs they are, in words, or ""."""
    if np.array_equal(ours, -expected[width]):
        return "all are negated"
    others = (other for other, signs in expected.items() if other != width and _repeats(ours, signs))
    return f"they are those of width {other}" if (other := next(others, None)) is not None else ""


def _repeats(ours: F32, signs: F32) -> bool:
    """Whether a vector is another one, cut or repeated to its own width."""
    return np.array_equal(ours, np.resize(signs, ours.shape))


def _vectors(keys: Mapping[str, Any]) -> dict[int, F32] | None:
    """Return the signs by width; None if the keys do not say which are whose. Where values are missing just for one
    width, it is left out."""
    if same(keys.get("sign_mode"), "identity"):
        return {}
    try:
        widths = [int(width) for width in keys.get("sign_widths", ())]
        values = np.asarray(keys.get("sign_values", ()), np.float32)
    except (TypeError, ValueError, OverflowError):
        return None
    if values.ndim == 1 and (lost := sum(widths) - len(values)) in widths:
        widths.remove(lost)
    if values.ndim != 1 or any(width < 1 for width in widths) or sum(widths) != len(values):
        return None
    return dict(zip(widths, np.split(values, np.cumsum(widths)[:-1])))
