"""Convert BitNet b1.58 checkpoints to packed files, prove them bit for bit, run them.

The functions take the arguments of the commands of the same name. A name is imported when it is first used, so that
`import tritpack` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tritpack.converter.convert import convert as convert
    from tritpack.converter.export.export import export as export
    from tritpack.converter.tools.inspect import inspect as inspect
    from tritpack.converter.verify.ladder import verify as verify
    from tritpack.converter.version import VERSION as __version__
    from tritpack.formats.errors import TritpackError as TritpackError
    from tritpack.formats.ternary import TernaryTensor as TernaryTensor
    from tritpack.runtime.bench import bench as bench
    from tritpack.runtime.model import Model as Model

_HOME = {
    "convert": "tritpack.converter.convert",
    "export": "tritpack.converter.export.export",
    "inspect": "tritpack.converter.tools.inspect",
    "verify": "tritpack.converter.verify.ladder",
    "bench": "tritpack.runtime.bench",
    "Model": "tritpack.runtime.model",
    "TernaryTensor": "tritpack.formats.ternary",
    "TritpackError": "tritpack.formats.errors",
}
"""The module of each public name."""

__all__ = ["Model", "TernaryTensor", "TritpackError", "__version__", "bench", "convert", "export", "inspect", "verify"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("tritpack.converter.version").VERSION
    if name not in _HOME:
        raise AttributeError(f"module 'tritpack' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
