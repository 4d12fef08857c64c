"""numpy, imported when something of it is first used. It takes longer to import than `inspect` takes to read a header,
which needs none of it."""

from __future__ import annotations

import importlib
import sys
import threading
import types
from typing import Any

NAME = "numpy"
_lock = threading.RLock()


class _Late(types.ModuleType):
    """A placeholder for numpy: the first use of one of its attributes imports it."""

    def __getattr__(self, attribute: str) -> Any:
        with _lock:
            if sys.modules.get(NAME) is self:
                del sys.modules[NAME]
                try:
                    self.__dict__.update(vars(importlib.import_module(NAME)))
                except BaseException:
                    sys.modules[NAME] = self
                    raise
        return getattr(sys.modules[NAME], attribute)


def import_late() -> None:
    """Let every later `import numpy` wait for the first use. For commands that may need none of it."""
    sys.modules.setdefault(NAME, _Late(NAME))
