"""The sentences for what many tensors have in common, and the conclusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tritpack.converter.diff.codes import CONSTANT
from tritpack.converter.diff.tensors import Pair
from tritpack.converter.verify.findings import FEW, Finding, Kind

HEADLINES = {
    Kind.CODES_NEGATED: "the signs of all codes are flipped",
    Kind.CODES_ZERO: "all codes are zero on one side",
    Kind.CODES_DIFFER: "the codes differ",
    Kind.CODE_DIFFERS: "a single code differs",
    Kind.CODES_OF_OTHER_TENSOR: "B holds the codes of another tensor of A",
    Kind.CODES_REMAPPED: "the codes stand for other values",
    Kind.ROWS_REORDERED: "the rows are permuted",
    Kind.ROWS_PERMUTED: "the rows are permuted for rotary embedding",
    Kind.ROWS_NOT_PERMUTED: "the rows are permuted for rotary embedding",
    Kind.ROWS_QUARTERED: "the rows are permuted by quarters",
    Kind.COLUMNS_REORDERED: "the columns are permuted",
    Kind.COLUMNS_REVERSED: "the columns are reversed",
    Kind.BYTE_ORDER: "B is right if its bytes are read in another order",
    Kind.SCALE_INVERTED: "the scales are inverted",
    Kind.SCALE_ABSMEAN_TWICE: "the scales are shrunk by the share of codes that are not zero",
    Kind.SCALE_SQUARED: "the scales are squared",
    Kind.SCALE_LOST: "the scales were lost",
    Kind.SCALE_FLOAT16: "the scales are rounded to float16",
    Kind.SCALE_BFLOAT16: "the scales are rounded to bfloat16",
    Kind.SCALE_DIFFERS: "the scales differ",
    Kind.VALUES_ROUNDED: "the values are rounded",
    Kind.TABLE_ROWS_REORDERED: "its rows are permuted",
    Kind.TABLE_ROWS_SHIFTED: "its rows are shifted",
    Kind.TABLE_DIFFERS: "its values differ",
    Kind.NORM_DIFFERS: "its values differ",
    Kind.TENSOR_MISSING: "only A has the tensor",
    Kind.TENSOR_UNEXPECTED: "only B has the tensor",
}
"""What a kind of difference is called where several tensors have it; another kind is called by its own name."""


def headline(finding: Finding, findings: Sequence[Finding], pairs: Sequence[Pair]) -> str:
    """Say what findings of one kind have in common, and in how many tensors. finding: the first of them."""
    called = _called_kind(finding)
    ratios = [other.figures["ratio"] for other in findings if other.figures.get("ratio")]
    if finding.kind is Kind.SCALE_DIFFERS and len(ratios) == len(findings):
        is_constant = max(ratios) - min(ratios) <= CONSTANT * min(ratios)
        if is_constant:
            called = f"every scale of B is {ratios[0]:.6g} times as large,"
    ternary = {pair.name for pair in pairs if pair.is_ternary}
    alike = [other.tensor for other in findings if other.tensor in ternary]
    if len(alike) == len(findings):
        every = "all " if len(alike) == len(ternary) else ""
        of = "" if every else f" of {len(ternary)}"
        return f"{called} in {every}{len(alike)}{of} ternary tensors"
    return f"{called} in {len(findings)} of {len(pairs)} tensors"


def grouped(findings: Sequence[Finding], pairs: Sequence[Pair]) -> list[Finding]:
    """Return the findings in order, with more than FEW of one kind made one, which says how many there are, gives the
    first in full and lists all tensors."""
    by_kind: dict[Kind, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    result: list[Finding] = []
    for kind, same in by_kind.items():
        first = same[0]
        if len(same) <= FEW or first.tensor is None:
            result += same
            continue
        sentence = f"{headline(first, same, pairs)}; the first: {first.sentence}"
        names = [finding.tensor for finding in same]
        result.append(Finding(kind, sentence, first.tensor, {**first.figures, "count": len(same), "tensors": names}))
    return result


def conclusion(parts: Mapping[str, Sequence[Finding]], ignored: set[str], pairs: Sequence[Pair]) -> str:
    """Say in one sentence whether the two are one model. parts: what differs. ignored: parts that do not count."""
    counting = [part for part, findings in parts.items() if findings and part not in ignored]
    others = [part for part, findings in parts.items() if findings and part in ignored]
    named = " and ".join(_called(part, parts[part]) for part in others)
    beside = f"; not counted: {named} {'differ' if len(others) > 1 else 'differs'} too" if others else ""
    if not counting:
        beside = f"; only {named} {'differ' if len(others) > 1 else 'differs'}, which does not count" if others else ""
        equal = [part for part in ("tensors", "hyperparameters", "tokenizer") if part not in others]
        return f"A and B hold the same model: its {', '.join(equal)} are equal{beside}"
    if counting == ["rounding"]:
        return f"A and B hold one model, rounded to different types (--ignore rounding lets that pass){beside}"
    if damaged := _damaged(pairs):
        names = [pair.name for pair in pairs if pair.damage]
        more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
        which = f"{damaged[0]} is" if len(damaged) == 1 else "A and B are"
        return f"{which} damaged: {names[0]}{more} cannot be decoded, so that the models cannot be the same{beside}"
    if counting == ["model"]:
        return f"A and B hold the same weights, and compute otherwise: {_fields(parts['model'])}{beside}"
    if counting == ["description"]:
        return "A and B hold the same model, described differently (--strict)"
    return f"A and B hold different models: {'; '.join(_reason(part, parts[part], pairs) for part in counting)}{beside}"


def _reason(part: str, findings: Sequence[Finding], pairs: Sequence[Pair]) -> str:
    """Say in a few words how a part differs; of tensors, the most common kind first."""
    first = findings[0]
    if part == "tensors" and len(findings) == 1 and first.tensor is not None:
        return f"{first.tensor}: {_called_kind(first)}"
    if part == "tensors":
        kinds = Counter(finding.kind for finding in findings).most_common()
        same = [finding for finding in findings if finding.kind is kinds[0][0]]
        others = Counter(_called_kind(finding) for finding in findings if finding.kind is not kinds[0][0])
        return "; ".join([headline(same[0], same, pairs), *(f"in {count}, {way}" for way, count in others.items())])
    return f"their hyperparameters differ ({_fields(findings)})" if part == "model" else f"their {part} differs"


def _damaged(pairs: Sequence[Pair]) -> list[str]:
    """Return the sides, A or B, with a tensor that cannot be decoded although its layout is known."""
    sides = [(name, getattr(pair, name)) for pair in pairs for name in pair.damage or ()]
    return sorted({name.upper() for name, tensor in sides if tensor.readable})


def _called_kind(finding: Finding) -> str:
    return HEADLINES.get(finding.kind, finding.kind.value.replace("_", " "))


def _called(part: str, findings: Sequence[Finding]) -> str:
    """Name a part that does not count. A description is named by its keys."""
    if part != "description":
        return f"the {part}"
    keys = [key.removeprefix("general.") for finding in findings for key in finding.figures["keys"]]
    return f"the {keys[0]}" if len(keys) == 1 else f"the description ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})"


def _fields(findings: Sequence[Finding]) -> str:
    """Name the hyperparameters that differ."""
    named = []
    for finding in findings:
        field = finding.figures.get("field") or finding.figures.get("key")
        if field == "int8_activations":
            side = "A" if finding.figures["a"] in (True, "True") else "B"
            field = f"activations are rounded to int8 in {side} only"
        named.append(str(field))
    return ", ".join(dict.fromkeys(named[:3])) + (", ..." if len(named) > 3 else "")
