"""The engine table as lines and as a page: what `tritpack engines` and docs/engines.md show."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from tritpack.converter.report.markdown import code, heading_anchor, text
from tritpack.converter.targets.engines import table
from tritpack.converter.targets.engines.conditions import any_of, in_words, listed
from tritpack.converter.targets.engines.packed_model import Grid, PackedModel
from tritpack.converter.targets.engines.table import Row, architecture_for
from tritpack.converter.targets.engines.verdict import ACTIVATIONS, REFUSES, RIGHT, UNKNOWN, WRONG, judge, type_id_of
from tritpack.formats.layouts import catalog
from tritpack.formats.names import LAYOUTS

SCHEMA = "tritpack.engines/1"
NOT_TRIED, NOT_POSSIBLE = "not tried", "not possible"
_HYBRID = PackedModel(
    architecture="qwen35",
    activation="silu",
    tied=False,
    int8_activations=False,
    ternary_tables=True,
    grids=(Grid(5120, 5120, (5120, 5120 // 128)),),
)
MODELS = {
    "BitNet b1.58 2B-4T (squared ReLU)": PackedModel(architecture="bitnet-b1.58", activation="relu2"),
    "bitnet_b1_58-large (SiLU, sub-norms)": PackedModel(architecture="bitnet", activation="silu"),
    "Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E": PackedModel(architecture="llama", activation="silu", tied=False),
    "Ternary-Bonsai (float activations)": PackedModel(
        architecture="qwen3",
        activation="silu",
        int8_activations=False,
        ternary_tables=True,
        grids=(Grid(2048, 2048, (2048, 2048 // 128)),),
    ),
    "Ternary-Bonsai-27B (Qwen3.5 hybrid)": _HYBRID,
    "Ternary-Bonsai-2 (the same, rotated basis)": dataclasses.replace(_HYBRID, rotated=True),
    "BitNet embedding 0.6B": PackedModel(architecture="qwen3", activation="silu", projection_norms=True),
}
"""Models of the overview, by how people call them."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the table. file: which files it is about, in words."""

    file: str
    verdict: str
    why: str
    evidence: str

    def as_json(self) -> dict[str, str]:
        """Return its fields."""
        return dataclasses.asdict(self)


def lines(row: Row) -> list[Line]:
    """Return what the table says of an engine, or of one version of it."""
    return [*_loads(row), *_graphs(row), *_rules(row), *_notes(row)]


def _loads(row: Row) -> Iterator[Line]:
    if "gguf" not in (row.reads or (row.container,)):
        yield Line("a GGUF file", "refuses", "it reads checkpoint folders", row.evidence["container"])
    if row.types:
        known = [f"{' or '.join(listed(names))} ({type_id})" for type_id, names in row.types.items()]
        why = "all other ternary layouts are refused; floats, q8_0 and k-quants load too"
        yield Line(f"layout {', '.join(known)}", "loads", why, row.evidence.get("types", ""))


def _graphs(row: Row) -> Iterator[Line]:
    if row.graphs:
        known = [f"{architecture} ({ACTIVATIONS[activation]})" for architecture, activation in row.graphs.items()]
        evidence = row.evidence.get("graphs", "")
        yield Line(
            f"architecture {', '.join(known)}",
            "loads",
            "a model with another activation function loads and runs wrong",
            evidence,
        )


def _rules(row: Row) -> Iterator[Line]:
    for rule in row.rules:
        yield Line(in_words(rule.when), rule.verdict, rule.general or rule.why, rule.evidence)


def _notes(row: Row) -> Iterator[Line]:
    for note in row.notes:
        yield Line(in_words(note.when), "note", note.general or note.text, note.evidence)


def make_one(row: Row) -> str:
    """Return the command that makes a file for an engine."""
    layout = row.produces[0] if row.produces else ""
    return row.produce.format(file="FILE", output="OUT.gguf", folder="DIR", layout=layout)


def what_it_takes(row: Row) -> str:
    """Return what a file for an engine has to be, and which models it runs right then."""
    cells = {name: [_cell(version, model) for version in row.all_versions()] for name, model in MODELS.items()}
    verdicts = (WRONG, REFUSES, NOT_TRIED, NOT_POSSIBLE)
    right = [name for name, found in cells.items() if any(cell not in verdicts for cell in found)]
    untried = [name for name, found in cells.items() if name not in right and NOT_TRIED in found]
    never = [name for name in cells if name not in right + untried]
    layouts = row.produces or (row.target.layouts if row.target else None)
    return " ".join(
        [
            *([f"It needs {any_of(list(layouts))}."] if layouts else []),
            *([f"Right for {'; '.join(right)}."] if right else []),
            *([f"Not for {'; '.join(never)}, whatever the layout."] if never else []),
            *([f"Not tried with {'; '.join(untried)}."] if untried else []),
        ]
    )


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what `tritpack engines --json` prints."""
    return {
        "schema": SCHEMA,
        "engines": [
            {
                "name": version.name,
                "about": row.about,
                "url": row.url,
                "command": row.produce,
                "lines": [line.as_json() for line in lines(version)],
            }
            for row in rows
            for version in row.all_versions()
        ],
    }


# -- the page ----------------------------------------------------------------------------------------------------------


def page() -> str:
    """Return docs/engines.md."""
    parts = [PREFACE, "## Which layouts run right", "", *_overview(), ""]
    for row in table.rows():
        parts += [f"## {row.name}", "", f"{text(row.about)}{f' <{row.url}>' if row.url else ''}", ""]
        parts += [f"Make a file for it: {code(make_one(row))}. {text(what_it_takes(row))}", ""]
        for version in row.all_versions():
            if row.versions:
                parts += [f"### {version.name}", ""]
            if version.produce != row.produce:
                parts += [f"Make a file for it: {code(make_one(version))}.", ""]
            parts += ["| file | verdict | why | how it is known |", "|---|---|---|---|"]
            parts += [
                f"| {text(line.file)} | {line.verdict} | {text(line.why)} | {text(line.evidence)} |"
                for line in lines(version)
            ]
            parts += [""]
    return "\n".join(parts)


PREFACE = """# Engines

<!-- Made by `tritpack engines --markdown` from converter/targets/engines/*.yaml; a test compares them. -->

What each program makes of a ternary file. `tritpack inspect FILE` says it for one file, and
`tritpack verify FILE --engine PATH` asks your own build. "Right" means the model of the file, but for rounding of
activations and of the KV cache; "wrong" means that it computes another model, or aborts on the way; "refuses" means
that it does not load the file; "not possible" that none of its layouts holds the scales of the model. What no line
speaks of, nobody has tried.
"""


def _overview() -> Iterator[str]:
    yield "| engine | " + " | ".join(map(text, MODELS)) + " |"
    yield "|---" * (len(MODELS) + 1) + "|"
    for row in table.rows():
        for version in row.all_versions():
            name = f"[{version.name}](#{heading_anchor(version.name)})"
            yield f"| {name} | " + " | ".join(_cell(version, model) for model in MODELS.values()) + " |"


def _cell(row: Row, model: PackedModel) -> str:
    """The layouts in which an engine runs a model right, or why there are none."""
    verdicts, holding = {}, list[str]()
    if row.container == "checkpoint":
        folder = dataclasses.replace(_in_layout(row, model, "t2"), container="checkpoint", storage=row.storage)
        verdicts["an exported folder"] = judge(row, folder).verdict
    if row.types:
        holding = [name for name in LAYOUTS if all(grid.fits(catalog.LAYOUTS[name]) for grid in model.grids)]
        verdicts |= {layout: judge(row, _in_layout(row, model, layout)).verdict for layout in holding}
    if right := [made for made, verdict in verdicts.items() if verdict == RIGHT]:
        return "all" if len(right) == len(LAYOUTS) else ", ".join(right)
    if UNKNOWN in verdicts.values():
        return NOT_TRIED
    if model.grids and not set(holding) & {name for names in row.types.values() for name in listed(names)}:
        return NOT_POSSIBLE  # it is refused for its layout, and there is no other
    return WRONG if WRONG in verdicts.values() else REFUSES


def _in_layout(row: Row, model: PackedModel, layout: str) -> PackedModel:
    architecture = architecture_for(row.target, model.architecture or "", model.activation)
    defaults: dict[str, Any] = {"tied": True, "int8_activations": True, "shortest_row": 1024, "attention_fits": True}
    unset = {key: value for key, value in defaults.items() if getattr(model, key) is None}
    types = ((type_id_of(row, layout), layout),)
    return dataclasses.replace(model, architecture=architecture, layouts=(layout,), types=types, **unset)
