"""`inspect --html`: one page that loads nothing, with the five answers first and the details after them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from tritpack.converter.cli.human import count, size
from tritpack.converter.inspect.answers import answer_sentences, runs_in
from tritpack.converter.inspect.inputs import open_any
from tritpack.converter.inspect.page_language import language
from tritpack.converter.report import plots
from tritpack.converter.report.pages import refuse_page, template, write_file
from tritpack.converter.report.places import ordered, place
from tritpack.converter.report.treemap import Box, treemap
from tritpack.converter.version import VERSION
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.printable import printable

QUESTIONS = {
    "what": "What is it?",
    "intact": "Is it intact?",
    "runs_in": "What runs it?",
    "needs": "What does it need?",
    "from": "Where is it from?",
}
VERDICTS = {"right": "runs right", "wrong": "runs wrong", "refuses": "refuses it", "unknown": "not tried"}
KINDS = {"table": "embedding and head", "attn": "attention", "ffn": "feed-forward", "norm": "norms", "rest": "the rest"}
MAP_ASPECT = 2.2
"""Width of the treemap over its height, as the style sheet has it."""
SHOWN = 6
"""Problems that are shown at once."""
LONG, LONGEST = 160, 20_000
"""Characters of a value of the metadata that are shown at once, and in all."""


def write_page(result: Mapping[str, Any], file: str | Path, output: str | Path, *, force: bool = False) -> None:
    """Write the page of what `inspect(file, stats=True)` returned. Raises UsageError and WriteFailed."""
    refuse_page(output, force=force, inputs=[file])
    write_file(output, page(result, tokenizer_metadata(file)), force=force)


def tokenizer_metadata(file: str | Path) -> Mapping[str, Any]:
    """Return the GGUF keys of a file's or checkpoint's tokenizer; {} where nothing can be read."""
    try:
        source = open_any(file, stats=True)
        if isinstance(source, GgufFile):
            return source.metadata
        from tritpack.converter.sources.source_model import from_checkpoint

        return from_checkpoint(source, None, None).metadata
    except TritpackError:
        return {}


def page(result: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """Return the HTML. metadata: the tokenizer's GGUF keys."""
    decoded = [row for row in result["tensors"] if "counts" in row]
    spoken = language(metadata)
    text: str = template("inspect.html.j2").render(
        version=VERSION,
        result=result,
        title=str(result.get("name") or Path(result["file"]).name),
        file_name=Path(result["file"]).name,
        answers=[(QUESTIONS[key], sentences, _tone(key, result)) for key, sentences in _answers(result).items()],
        map=treemap(_boxes(result), MAP_ASPECT),
        kinds=KINDS,
        shares=_shares(decoded),
        charts=_charts(decoded),
        engines=result.get("engines") or [],
        verdicts=VERDICTS,
        problems=(result["problems"][:SHOWN], result["problems"][SHOWN:]),
        memory=_memory(result.get("needs")),
        language=spoken,
        metadata=_groups(result["metadata"]),
        rows=[_row(row) for row in result["tensors"]],
        sections=_sections(result, decoded, spoken),
        size=size,
        count=count,
        lines=lambda text: Markup("{}").format(printable(text, lines=True)),
    )
    return text


def _sections(
    result: Mapping[str, Any], decoded: Sequence[Any], spoken: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    """Return the anchors that the page has, with their names."""
    names = {
        "problems": ("problems", result["problems"]),
        "bytes": ("bytes", result["tensors"]),
        "codes": ("weights", decoded),
        "engines": ("engines", result.get("engines")),
        "memory": ("memory", result.get("needs")),
        "chat": ("chat", spoken),
        "tokenizer": ("tokenizer", spoken and not spoken["error"]),
        "metadata": ("metadata", True),
        "tensors": ("tensors", True),
    }
    return [(anchor, name) for anchor, (name, there) in names.items() if there]


def _answers(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the sentences of the five answers; why an engine runs the file or not is on the page itself."""
    sentences = answer_sentences(result)
    return sentences | {"runs_in": runs_in(result)} if result["engines"] and result["kind"] == "gguf" else sentences


def _tone(key: str, result: Mapping[str, Any]) -> str:
    """Return the class of an answer: bad news and good news have a colour."""
    if key == "intact":
        checked = (result.get("integrity") or {}).get("checked")
        return "bad" if result["damage"] else "good" if checked else ""
    if key == "runs_in":
        if result["damage"]:
            return "bad"
        return "good" if any(row["verdict"] == "right" for row in result.get("engines") or []) else ""
    return ""


# -- bytes -------------------------------------------------------------------------------------------------------------


def _boxes(result: Mapping[str, Any]) -> list[Box]:
    """Return what takes the bytes of the file: tables, layers with their tensors, and the header."""
    layers: dict[int, list[Box]] = {}
    boxes = []
    for row in result["tensors"]:
        layer, part = place(str(row.get("gguf_name", row["name"])))
        nbytes = row["nbytes"]
        shape = " x ".join(map(str, row["shape"]))
        note = f"{row['name']}: {row['layout']}, {shape}, {size(nbytes)}"
        box = Box(part, nbytes, _kind(part), note, size(nbytes))
        if layer is None:
            boxes.append(box)
        else:
            layers.setdefault(layer, []).append(box)
    for layer, parts in layers.items():
        total = sum(box.value for box in parts)
        boxes.append(Box(str(layer), total, "layer", f"layer {layer}: {size(int(total))}", parts=_without_norms(parts)))
    rest = result["nbytes"] - sum(row["nbytes"] for row in result["tensors"])
    if rest > 0:
        boxes.append(Box("header", rest, "rest", f"header, metadata and padding: {size(rest)}", size(rest)))
    return boxes


def _without_norms(parts: Sequence[Box]) -> list[Box]:
    """Return the boxes of a layer with its norms, which are too small to be seen, as one."""
    norms = [box for box in parts if box.kind == "norm"]
    total = sum(box.value for box in norms)
    others = [box for box in parts if box.kind != "norm"]
    return [*others, Box("norms", total, "norm", f"{len(norms)} norms: {size(int(total))}")] if norms else others


def _kind(part: str) -> str:
    if "norm" in part:
        return "norm"
    if part.startswith(("attn", "self_attn")):
        return "attn"
    if part.startswith(("ffn", "mlp")):
        return "ffn"
    return "table" if part.startswith(("token_embd", "output", "model.embed_tokens", "lm_head")) else "rest"


# -- codes and scales --------------------------------------------------------------------------------------------------


def _shares(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Return the shares of -1, 0 and +1 in all codes."""
    totals = [sum(row["counts"][code] for row in rows) for code in range(3)]
    count = sum(totals)
    return [(name, total / count) for name, total in zip(("-1", "0", "+1"), totals)] if count else []


def _charts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return title, SVG and caption of each chart."""
    if not rows:
        return []
    scales = [scale for row in rows for scale in scales_of(row)]
    charts = [
        ("Share of zeros", _heat(rows, lambda row: row["zero"]), "Shaded from the least to the largest of the file."),
        ("Mean scale", _heat(rows, lambda row: float(np.mean(scales_of(row)))), "What a code of 1 stands for."),
        (
            "Entropy in bits per weight",
            _heat(rows, lambda row: row["entropy_bits"], ".4f"),
            f"At most log2(3) = {math.log2(3):.4f}, where the three codes are equally frequent.",
        ),
        (
            "How large the scales are",
            plots.histogram(scales, title="Scales", x_label="log10 of the scale", y_label="scales"),
            f"{len(scales):,} scales of {len(rows)} ternary tensors.",
        ),
    ]
    return [{"title": title, "svg": Markup(svg), "caption": caption} for title, svg, caption in charts if svg]


def scales_of(row: Mapping[str, Any]) -> list[float]:
    """Return the scales of a decoded tensor that are not 0."""
    scales = [[row["scale"]]] if "scale" in row else row["scales"]
    return [scale for line in scales for scale in line if scale > 0] or [0.0]


def _heat(rows: Sequence[Mapping[str, Any]], value: Any, number: str = ".3g") -> str:
    by_part: dict[str, dict[int, float]] = {}
    for row in rows:
        layer, part = place(str(row.get("gguf_name", row["name"])))
        if layer is not None:
            by_part.setdefault(part, {})[layer] = value(row)
    return plots.heat_map(
        {part: by_part[part] for part in ordered(by_part)}, title="by layer", x_label="layer", number=number
    )


# -- the rest ----------------------------------------------------------------------------------------------------------


def _memory(needs: Mapping[str, Any] | None) -> list[tuple[str, int, float]]:
    """Return what takes memory: name, bytes, share of the whole."""
    if not needs:
        return []
    parts = [("weights", needs["nbytes"]), (f"keys and values of {needs['context']:,} tokens", needs["cache_bytes"])]
    if needs["state_bytes"]:
        parts.append(("recurrent states", needs["state_bytes"]))
    whole = sum(nbytes for _, nbytes in parts)
    return [(name, nbytes, nbytes / whole) for name, nbytes in parts]


def _groups(metadata: Mapping[str, Any]) -> dict[str, list[tuple[str, str, bool]]]:
    """Return the metadata by what its keys begin with: key, value, and whether the value is long."""
    groups: dict[str, list[tuple[str, str, bool]]] = {}
    architecture = str(metadata.get("general.architecture"))  # which may have a dot
    for key, value in metadata.items():
        text = _value(value)
        name = str(key)
        first = architecture if name.startswith(f"{architecture}.") else name.partition(".")[0]
        groups.setdefault(first if "." in name else "config", []).append((name, text, len(text) > LONG))
    return groups


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and "length" in value:
        text = f"{value['length']:,} values: {', '.join(map(repr, value['first']))}, ..."
    else:
        text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text):,} characters)"


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "name": row["name"],
        "layout": row["layout"],
        "shape": " × ".join(map(str, row["shape"])),
        "nbytes": size(row["nbytes"]),
        "intact": row.get("intact"),
        "figures": [],
    }
    if "counts" in row:
        scale = f"{row['scale']:.6g}" if "scale" in row else row["granularity"]
        shares = [f"{row[key]:.3f}" for key in ("minus", "zero", "plus", "entropy_bits")]
        figures["figures"] = [scale, *shares, row["codes_sha256"][:12]]
    return figures
