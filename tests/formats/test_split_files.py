"""Split GGUFs: the first part stands for the set, and whoever is given something else is told what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_gguf, split_gguf
from tritpack.converter.convert import convert
from tritpack.converter.verify.ladder import verify
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile, ReadOptions
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.split_files import name_of_set


@pytest.fixture
def two(tiny_gguf: Path, tmp_path: Path) -> list[Path]:
    return split_gguf(tiny_gguf, tmp_path, [0, 12, 24])


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("convert", ["-o", "out.gguf"]),
        ("repack", ["-o", "out.gguf"]),
        ("merge", ["-o", "out.gguf"]),
        ("export", ["-o", "out"]),
        ("generate", ["-p", "x"]),
        ("logits", ["--tokens", "1", "-o", "out.npy"]),
        ("tokenize", ["-p", "x"]),
        ("perplexity", []),
        ("bench", []),
    ],
)
def test_every_command_names_what_is_missing(command: str, option: list[str], two: list[Path], tmp_path: Path) -> None:
    option = [str(tmp_path / text) if text.startswith("out") else text for text in option]
    second = run(command, two[1], *option)
    two[1].unlink()
    first = run(command, two[0], *option)
    said = "is part 1 of 2 of a split file, and m-00002-of-00002.gguf is missing"
    for result, message in (
        (first, said),
        (second, "is part 2 of 2 of a split file, whose first part is m-00001-of-00002.gguf"),
    ):
        assert exit_code_of(result) == 3, message
        assert isinstance(result.exception, Unreadable), message
        assert result.exception.message == message and result.exception.hint, message
    assert not list(tmp_path.glob("out*"))


def test_verify_does_not_call_a_part_wrong(two: list[Path], tiny_checkpoint: Path, tiny_gguf: Path) -> None:
    assert exit_code_of(run("verify", two[1], "--source", tiny_checkpoint)) == 3
    assert exit_code_of(run("verify", tiny_gguf, "--source", two[1])) == 3


@pytest.mark.parametrize(
    ("part", "kept", "said"),
    [
        (1, (1, 2), "part 1 of 3 of a split file, and m-00003-of-00003.gguf is missing; it holds 0 of 24 tensors"),
        (2, (1, 2, 3), "part 2 of 3 of a split file, the others lie beside it; it holds 12 of 24 tensors"),
        (2, (1, 2), "part 2 of 3 of a split file, and m-00003-of-00003.gguf is missing; it holds 12 of 24 tensors"),
        (
            3,
            (3,),
            "part 3 of 3 of a split file, and m-00001-of-00003.gguf, m-00002-of-00003.gguf are missing; it holds 12 of "
            "24 tensors",
        ),
    ],
)
def test_inspect_shows_what_a_part_holds(
    part: int, kept: tuple[int, ...], said: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    paths = split_gguf(tiny_gguf, tmp_path, [0, 0, 12, 24])
    for number, path in enumerate(paths, 1):
        if number not in kept:
            path.unlink()
    result = run("inspect", paths[part - 1], "--json")
    shown = json.loads(result.stdout)
    assert shown["problems"] == [said]
    missing = [n for n in (1, 2, 3) if n not in kept]
    assert shown["part"] == {"number": part, "count": 3, "missing": missing, "problem": None}
    assert result.exit_code == (0 if len(kept) == 3 else 3)


@pytest.mark.parametrize("name", ["model.gguf", "m-00002-of-00002.gguf", "m-00001-of-00003.gguf"])
def test_a_renamed_part_is_recognised(name: str, two: list[Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.move(two[0], renamed := tmp_path / "other" / name)
    with pytest.raises(Unreadable, match=r"part 1 of 2 .* its name does not end in -00001-of-00002.gguf"):
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
        (
            {"split.count": 3, "split.no": 7},
            "is one of 3 parts of a split file, whose first part is NAME-00001-of-00003",
        ),
        ({"split.count": 3, "split.no": "x"}, "is one of 3 parts of a split file, whose first part is NAME-00001"),
        ({"split.count": 3, "split.no": 0}, "part 1 of 3 .* its name does not end in -00001-of-00003.gguf"),
        ({"split.count": 1 << 60}, "split.count is 1152921504606846976, expected at most 65535"),
    ],
)
def test_odd_numbers(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_gguf(path := tmp_path / "a.gguf", keys, [], [])
    with pytest.raises(Unreadable, match=said):
        GgufFile(path)


def test_a_part_can_be_opened_by_request(two: list[Path]) -> None:
    assert len(GgufFile(two[1], ReadOptions(any_part=True)).tensors) == 12


def test_a_folder_of_parts_names_the_files(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(Unreadable) as caught:
        convert(tmp_path, tmp_path / "out.gguf")
    assert "m-00001-of-00002.gguf" in (caught.value.hint or "")


# -- whole sets --------------------------------------------------------------------------------------------------------


def test_a_set_reads_as_the_whole_file(tiny_gguf: Path, tmp_path: Path) -> None:
    paths = split_gguf(tiny_gguf, tmp_path, [0, 0, 5, 6, 24])
    whole, file = GgufFile(tiny_gguf), GgufFile(paths[0])
    assert file.part is None and file.files == paths and file.size == sum(path.stat().st_size for path in paths)
    assert list(file.tensors) == list(whole.tensors) and list(file.metadata) == list(whole.metadata)
    assert file.metadata_types == whole.metadata_types
    for name, tensor in file.tensors.items():
        stored = file.bytes_of(tensor)
        assert np.array_equal(stored, whole.bytes_of(whole.tensors[name])), name
        at = file.path_of(tensor).read_bytes()[tensor.file_offset : tensor.file_offset + tensor.nbytes]
        assert at == stored.tobytes(), name
        file.release(tensor)
        assert file.bytes_of(tensor).tobytes() == at, name
    assert [data.tobytes() for data in file.mapped] == [path.read_bytes() for path in paths]
    assert [file.path_of(t) for t in file.tensors.values()] == [paths[1]] * 5 + [paths[2]] + [paths[3]] * 18


def test_every_tensor_may_be_in_the_second_part(tiny_gguf: Path, tmp_path: Path) -> None:
    paths = split_gguf(tiny_gguf, tmp_path, [0, 0, 24])
    assert len(GgufFile(paths[0]).tensors) == 24
    with pytest.raises(Unreadable, match="is part 2 of 2 of a split file, whose first part is m-00001"):
        GgufFile(paths[1])


def test_a_scale_may_lie_in_another_part(tmp_path: Path) -> None:
    plans = [TensorPlan("a.weight", (1, 128), 36, 64), TensorPlan("a.scale", (1,), 0, 4)]
    data = [[np.r_[np.zeros(32, np.uint8), np.full(8, 1, "<f4").view(np.uint8)]], [np.full(1, 3, "<f4").view(np.uint8)]]
    write_gguf(whole := tmp_path / "w.gguf", {}, plans, data)
    file = GgufFile(split_gguf(whole, tmp_path, [0, 1, 2])[0])
    assert file.outer_scale(file.tensors["a.weight"]) == 3


def test_a_changed_part_is_noticed(two: list[Path]) -> None:
    file = GgufFile(two[0])
    file.unchanged.check()
    two[1].write_bytes(two[1].read_bytes())
    with pytest.raises(Unreadable, match=r"m-00002-of-00002.gguf: was changed while it was read"):
        file.unchanged.check()


def no_keys(metadata: dict[str, Any]) -> None:
    for key in ("split.no", "split.count", "split.tensors.count"):
        metadata.pop(key, None)


@pytest.mark.parametrize(
    ("part", "edit", "said"),
    [
        (2, lambda m: m.update({"split.no": 2}), "m-00002-of-00003.gguf: is part 3 of 3 .* expected part 2 of 3 of"),
        (2, lambda m: m.update({"split.no": 5}), "m-00002-of-00003.gguf: is one of 3 parts .* expected part 2 of 3"),
        (3, lambda m: m.update({"split.count": 4}), "m-00003-of-00003.gguf: is part 3 of 4 .* expected part 3 of 3"),
        (2, lambda m: m.update({"split.tensors.count": 9}), "m-00002.*tensors.count is 9, that of m-00001.* is 24"),
        (2, no_keys, "m-00002-of-00003.gguf: is a whole file, expected part 2 of 3 of m-00001-of-00003.gguf"),
        (1, lambda m: m.update({"split.tensors.count": "x"}), "m-00001.* has no split.tensors.count"),
    ],
    ids=["number", "no number", "count", "total", "whole file", "no total"],
)  # fmt: skip
def test_what_does_not_belong_to_the_set_is_named(
    part: int, edit: Callable[[dict[str, Any]], None], said: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    paths = split_gguf(tiny_gguf, tmp_path, [0, 6, 12, 24], {part: edit})
    with pytest.raises(Unreadable, match=said):
        GgufFile(paths[0])
    shown = run("inspect", paths[0], "--json")
    result = json.loads(shown.stdout)
    assert shown.exit_code == 3 and len(result["tensors"]) == 6
    assert re.search(said, result["part"]["problem"]) and re.search(said, result["problems"][0])


def test_a_damaged_part_is_named(two: list[Path]) -> None:
    two[1].write_bytes(two[1].read_bytes()[:-500])
    with pytest.raises(Unreadable, match=r"m-00002-of-00002.gguf: tensor .* are there"):
        GgufFile(two[0])


def test_no_tensor_stands_twice_and_none_is_lost(tiny_gguf: Path, tmp_path: Path) -> None:
    first, second = split_gguf(tiny_gguf, tmp_path, [0, 12, 24])
    for cuts, said in (
        ([0, 11, 24], "m-00002-of-00002.gguf: tensor .* is in m-00001-of-00002.gguf too"),
        ([0, 13, 24], "split.tensors.count is 24, and the 2 parts hold 23 tensors"),
    ):
        (other := tmp_path / "other").mkdir(exist_ok=True)
        shutil.copy(split_gguf(tiny_gguf, other, cuts)[1], second)
        with pytest.raises(Unreadable, match=said):
            GgufFile(first)


# -- what commands make of a set ---------------------------------------------------------------------------------------


def test_verify_passes_a_set(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    first, *others = split_gguf(tiny_gguf, tmp_path, [0, 3, 12, 24])
    report = verify(first, tiny_checkpoint, level="kernels", strict=True)
    assert report.verdict == "pass" and not report["structure"].notes
    assert report.provenance["file_sha256"] == sha256_of_set([first, *others])
    assert verify(tiny_gguf, first, level="weights").verdict == "pass"


def test_the_hash_of_a_set(tiny_gguf: Path, tmp_path: Path) -> None:
    whole = edited_gguf(tiny_gguf, tmp_path / "w.gguf", metadata=lambda m: m.pop("general.source.sha256"))
    paths = split_gguf(whole, tmp_path, [0, 12, 24])
    convert(paths[0], tmp_path / "out.gguf")
    assert GgufFile(tmp_path / "out.gguf").metadata["general.source.sha256"] == sha256_of_set(paths)


def sha256_of_set(paths: list[Path]) -> str:
    """As formats/README.md has it: `sha256sum NAME-* | cut -c-64 | sha256sum`."""
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return hashlib.sha256("".join(f"{digest}\n" for digest in hashes).encode()).hexdigest()


def test_every_command_reads_a_set_as_the_whole(tiny_gguf: Path, tmp_path: Path) -> None:
    first = split_gguf(tiny_gguf, tmp_path, [0, 1, 20, 24])[0]
    (text := tmp_path / "text.txt").write_text("Once upon a time there was a king who had three sons.")
    for command, *options in (
        ("generate", "-p", "Once", "-n", "4", "--json"), ("tokenize", "-p", "Once upon", "--json"),
        ("perplexity", "--text", text, "--json"),
    ):  # fmt: skip
        whole, parts = (run(command, path, *options) for path in (tiny_gguf, first))
        assert whole.exit_code == parts.exit_code == 0, (command, whole.output, parts.output)
        assert without_place(json.loads(parts.stdout)) == without_place(json.loads(whole.stdout)), command
    for command, *options in (
        ("logits", "--tokens", "1,2,3"), ("repack", "--outtype", "t2"), ("convert",), ("merge",), ("export",),
    ):  # fmt: skip
        whole, parts = tmp_path / f"whole.{command}", tmp_path / f"parts.{command}"
        for path, output in ((tiny_gguf, whole), (first, parts)):
            if (command, path) == ("merge", tiny_gguf):
                shutil.copy(tiny_gguf, output)
                continue
            done = run(command, path, "-o", output, *options)
            assert done.exit_code == 0, (command, done.output, done.exception)
        files = sorted(whole.iterdir()) if whole.is_dir() else [whole]
        for file in files:
            other = parts / file.name if whole.is_dir() else parts
            assert other.read_bytes() == file.read_bytes(), (command, file.name)


def without_place(document: dict[str, Any]) -> dict[str, Any]:
    """A result without what differs from file to file and from run to run."""
    return {key: value for key, value in document.items() if key != "file" and not key.endswith(("second", "seconds"))}


def test_inspect_shows_a_set_as_one(two: list[Path], tiny_gguf: Path) -> None:
    whole, parts = (json.loads(run("inspect", path, "--stats", "--json").stdout) for path in (tiny_gguf, two[0]))
    files = [row.pop("file") for row in parts["tensors"]]
    assert files == [two[0].name] * 12 + [two[1].name] * 12
    for key in ("metadata", "model", "problems", "layouts", "part"):
        assert parts[key] == whole[key], key
    for row, row_of_whole in zip(parts["tensors"], whole["tensors"], strict=True):
        assert row | {"file_offset": 0} == row_of_whole | {"file_offset": 0}, row["name"]
    assert parts["files"] == [str(path) for path in two] and parts["nbytes"] == sum(p.stat().st_size for p in two)
    assert "a GGUF file in 2 parts." in run("inspect", two[0]).stdout


def test_a_part_is_never_overwritten(two: list[Path], tmp_path: Path) -> None:
    before = two[1].read_bytes()
    for command in ("convert", "repack", "merge"):
        result = run(command, two[0], "-o", two[1], "--force")
        assert exit_code_of(result) == 2 and "is an input" in str(result.exception), command
    result = run("logits", two[0], "--tokens", "1", "-o", two[1], "--force")
    assert exit_code_of(result) == 2 and "is an input" in str(result.exception)
    assert two[1].read_bytes() == before


@pytest.mark.parametrize("name", ["m.gguf", "m-00002-of-00003.gguf"])
def test_a_set_has_one_name(name: str) -> None:
    assert name_of_set(name) == "m" and name_of_set("m-2-of-3.gguf") == "m-2-of-3"
