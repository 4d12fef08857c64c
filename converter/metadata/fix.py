"""`tritpack metadata fix`: every known fault of a packed file, looked for, repaired where the right value is known, and
reported."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tritpack.converter.metadata.draft import Draft
from tritpack.converter.metadata.faults import FAULTS
from tritpack.converter.metadata.finding import Knowledge
from tritpack.converter.metadata.layout_faults import LAYOUT_FAULTS
from tritpack.converter.metadata.metadata import finish
from tritpack.formats.errors import UsageError
from tritpack.formats.model_metadata import refuse_adapter
from tritpack.formats.names import ACTIVATIONS, READ_AS


def fix_metadata(
    file: str | Path,
    *,
    source: str | Path | None = None,
    activation: str | None = None,
    read_as: str | None = None,
    output: str | Path | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Repair the known faults of a file, and return what `tritpack metadata fix --json` prints.

    source: the checkpoint that the file was made of, or a right GGUF of the same model, which says what the file does
    not; it must have the file's codes. activation: of the model, one of names.ACTIVATIONS. read_as: one of
    names.READ_AS, how tensors that the file calls i2_s are ordered. output, force, dry_run: see set_metadata.
    `findings` has one entry per fault: fix, status ("fixed", "left": nobody can know the right value, "unproved": it
    cannot be told whether there is a fault), found, done, hint.
    Raises UsageError, Unreadable, WriteFailed, CheckFailed for a damaged tensor, and what opening the source raises.
    """
    for option, value, choices in (("activation", activation, ACTIVATIONS), ("read_as", read_as, READ_AS)):
        if value is not None and value not in choices:
            raise UsageError(f"{option} {value!r} is unknown", hint=f"choose one of: {', '.join(choices)}")
    draft = Draft(file)
    refuse_adapter(draft.file)
    knowledge = Knowledge(draft, source, activation, read_as)
    for name, fault in {**FAULTS, **LAYOUT_FAULTS}.items():
        knowledge.findings += [dataclasses.replace(finding, fix=name) for finding in fault(draft, knowledge)]
    if knowledge.has_source:
        knowledge.order_of_source  # noqa: B018  nothing is written of what another model says
    found = [dataclasses.asdict(finding) for finding in knowledge.findings]
    return {**finish(draft, "fix", output, force, dry_run), "findings": found}
