"""`tritpack diff`: whether two files or checkpoints hold the same model, and where they differ if they do not.

A model is what is computed from a text: hyperparameters, tokenizer and chat template, and the values of all tensors.
Layouts, containers, hashes, versions and what describes a model (its name, its licence) are shown and do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tritpack.converter.diff.explain import Explainer
from tritpack.converter.diff.metadata import compare_metadata, compare_models
from tritpack.converter.diff.side import Side, open_side
from tritpack.converter.diff.tensors import Pair, compare_tensors
from tritpack.converter.diff.tokenizer import compare_tokenizers
from tritpack.converter.diff.words import conclusion, grouped
from tritpack.converter.verify.findings import Finding, Kind
from tritpack.formats.errors import UsageError
from tritpack.runtime import packers

SCHEMA = "tritpack.diff/1"
IGNORED = ("tokenizer", "rounding")
"""What --ignore takes: parts in which two sides may differ and count as the same model."""


def diff(
    a: str | Path,
    b: str | Path,
    *,
    ignore: Collection[str] = (),
    strict: bool = False,
    quantize: str | None = None,
    progress: Callable[[str, int, int], None] = lambda tensor, done, total: None,
) -> dict[str, Any]:
    """Compare two models, and return what `tritpack diff --json` prints.

    a, b: GGUF files (the first of a split set), checkpoint folders, or ORG/NAME[@REVISION] on the Hub, which is
    downloaded. ignore: any of IGNORED; `rounding` is that of floats to a shorter type and of scales to a shorter float.
    strict: let what describes the model count too. quantize: `absmean` where `convert` needed it. progress: gets the
    name of a tensor, the bytes compared so far, and all of them.
    Raises Unreadable or Unsupported for a side that cannot be read, UsageError, and what a download raises.
    """
    if unknown := [part for part in ignore if part not in IGNORED]:
        raise UsageError(f"--ignore {unknown[0]} is unknown", hint=f"choose from: {', '.join(IGNORED)}")
    packers.use_c_packers()
    sides = open_side(a, quantize), open_side(b, quantize)
    keys = compare_metadata(*sides)
    model, notes = compare_models(*sides, keys["model"])
    tokenizer, of_tokenizer, about_tokenizer = compare_tokenizers(*sides, keys["tokenizer"])
    pairs = compare_tensors(*sides, progress)
    of_tensors = _explained(sides, pairs)
    parts = {
        "model": model,
        "tokenizer": of_tokenizer,
        "tensors": [finding for finding in of_tensors if not _is_rounding(finding)],
        "rounding": [finding for finding in of_tensors if _is_rounding(finding)],
        "description": [_description(keys["description"])] if keys["description"] else [],
    }
    ignored = {*ignore, *(() if strict else ("description",))}
    differences = [
        {"part": part, "counts": part not in ignored, **finding.as_json()}
        for part, findings in parts.items()
        for finding in grouped(findings, pairs)
    ]
    different = any(difference["counts"] for difference in differences)
    return {
        "schema": SCHEMA,
        "verdict": "different" if different else "same",
        "conclusion": conclusion(parts, ignored, pairs),
        "a": sides[0].describe(),
        "b": sides[1].describe(),
        "ignored": sorted(ignore),
        "strict": strict,
        "differences": differences,
        "notes": [*notes, *about_tokenizer],
        "metadata": keys,
        "tokenizer": tokenizer,
        "summary": _summary(pairs),
        "tensors": [pair.as_json() for pair in pairs],
    }


def _explained(sides: tuple[Side, Side], pairs: Sequence[Pair]) -> list[Finding]:
    """Put the difference of each pair in words, and return all of them."""
    explainer = Explainer(*sides, pairs)
    for pair in pairs:
        pair.finding = explainer.explain(pair)
    return [pair.finding for pair in pairs if pair.finding is not None]


def _is_rounding(finding: Finding) -> bool:
    return finding.kind in (Kind.VALUES_ROUNDED, Kind.SCALE_FLOAT16, Kind.SCALE_BFLOAT16)


def _description(keys: Sequence[Mapping[str, Any]]) -> Finding:
    named = ", ".join(row["key"] for row in keys[:3]) + (", ..." if len(keys) > 3 else "")
    count = f"{len(keys)} keys that describe the model differ" if len(keys) > 1 else "a key that describes it differs"
    return Finding(Kind.KEY_DIFFERS, f"{count}: {named}", None, {"keys": [row["key"] for row in keys]})


def _summary(pairs: Sequence[Pair]) -> dict[str, dict[str, int]]:
    """Return how many tensors have each verdict, of ternary ones and of floats."""
    verdicts = ("equal", "rounded", "differs", "only_in_a", "only_in_b")
    counts = Counter((pair.is_ternary, pair.verdict) for pair in pairs)
    return {
        kind: {verdict: counts[is_ternary, verdict] for verdict in verdicts}
        for kind, is_ternary in (("ternary", True), ("floats", False))
    }
