"""Convert BitNet b1.58 checkpoints to packed files, prove them bit for bit, run them.

A function has the arguments of the command of the same name, with the same defaults. Each name is imported on its first
use, so that `import tritpack` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tritpack.converter.convert import convert as convert
    from tritpack.converter.diff.diff import diff as diff
    from tritpack.converter.export.export import export as export
    from tritpack.converter.inspect.inspect import inspect as inspect
    from tritpack.converter.merge import merge as merge
    from tritpack.converter.release.check import check as check
    from tritpack.converter.release.publish import publish as publish
    from tritpack.converter.repack import repack as repack
    from tritpack.converter.tools.pack import pack as pack
    from tritpack.converter.tools.pack import unpack as unpack
    from tritpack.converter.tools.perplexity import perplexity as perplexity
    from tritpack.converter.verify.ladder import verify as verify
    from tritpack.converter.version import VERSION as __version__
    from tritpack.converter.web.web import web as web
    from tritpack.formats.errors import TritpackError as TritpackError
    from tritpack.formats.ternary import TernaryTensor as TernaryTensor
    from tritpack.runtime.bench import bench as bench
    from tritpack.runtime.model import Model as Model
    from tritpack.runtime.model import generate as generate

_DEFINED_IN = {
    "Model": "tritpack.runtime.model",
    "TernaryTensor": "tritpack.formats.ternary",
    "TritpackError": "tritpack.formats.errors",
    "bench": "tritpack.runtime.bench",
    "check": "tritpack.converter.release.check",
    "convert": "tritpack.converter.convert",
    "diff": "tritpack.converter.diff.diff",
    "export": "tritpack.converter.export.export",
    "generate": "tritpack.runtime.model",
    "inspect": "tritpack.converter.inspect.inspect",
    "merge": "tritpack.converter.merge",
    "pack": "tritpack.converter.tools.pack",
    "perplexity": "tritpack.converter.tools.perplexity",
    "publish": "tritpack.converter.release.publish",
    "repack": "tritpack.converter.repack",
    "unpack": "tritpack.converter.tools.pack",
    "verify": "tritpack.converter.verify.ladder",
    "web": "tritpack.converter.web.web",
}
"""The module of each public name; the imports above say the same to type checkers, and a test compares them."""

__all__ = [
    "Model", "TernaryTensor", "TritpackError", "__version__", "bench", "check", "convert", "diff", "export", "generate",
    "inspect", "merge", "pack", "perplexity", "publish", "repack", "unpack", "verify", "web",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("tritpack.converter.version").VERSION
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'tritpack' has no attribute {name!r}")
    value = getattr(importlib.import_module(_DEFINED_IN[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
