"""The YAML files of this package as values. `__pycache__` holds a JSON copy of each, which is read in a tenth of the
time that yaml takes to import."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def read_table(path: Path) -> Any:
    """Return the document of a YAML file of this package, all keys as texts.

    Its copy is made anew whenever the file has other bytes; where it cannot be written, YAML is read.
    """
    data = path.read_bytes()
    stamp = hashlib.sha256(data).hexdigest()
    copy = path.parent / "__pycache__" / f"{path.name}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, RecursionError):
        cached = json.loads(copy.read_bytes())
        if isinstance(cached, dict) and cached.get("stamp") == stamp:
            return cached["document"]
    import yaml

    document = json.loads(json.dumps(yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))))
    if not sys.dont_write_bytecode and sys.pycache_prefix is None:
        _write(copy, json.dumps({"stamp": stamp, "document": document}))
    return document


def _write(copy: Path, text: str) -> None:
    """Write a copy at once or not at all."""
    temporary = copy.with_name(f"{copy.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        copy.parent.mkdir(exist_ok=True)
        try:
            temporary.write_text(text, "utf-8")
            os.replace(temporary, copy)
        except OSError:
            temporary.unlink(missing_ok=True)
