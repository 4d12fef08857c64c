"""Tables that are written in YAML and read from a copy."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from tritpack.converter.yaml_tables import read_table

TABLE = b"types: {42: q2_0}\nnames: [a, b]\n"
RIGHT_STAMP = json.dumps({"stamp": hashlib.sha256(TABLE).hexdigest()}).encode()


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "table.yaml"
    path.write_bytes(TABLE)
    return path


def copy_of(table: Path) -> Path:
    return table.parent / "__pycache__" / "table.yaml.json"


def test_a_copy_is_read_until_the_file_changes(table: Path) -> None:
    assert read_table(table) == {"types": {"42": "q2_0"}, "names": ["a", "b"]}
    copy = json.loads(copy_of(table).read_text())
    copy_of(table).write_text(json.dumps({**copy, "document": "the copy"}))
    assert read_table(table) == "the copy"
    status = table.stat()
    table.write_bytes(TABLE.replace(b"a, b", b"c, d"))
    os.utime(table, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (
        read_table(table)
        == {"types": {"42": "q2_0"}, "names": ["c", "d"]}
        == json.loads(copy_of(table).read_text())["document"]
    )


@pytest.mark.parametrize("rubbish", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"stamp": 1}', RIGHT_STAMP], ids=range(6))
def test_a_damaged_copy_is_not_believed(table: Path, rubbish: bytes) -> None:
    copy_of(table).parent.mkdir()
    copy_of(table).write_bytes(rubbish)
    assert read_table(table)["names"] == ["a", "b"]


def test_no_copy_is_written_where_python_writes_none(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert read_table(table)["names"] == ["a", "b"] and not copy_of(table).exists()
