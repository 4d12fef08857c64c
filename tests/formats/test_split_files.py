"""Parts of a split GGUF: each command says which part it is, and inspect shows what it holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tritpack.converter.convert import convert
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile, ReadOptions
from tritpack.formats.gguf_writer import TensorPlan, write_gguf


def split(whole: Path, folder: Path, parts: list[slice]) -> list[Path]:
    """Write the tensors of `whole` as the parts of a set, the metadata in the first, as llama-gguf-split does."""
    file = GgufFile(whole)
    infos, paths = list(file.tensors.values()), []
    for index, tensors in enumerate(parts):
        metadata: dict[str, Any] = dict(file.metadata) if index == 0 else {}
        metadata |= {"split.no": index, "split.count": len(parts), "split.tensors.count": len(infos)}
        path = folder / f"m-{index + 1:05}-of-{len(parts):05}.gguf"
        plans = [TensorPlan(info.name, info.shape, info.type_id, info.nbytes) for info in infos[tensors]]
        write_gguf(path, metadata, plans, ([file.bytes_of(info)] for info in infos[tensors]))
        paths.append(path)
    return paths


@pytest.fixture
def two(tiny_gguf: Path, tmp_path: Path) -> list[Path]:
    return split(tiny_gguf, tmp_path, [slice(0, 12), slice(12, None)])


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("convert", ["-o", "out.gguf"]),
        ("repack", ["-o", "out.gguf"]),
        ("export", ["-o", "out"]),
        ("generate", ["-p", "x"]),
        ("logits", ["--tokens", "1", "-o", "out.npy"]),
        ("tokenize", ["-p", "x"]),
        ("perplexity", []),
        ("bench", []),
    ],
)
def test_every_command_names_the_part(command: str, option: list[str], two: list[Path], tmp_path: Path) -> None:
    two[1].unlink()
    option = [str(tmp_path / text) if text.startswith("out") else text for text in option]
    result = run(command, two[0], *option)
    assert exit_code_of(result) == 3
    assert isinstance(result.exception, Unreadable)
    assert result.exception.message == "is part 1 of 2 of a split file, the others are missing"
    assert "m-00001-of-00002.gguf MERGED.gguf" in (result.exception.hint or "")
    assert not list(tmp_path.glob("out*"))


def test_verify_does_not_call_a_part_wrong(two: list[Path], tiny_checkpoint: Path, tiny_gguf: Path) -> None:
    assert exit_code_of(run("verify", two[0], "--source", tiny_checkpoint)) == 3
    assert exit_code_of(run("verify", tiny_gguf, "--source", two[1])) == 3


@pytest.mark.parametrize(
    ("part", "kept", "said"),
    [
        (1, (1, 2, 3), "part 1 of 3 of a split file, the others lie beside it; it holds 0 of 24 tensors"),
        (2, (1, 2, 3), "part 2 of 3 of a split file, the others lie beside it; it holds 12 of 24 tensors"),
        (2, (1, 2), "part 2 of 3 of a split file, part 3 is missing; it holds 12 of 24 tensors"),
        (3, (3,), "part 3 of 3 of a split file, the others are missing; it holds 12 of 24 tensors"),
    ],
)
def test_inspect_shows_what_a_part_holds(
    part: int, kept: tuple[int, ...], said: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    paths = split(tiny_gguf, tmp_path, [slice(0, 0), slice(0, 12), slice(12, None)])
    for number, path in enumerate(paths, 1):
        if number not in kept:
            path.unlink()
    result = run("inspect", paths[part - 1], "--json")
    shown = json.loads(result.stdout)
    assert shown["problems"] == [said]
    assert shown["part"] == {"number": part, "count": 3, "missing": [n for n in (1, 2, 3) if n not in kept]}
    assert result.exit_code == (0 if len(kept) == 3 else 3)


def test_a_renamed_part_is_recognised(two: list[Path], tmp_path: Path) -> None:
    shutil.move(two[1], renamed := tmp_path / "model.gguf")
    with pytest.raises(Unreadable, match="is part 2 of 2 of a split file, the others are missing"):
        GgufFile(renamed)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"split.count": 1, "split.no": 0}, id="one part"),
        pytest.param({"split.count": 0}, id="merged by llama-gguf-split"),
        pytest.param({"split.count": "two"}, id="a text"),
        pytest.param({"split.count": 2, "split.no": 0, "split.tensors.count": 1}, id="every tensor is here"),
    ],
)
def test_a_whole_file_is_no_part(keys: dict[str, Any], tmp_path: Path) -> None:
    write_gguf(path := tmp_path / "a.gguf", keys, [TensorPlan("t", (2, 3), 0, 24)], [[np.zeros(24, np.uint8)]])
    assert GgufFile(path).part is None


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"split.count": 3, "split.no": 7}, "is one of 3 parts of a split file, the others are missing"),
        ({"split.count": 3, "split.no": "x"}, "is one of 3 parts of a split file, the others are missing"),
        ({"split.count": 1 << 60}, "split.count is 1152921504606846976, expected at most 65535"),
    ],
)
def test_odd_numbers(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_gguf(path := tmp_path / "a.gguf", keys, [], [])
    with pytest.raises(Unreadable, match=said):
        GgufFile(path)


def test_a_part_can_be_opened_by_request(two: list[Path]) -> None:
    assert len(GgufFile(two[0], ReadOptions(any_part=True)).tensors) == 12


def test_a_folder_of_parts_names_the_files(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(Unreadable) as caught:
        convert(tmp_path, tmp_path / "out.gguf")
    assert "m-00001-of-00002.gguf" in (caught.value.hint or "")
