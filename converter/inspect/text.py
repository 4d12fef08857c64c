"""The result of inspect as lines for a terminal: the five answers, what is wrong, the details that were asked for."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tritpack.converter.cli.human import count, size
from tritpack.converter.inspect.answers import answer_sentences
from tritpack.converter.inspect.needs_text import needs_sentences

LABELS = {"what": "what", "intact": "intact", "runs_in": "runs in", "needs": "needs", "from": "from"}
"""The five answers as they are called on a screen."""
INDENT = 10
MOST_DAMAGE = 5
"""Lines of damage that a screen shows."""
Result = Mapping[str, Any]


def result_lines(
    result: Result, width: int, *, tensors: bool, stats: bool, metadata: bool, engines: bool
) -> Iterator[str]:
    """Yield everything that was asked for. width: of the terminal, 0 for endless lines."""
    yield from answer_lines(result, width)
    if engines:
        if result["damage"]:
            yield from labelled("engines", "What follows is true of an undamaged copy.", width)
        yield from engine_lines(result["engines"], width)
    if tensors or stats:
        yield from tensor_lines(result["tensors"])
    if metadata:
        yield from metadata_lines(result)
    if not (tensors or stats or metadata or engines):
        yield f"{'more':<{INDENT}}--stats, --engines, --tensors, --metadata, --json, --markdown, --html"


def answer_lines(result: Result, width: int) -> Iterator[str]:
    """Yield the name of the file, the five answers, and what is wrong."""
    yield result["file"]
    first = result["kind"] == "checkpoint" and not result["model"]
    if first:  # what cannot be converted is not described as if it could
        yield from problem_lines(result, width)
    for name, sentences in answer_sentences(result).items():
        for number, sentence in enumerate(sentences):
            yield from labelled("" if number else LABELS[name], sentence, width)
    if not first:
        yield from problem_lines(result, width)


def problem_lines(result: Result, width: int) -> Iterator[str]:
    """Yield what is wrong, and of much damage the start."""
    damage = result["damage"]
    for problem in [*damage[:MOST_DAMAGE], *(p for p in result["problems"] if p not in damage)]:
        yield from labelled("damage:" if problem in damage else "problem:", problem, width)
    if len(damage) > MOST_DAMAGE:
        yield f"damage: {len(damage) - MOST_DAMAGE} more of the kind (--json lists all)"


def labelled(label: str, text: str, width: int) -> Iterator[str]:
    """Yield a paragraph behind its label, the later lines below its first word."""
    head = f"{label} " if label.endswith(":") else f"{label:<{INDENT - 1}} "
    if width < 2 * INDENT:
        yield head + text
        return
    yield from textwrap.wrap(head + text, width, subsequent_indent=" " * INDENT, break_long_words=False,
                             break_on_hyphens=False)  # fmt: skip


def engine_lines(engines: Sequence[Result], width: int) -> Iterator[str]:
    """Yield what is to know of each engine with this file, and the commands that make a file for it."""
    for number, row in enumerate(engines):
        reasons = "; ".join(filter(None, (row["why"], row["evidence"])))
        verdict = "not tried" if row["verdict"] == "unknown" else row["verdict"]
        text = f"{row['engine']}, {verdict}{': ' + reasons if reasons else ''}"
        yield from labelled("" if number else "engines", text, width)
    commands = [
        f"for {row['engine']}: {row['command'] or 'not possible: ' + row['impossible']}"
        for row in engines
        if row["command"] or row.get("impossible")
    ]
    for number, command in enumerate(commands):
        yield from labelled("" if number else "make one", command, 0)


def tensor_lines(rows: Sequence[Result]) -> Iterator[str]:
    """Yield a table of the tensors, with the statistics of those that have them."""
    shares = f" {'scale':>10} {'-1':>6} {'0':>6} {'+1':>6} {'bits':>6}  codes"
    decoded = any("codes_sha256" in row for row in rows)
    widest = max([30, *(len(row["name"]) for row in rows)])
    yield f"{'tensor':<{widest}} {'layout':<7} {'shape':<14} {'size':>10}{shares if decoded else ''}"
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        line = f"{row['name']:<{widest}} {row['layout']:<7} {shape:<14} {size(row['nbytes']):>10}"
        if "codes_sha256" in row:
            scale = f"{row['scale']:.6g}" if "scale" in row else row["granularity"]
            figures = " ".join(f"{row[key]:>6.3f}" for key in ("minus", "zero", "plus", "entropy_bits"))
            line += f" {scale:>10} {figures}  {row['codes_sha256'][:12]}"
        yield line


def metadata_lines(result: Result) -> Iterator[str]:
    """Yield every key of the file, or of a checkpoint's config.json, with its value or the start of it."""
    yield "metadata:" if result["kind"] == "gguf" else "config.json:"
    for key, value in result["metadata"].items():
        yield f"  {key} = {short(value)}"


def short(value: Any) -> str:
    """Return a value of the metadata in at most 100 characters, escaped."""
    if isinstance(value, dict):
        text = f"[{value['length']}] {', '.join(map(repr, value['first']))}, ..."
    else:
        text = repr(value)  # which escapes it
    return text if len(text) <= 100 else text[:97] + "..."


def shape_lines(result: Result, width: int) -> Iterator[str]:
    """Yield what a model of a shape needs, and the arithmetic behind it."""
    model = result["model"]
    yield f"{result['shape']}: a model that is not here, by its sizes alone"
    sizes = (
        f"{model['layers']} layers, hidden {model['hidden_size']}, ffn {model['intermediate_size']}, heads "
        f"{model['heads']}/{model['kv_heads']} of {model['head_dim']}, vocabulary {model['vocab_size']}"
    )
    yield from labelled("what", f"{count(result['parameters'])} parameters: {sizes}.", width)
    yield from labelled("from", f"{result['source']}.", width)
    for number, sentence in enumerate(needs_sentences(result["needs"])):
        yield from labelled("" if number else "needs", sentence, width)
    for number, line in enumerate(result["arithmetic"]):
        yield from labelled("" if number else "sums", line, width)
    if "claim" in result["answers"]:
        yield from labelled("claim", result["answers"]["claim"], width)
