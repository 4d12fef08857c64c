"""The server that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.make.server import Running


@pytest.fixture(scope="module")
def demo(demo_gguf: Path) -> Iterator[Running]:
    """The demo model behind HTTP."""
    from tests.make.server import serving

    with serving(demo_gguf) as running:
        yield running
