"""The engines that a file may be written for, one module per engine.

Each line in a module was tried on the engine itself (formats/README.md, "Engines"). Adding an engine is adding its
module, its name here, and its test.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tritpack.formats.errors import UsageError

if TYPE_CHECKING:
    from tritpack.converter.targets.engines.engine import Engine

NAMES = ("tritpack", "bitnet.cpp", "llama.cpp", "ik_llama.cpp")
"""What --for takes. Listed here so that --help imports no engine."""


def by_name(name: str) -> Engine:
    """Return the engine of that name. Raises UsageError for an unknown one."""
    if name not in NAMES:
        raise UsageError(f"--for {name} is unknown", hint=f"choose one of: {', '.join(NAMES)}")
    module = importlib.import_module(f"{__name__}.{name.replace('.', '_')}")
    named: Engine = module.ENGINE
    return named
