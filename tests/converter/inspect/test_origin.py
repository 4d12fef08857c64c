"""Where a file comes from, and published files that are recognised."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.make.checkpoints import edited_gguf
from tritpack.converter.inspect import known_files
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.inspect.origin import is_known
from tritpack.formats.gguf_reader import GgufFile

COMMIT = "04c3b9ad9361b824064a1f25ea60a8be9599b127"
ROWS: list[tuple[dict[str, Any], str, bool]] = [
    ({}, "The file says that tritpack 0.1.0 made it from a checkpoint of the family bitnet (storage: packed; SHA-256 ",
     False),
    ({"tritpack.source.family": 7}, "Not known: the file does not say. There is no attestation", False),
    ({"general.source.huggingface.repository": "a/b", "tritpack.source.commit": COMMIT},
     "a/b at commit 04c3b9ad9361 (the file says so, which proves nothing).", True),
    ({"general.source.url": "https://x.y/z"}, "https://x.y/z, no revision named (the file says so", True),
    ({"general.base_model.0.repo_url": "https://x.y/z"}, "The file says that tritpack", False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "answer", "known"), ROWS, ids=["tritpack's", "nothing", "repository", "address", "base model"]
)
def test_what_a_file_says(keys: dict[str, Any], answer: str, known: bool, tiny_gguf: Path, tmp_path: Path) -> None:
    result = inspect(edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=lambda m: m.update(keys)), bandwidth=9.0)
    assert result["answers"]["from"].startswith(answer) and is_known(result["origin"]) == known


def test_an_attestation_beside_it(tiny_gguf: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(tiny_gguf.read_bytes())
    (tmp_path / "m.intoto.json").write_text("{}")
    result = inspect(file, bandwidth=9.0)
    assert result["origin"]["attestation"] == "m.intoto.json" and is_known(result["origin"])
    assert "m.intoto.json in the same folder says what was proved" in result["answers"]["from"]


def test_the_published_file_has_the_facts_of_its_page() -> None:
    [entry] = known_files.known_files()
    assert entry["nbytes"] == 1_187_801_280 and "header_sha256" not in entry
    assert len(entry["sha256"]) == 64 and int(entry["sha256"], 16)


@pytest.mark.parametrize("whole", [False, True], ids=["header", "hash"])
def test_a_published_file_is_recognised(
    whole: bool, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = GgufFile(tiny_gguf)
    data = tiny_gguf.read_bytes()
    entry = {"name": "N", "nbytes": len(data), "note": "", "sha256": hashlib.sha256(data).hexdigest()}
    monkeypatch.setattr(known_files, "known_files", lambda: (entry,))

    def answer(path: Path) -> str:
        return str(inspect(path, stats=whole, bandwidth=9.0)["answers"]["from"])

    assert ("It is N: the SHA-256 is equal." if whole else "It has the size of N (--stats compares") in answer(
        tiny_gguf
    )
    entry["header_sha256"] = hashlib.sha256(data[: file.data_offset]).hexdigest()
    assert ("It is N" if whole else "It looks like N: size and header are equal.") in answer(tiny_gguf)
    changed = tmp_path / "a.gguf"
    place = -1 if whole else data.index(b"general.name") + 8
    changed.write_bytes(bytes([*data[:place], data[place] ^ 1, *(data[place + 1 :] if place > 0 else b"")]))
    assert "It has the size of N, and other bytes." in answer(changed)
    entry["nbytes"] += 1
    assert inspect(tiny_gguf, bandwidth=9.0)["known"] is None
