"""Files in huge pages: what is read is the same, however the pages lie."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from tritpack.formats import huge_pages
from tritpack.formats.huge_pages import BLOCK, HERE, let_go, map_file

CASES = {
    "at a huge page": {},
    "elsewhere": {"HERE": False},
    "where it cannot be placed": {"_map_at": lambda *where: False},
}


@pytest.mark.parametrize("case", CASES)
def test_a_mapped_file_is_the_file(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CASES[case].items():
        monkeypatch.setattr(huge_pages, name, value)
    data = np.random.default_rng(158).integers(0, 256, 2 * BLOCK + 12345, np.uint8)
    data.tofile(path := tmp_path / "file")
    with open(path, "rb") as stream:
        view = map_file(stream.fileno())
    mapped = np.frombuffer(view, np.uint8)
    assert view.readonly and isinstance(view.obj, mmap.mmap) and np.array_equal(mapped, data)
    if HERE and case == "at a huge page":
        assert mapped.ctypes.data % BLOCK == 0
    let_go(view, 5000, data.size)
    assert np.array_equal(mapped, data)
