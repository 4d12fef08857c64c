"""What `tritpack families` shows: every family as values, and docs/families.md."""

from __future__ import annotations

from typing import Any

from tritpack.converter.families.family import Family, families, refusals
from tritpack.converter.report.markdown import code, text
from tritpack.converter.storage.catalog import STORAGES

SCHEMA = "tritpack.families/1"


def as_json() -> dict[str, Any]:
    """Return what `tritpack families --json` prints."""
    return {
        "schema": SCHEMA,
        "families": [about(family) for family in families()],
        "refused": [{"name": refusal.name, "reason": refusal.reason} for refusal in refusals()],
    }


def about(family: Family) -> dict[str, Any]:
    """Return what people should know of one family."""
    return {
        "name": family.name,
        "title": family.title,
        "architecture": family.architecture,
        "recognised_by": family.recognised_by(),
        "tokenizer": family.tokenizer,
        "storages": [
            {
                "storage": STORAGES[key].name,
                "read_as": STORAGES[key].description,
                "repositories": repositories,
                "activations": family.activations(storage_takes_int8=STORAGES[key].int8_activations),
            }
            for key, repositories in family.checkpoints.items()
        ],
    }


def page() -> str:
    """Return docs/families.md."""
    parts = [PREFACE]
    for family in map(about, families()):
        parts += [f"## {text(family['title'])}", ""]
        parts += [f"`{family['name']}`; GGUF architecture `{family['architecture']}`; {text(family['tokenizer'])}.", ""]
        parts += [f"Recognised by {text(family['recognised_by'])}.", ""]
        parts += ["| repositories | storage | read as | activations |", "|---|---|---|---|"]
        parts += [
            f"| {text(stored['repositories'])} | {text(stored['storage'])} | {text(stored['read_as'])} "
            f"| {text(stored['activations'])} |"
            for stored in family["storages"]
        ]
        parts += [""]
    parts += ["## Refused by name", "", "| what | why |", "|---|---|"]
    parts += [f"| {text(refusal.name)} | {text(refusal.reason)} |" for refusal in refusals()]
    return "\n".join([*parts, ""])


PREFACE = f"""# Checkpoint families

<!-- Made by {code("tritpack families --markdown")} from converter/families/*.yaml; a test compares them. -->

What `tritpack convert` reads. Families are tried in this order, and the first that fits counts: values and names
decide, never `model_type` alone. Repositories are examples; a fine-tuned copy is read in the same way.
[engines.md](engines.md) says which program runs what comes out.
"""
