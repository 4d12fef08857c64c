"""metadata get, set and rm: what changes, how it is written, and that nothing else changes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_gguf, split_gguf
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.metadata.metadata import get_metadata, remove_metadata, set_metadata
from tritpack.formats.errors import TritpackError, Unreadable, UsageError, WriteFailed
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.integrity import CODES_KEY, KEYS
from tritpack.formats.partial_file import PartialFile


@pytest.fixture
def file(tiny_gguf: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_gguf, tmp_path / "m.gguf"))


def tensors(path: Path) -> dict[str, bytes]:
    file = GgufFile(path)
    return {name: file.bytes_of(info).tobytes() for name, info in file.tensors.items()}


def pairs(path: Path) -> dict[str, Any]:
    return {key: row["value"] for key, row in get_metadata(path)["metadata"].items()}


def test_get_gives_types_and_whole_values(file: Path) -> None:
    rows = get_metadata(file)["metadata"]
    assert rows["general.file_type"] == {"type": "u32", "value": 40}
    assert rows["tokenizer.ggml.tokens"]["type"] == "arr[str]" and len(rows["tokenizer.ggml.tokens"]["value"]) == 512
    assert json.loads(json.dumps(rows)) == rows
    assert run("metadata", "get", file, "general.name").stdout == "bitnet\n"
    shown = run("metadata", "get", file).stdout
    assert "general.file_type (u32) = 40\n" in shown and " of 512\n" in shown
    assert max(map(len, shown.splitlines())) < 200
    result = run("metadata", "get", file, "general.nam")
    assert exit_code_of(result) == 2 and isinstance(result.exception, UsageError)
    assert "general.name" in str(result.exception.hint)


@pytest.mark.parametrize(
    ("key", "text", "kind", "how"),
    [
        ("general.name", "BITNET", "str", "in place"),
        ("general.name", "another name", "str", "rewritten"),
        ("general.name", "bitnet", "str", "unchanged"),
        ("general.file_type", "37", "u32", "in place"),
        ("bitnet-b1.58.rope.freq_base", "10000", "f32", "in place"),
        ("tokenizer.ggml.add_bos_token", "false", "bool", "in place"),
        ("general.author", "7", "str", "rewritten"),
        ("mine.number", "-7", "i32", "rewritten"),
        ("mine.large", str(2**40), "u64", "rewritten"),
        ("mine.float", "1e-3", "f32", "rewritten"),
        ("mine.switch", "true", "bool", "rewritten"),
        ("mine.words", '["a", "b"]', "arr[str]", "rewritten"),
        ("mine.mixed", "[1, 2.5]", "arr[f32]", "rewritten"),
    ],
)
def test_set(key: str, text: str, kind: str, how: str, file: Path) -> None:
    before, old, inode = tensors(file), pairs(file), file.stat().st_ino
    plan = set_metadata(file, key, text, dry_run=True)
    assert plan["written"] == how and pairs(file) == old
    result = set_metadata(file, key, text)
    assert result == {**plan, "dry_run": False}
    assert (file.stat().st_ino == inode) == (how != "rewritten")
    row = get_metadata(file)["metadata"][key]
    value = text if kind == "str" else json.loads(text)
    assert row["type"] == kind and row["value"] == (pytest.approx(value) if kind == "f32" else value)
    assert tensors(file) == before and {**pairs(file), key: 0} == {**old, key: 0}
    assert [change["key"] for change in result["changes"]] == [key]
    assert inspect(file, stats=True)["damage"] == []
    assert [path.name for path in file.parent.iterdir()] == ["m.gguf"]


def test_other_readers_read_the_result(file: Path) -> None:
    path = file.with_name("f32.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("words", ["a", "ü"])
    writer.add_tensor("x.weight", np.arange(128, dtype=np.float32).reshape(4, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    set_metadata(path, "mine.longer", "x" * 5000)
    reader = gguf.GGUFReader(path)
    assert reader.fields["mine.longer"].contents() == "x" * 5000 and reader.fields["words"].contents() == ["a", "ü"]
    assert reader.tensors[0].data.tolist() == np.arange(128).reshape(4, 32).tolist()


def test_a_type_that_is_asked_for(file: Path) -> None:
    set_metadata(file, "mine.numbers", "[1, 255]", type="arr[u8]")
    set_metadata(file, "general.file_type", "40", type="u64")
    rows = get_metadata(file)["metadata"]
    assert rows["mine.numbers"] == {"type": "arr[u8]", "value": [1, 255]}
    assert rows["general.file_type"] == {"type": "u64", "value": 40}


def test_the_text_of_a_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}\n")
    assert run("metadata", "set", file, "tokenizer.chat_template", f"@{tmp_path / 't.jinja'}").exit_code == 0
    assert run("metadata", "set", file, "general.name", "@@home").exit_code == 0
    assert pairs(file)["tokenizer.chat_template"] == "{{ messages }}\n" and pairs(file)["general.name"] == "@home"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("general.file_type", "forty"), "'forty' is not a whole number, and the type is u32"),
        (("general.file_type", "-1"), "u32 holds 0 to 4294967295"),
        (("tokenizer.ggml.add_bos_token", "yes"), "expected true or false"),
        (("bitnet-b1.58.rope.freq_base", "1e39"), "is not a finite number of type f32"),
        (("tokenizer.ggml.tokens", "a"), "is not an array"),
        (("mine.x", "[1, 300]", "arr[u8]"), "u8 holds 0 to 255"),
        (("mine.x", '["1"]', "arr[u8]"), "expected u8"),
        (("mine.x", "1", "int"), "'int' is not a type"),
        (("mine.x", "9" * 5000), "out of range for every type of whole numbers"),
        (("mine.x", "9" * 5000, "u64"), "u64 holds 0 to"),
        (("mine.x", f"[{'9' * 5000}]"), "out of range for every type of whole numbers"),
        (("mine.x", "99999999999999999999999"), "out of range for every type of whole numbers"),
        (("mine.x", "[1, 1e400]"), "is not a"),
        (("mine.x", "[true, 1]"), "does not show what its items are"),
        (("mine.x", "[]"), "does not show what its items are"),
        (("mine.x", "1_000", "u32"), "is not a whole number"),
        (("mine.x", "\u0663", "u32"), "is not a whole number"),
        (("mine.x", "\u0663", "f32"), "is not a number"),
        (("mine x", "1"), "cannot be a key"),
        (("", "1"), "a key has 1 to"),
        (("general.alignment", "64"), "general.alignment cannot be changed"),
        (("split.count", "2"), "split.count cannot be changed"),
        ((CODES_KEY, "[]"), "is computed from them"),
        (("tritpack.layout.tiling", '["nonsense"]'), "metadata tritpack.layout.tiling"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], words: str, file: Path) -> None:
    before = file.read_bytes()
    kind = arguments[2] if len(arguments) > 2 else None
    with pytest.raises(TritpackError, match=words.replace("(", r"\(")) as caught:
        set_metadata(file, *arguments[:2], type=kind)
    assert caught.value.exit_code in (2, 3) and file.read_bytes() == before
    if arguments[0] == CODES_KEY:
        assert "--type" not in str(caught.value.hint)


def test_rm(file: Path) -> None:
    before, old = tensors(file), pairs(file)
    result = remove_metadata(file, ["general.size_label", "tokenizer.ggml.pre"])
    assert [change["after"] for change in result["changes"]] == [None, None]
    assert tensors(file) == before and pairs(file) == {
        key: value for key, value in old.items() if key not in ("general.size_label", "tokenizer.ggml.pre")
    }
    assert [change["key"] for change in remove_metadata(file, ["general.s*"], dry_run=True)["changes"]] == [
        key for key in pairs(file) if key.startswith("general.s")
    ]
    with pytest.raises(UsageError, match="has no metadata key like nope"):
        remove_metadata(file, ["nope*"])
    with pytest.raises(UsageError, match=r"has no metadata key general\.nam") as caught:
        remove_metadata(file, ["general.nam"])
    assert caught.value.hint == "did you mean general.name?"
    with pytest.raises(UsageError, match="go together"):
        remove_metadata(file, [CODES_KEY])
    remove_metadata(file, KEYS)
    assert inspect(file)["integrity"] is None


@pytest.mark.parametrize("step", ["copy", "write", "seal", "place"])
def test_a_run_that_fails_leaves_the_file_as_it_was(step: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def fails(*arguments: Any, **options: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(PartialFile, step, fails)
    with pytest.raises((OSError, WriteFailed), match="No space"):
        set_metadata(file, "general.name", "another name")
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == ["m.gguf"]


def test_a_file_that_changes_meanwhile_is_not_replaced(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = PartialFile.copy

    def and_change(self: PartialFile, *arguments: Any) -> None:
        copy(self, *arguments)
        with open(file, "ab") as stream:
            stream.write(b"x" * 32)

    monkeypatch.setattr(PartialFile, "copy", and_change)
    with pytest.raises(Unreadable, match="was changed while it was read"):
        set_metadata(file, "general.name", "another name")
    assert file.read_bytes().endswith(b"x" * 32)


def test_where_the_system_does_not_copy_by_itself(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tensors(file)
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    set_metadata(file, "general.name", "another name")
    assert tensors(file) == before


def test_output_leaves_the_file(file: Path, tmp_path: Path) -> None:
    before, output = file.read_bytes(), tmp_path / "o.gguf"
    result = set_metadata(file, "general.name", "BITNET", output=output)
    assert result["written"] == "rewritten" and file.read_bytes() == before
    assert pairs(output) == {**pairs(file), "general.name": "BITNET"} and tensors(output) == tensors(file)
    assert exit_code_of(run("metadata", "set", file, "general.name", "x", "-o", output)) == 2
    assert exit_code_of(run("metadata", "set", file, "general.name", "x", "-o", file, "--force")) == 2


def test_files_that_are_not_changed(file: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    cached = blobs / "0123"
    shutil.copy(file, cached)
    with pytest.raises(UsageError, match="cache of downloads"):
        set_metadata(cached, "general.name", "x")
    assert exit_code_of(run("metadata", "set", "some.tar.zst", "general.name", "x")) == 2
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:-4000])
    assert exit_code_of(run("metadata", "rm", cut, "general.name")) == 3


def test_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(file.name)
    os.chmod(file, 0o640)
    set_metadata(link, "general.name", "another name")
    assert link.is_symlink() and pairs(file)["general.name"] == "another name" and file.stat().st_mode & 0o777 == 0o640


def test_the_first_part_of_a_split_set(tiny_gguf: Path, tmp_path: Path) -> None:
    count = len(GgufFile(tiny_gguf).tensors)
    first, second = split_gguf(tiny_gguf, tmp_path, [0, 5, count])
    rest = second.read_bytes()
    set_metadata(first, "general.name", "another name")
    assert second.read_bytes() == rest and GgufFile(first).metadata["general.name"] == "another name"
    assert tensors(first) == tensors(tiny_gguf)
    with pytest.raises(Unreadable, match="is part 2 of 2"):
        set_metadata(second, "general.name", "x")
    assert "split.no" in get_metadata(second)["metadata"]


def test_an_attestation_beside_the_file_is_named(file: Path) -> None:
    (file.parent / "m.intoto.json").write_text("{}")
    result = run("metadata", "set", file, "general.name", "another name")
    assert result.exit_code == 0 and "attests the bytes that the file had before" in result.stderr


def test_keys_that_are_not_utf8_are_not_written_again(tiny_gguf: Path, tmp_path: Path) -> None:
    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=lambda m: m.update({"mine.key": "x"}))
    path.write_bytes(path.read_bytes().replace(b"mine.key", b"mine.\xff\xfey"))
    with pytest.raises(Unreadable, match="not UTF-8"):
        set_metadata(path, "general.name", "another name")


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        (("set", "general.architecture", "llama"), "cannot be run after this change: metadata key llama."),
        (("rm", "general.architecture"), "cannot be run after this change: general.architecture is missing"),
        (("set", "bitnet-b1.58.context_length", "99999"), "programs will allow 99999"),
        (("set", "bitnet-b1.58.rope.freq_base", "7"), "another model after the change: rope_theta was 500000.0"),
        (("rm", "tokenizer.ggml.merges"), "the tokenizer cannot be used after this change"),
        (("set", "general.name", "bitnex"), None),
        (("set", "foo.bar", "3"), None),
    ],
)
def test_what_follows_from_an_edit_is_a_warning(
    arguments: tuple[str, ...], warning: str | None, file: Path, tmp_path: Path
) -> None:
    command, *rest = arguments
    for number, options in enumerate((("--dry-run",), ("-o", tmp_path / "out.gguf"), ())):
        result = run("metadata", command, file, *rest, *options)
        assert result.exit_code == 0, number
        assert (warning is None and not result.stderr) or f"{warning}" in result.stderr, (number, result.stderr)
