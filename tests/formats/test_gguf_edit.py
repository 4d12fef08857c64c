"""Another header for a file: when it is written in place, and that it never is where a kill could tear it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tritpack.formats.errors import Unreadable, WriteFailed
from tritpack.formats.gguf_edit import BLOCK, IN_PLACE, REWRITTEN, UNCHANGED, change_in_place, how
from tritpack.formats.inputs import Unchanged

OLD = np.zeros(3 * BLOCK, np.uint8)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ([], UNCHANGED),
        ([0], IN_PLACE),
        ([BLOCK, 2 * BLOCK - 1], IN_PLACE),
        ([BLOCK - 1, BLOCK], REWRITTEN),
        ([0, 2 * BLOCK], REWRITTEN),
    ],
)
def test_one_block_is_changed_in_place(changed: list[int], expected: str) -> None:
    new = OLD.copy()
    new[changed] = 1
    assert how(OLD, new.tobytes()) == expected and how(OLD, new.tobytes() + b"x") == REWRITTEN


def test_only_the_bytes_that_differ_are_written(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(OLD.tobytes() + b"tensors")
    new = bytearray(OLD.tobytes())
    new[5:8] = b"abc"
    change_in_place(path, OLD, bytes(new), Unchanged([path]))
    assert path.read_bytes() == bytes(new) + b"tensors"
    unchanged = Unchanged([path])
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(Unreadable, match="was changed while it was read"):
        change_in_place(path, OLD, bytes(new), unchanged)
    with pytest.raises(WriteFailed, match="cannot be written"):
        change_in_place(tmp_path / "none" / "a", OLD, bytes(new), Unchanged([]))
