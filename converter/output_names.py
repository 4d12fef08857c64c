"""The names of outputs: `-o FILE`, `-o FOLDER/` and templates with {name} and {ftype}."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tritpack.converter.model_names import conventional_stem
from tritpack.converter.plan import Plan
from tritpack.formats.errors import UsageError

FIELD = re.compile(r"\{(conventional|name|ftype|outtype|NAME|FTYPE|OUTTYPE)\}")
UNFIT = re.compile(r"[^\w.+-]+", re.ASCII)
"""What the name of a model may hold and a conventional file name does not."""


def is_template(output: str | Path | Sequence[Path]) -> bool:
    """Return whether the name depends on what is written: it is a folder, a list, or has a field."""
    return not isinstance(output, (str, Path)) or _is_folder(output) or FIELD.search(os.fspath(output)) is not None


def paths_of(output: str | Path | Sequence[Path], plans: Sequence[Plan]) -> list[Path]:
    """Return the path of each plan's output.

    {name} is the name of the model, {ftype} the layout (as in llama.cpp's convert_hf_to_gguf; in capitals if the field
    is). A folder, which exists or ends with a slash, gets BaseName-SizeLabel-FineTune-Version-FTYPE.gguf, by the naming
    convention of GGUF files. output may be a list with a name for each plan. Raises UsageError if the output is a pipe,
    or the same for two plans.
    """
    if not isinstance(output, (str, Path)):
        return [_filled(os.fspath(path), plan) for path, plan in zip(output, plans)]
    if os.fspath(output) == "-":
        raise UsageError("the output cannot be a pipe: the header of a GGUF file is written last", hint="name a file")
    template = os.path.join(output, "{conventional}-{FTYPE}.gguf") if _is_folder(output) else os.fspath(output)
    paths = [_filled(template, plan) for plan in plans]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"would hold {paths.count(path)} outputs", path=path, hint="put {ftype} into the name")
    return paths


def _is_folder(output: str | Path) -> bool:
    return os.fspath(output).endswith(("/", os.sep)) or os.path.isdir(output)


def _filled(template: str, plan: Plan) -> Path:
    return Path(FIELD.sub(lambda match: _value(match[1], plan), template))


def _fit(name: str) -> str:
    return UNFIT.sub("-", name).strip("-.") or "model"


def _value(field: str, plan: Plan) -> str:
    name = str(plan.metadata["general.name"])
    if field == "conventional":
        value = _fit(conventional_stem(_fit(name), plan.parameters))
    elif field.lower() == "name":
        value = _fit(name)
    else:
        value = plan.outtype
    return value.upper() if field.isupper() else value
