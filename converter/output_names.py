"""The names of outputs: `-o FILE`, `-o FOLDER/` and templates with {name} and {ftype}."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tritpack.converter.plan import Plan
from tritpack.formats.errors import UsageError

FIELD = re.compile(r"\{(name|ftype|outtype|NAME|FTYPE|OUTTYPE)\}")
UNFIT = re.compile(r"[^\w.+-]+", re.ASCII)
"""What the name of a model may hold and a conventional file name does not."""


def is_template(output: str | Path) -> bool:
    """Return whether the name depends on what is written: it is a folder, or has a field."""
    return _is_folder(output) or FIELD.search(os.fspath(output)) is not None


def paths_of(output: str | Path, plans: Sequence[Plan]) -> list[Path]:
    """Return the path of each plan's output.

    {name} is the name of the model, {ftype} the layout (as in llama.cpp's convert_hf_to_gguf; in capitals if the field
    is). A folder, which exists or ends with a slash, gets NAME-FTYPE.gguf. Raises UsageError if the output is a pipe,
    or the same for two plans.
    """
    if os.fspath(output) == "-":
        raise UsageError("the output cannot be a pipe: the header of a GGUF file is written last", hint="name a file")
    template = os.path.join(output, "{name}-{FTYPE}.gguf") if _is_folder(output) else os.fspath(output)
    paths = [_filled(template, plan) for plan in plans]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"would hold {paths.count(path)} outputs", path=path, hint="put {ftype} into the name")
    return paths


def _is_folder(output: str | Path) -> bool:
    return os.fspath(output).endswith(("/", os.sep)) or os.path.isdir(output)


def _filled(template: str, plan: Plan) -> Path:
    return Path(FIELD.sub(lambda match: _value(match[1], plan), template))


def _value(field: str, plan: Plan) -> str:
    if field.lower() == "name":
        value = UNFIT.sub("-", str(plan.metadata["general.name"])).strip("-.") or "model"
    else:
        value = plan.outtype
    return value.upper() if field.isupper() else value
