"""What a file records of its origin: from the path of a snapshot, and from the front matter of a README."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.make.checkpoints import edited_checkpoint
from tests.make.hub_server import HubServer
from tritpack.converter.convert import Conversion, convert
from tritpack.converter.repack import repack
from tritpack.converter.sources.hub import parse_reference
from tritpack.converter.sources.origin import CARD, LARGEST_FRONT_MATTER, origin_of
from tritpack.converter.verify.ladder import verify
from tritpack.formats.gguf_reader import GgufFile

README = b"""---
license: other
license_name: my-license
license_link: LICENSE
base_model:
- some-org/Base-7B-v0.1
- https://huggingface.co/other/Thing
- https://example.com/x
language: [en, no, "zh"]
library_name: transformers
tags: [bitnet, 1.58, bitnet]
pipeline_tag: text-generation
---
# Not \xff UTF-8 any more
"""
EXPECTED = {
    "general.license": "other",
    "general.license.name": "my-license",
    "general.license.link": "LICENSE",
    "general.base_model.count": 3,
    "general.base_model.0.name": "Base 7B v0.1",
    "general.base_model.0.organization": "Some Org",
    "general.base_model.0.version": "v0.1",
    "general.base_model.0.repo_url": "https://huggingface.co/some-org/Base-7B-v0.1",
    "general.base_model.1.name": "Thing",
    "general.base_model.1.organization": "Other",
    "general.base_model.1.repo_url": "https://huggingface.co/other/Thing",
    "general.base_model.2.repo_url": "https://example.com/x",
    "general.tags": ["bitnet", "1.58", "text-generation"],
    "general.languages": ["en", "no", "zh"],
}


def recorded(path: Path) -> dict[str, object]:
    """Return what a file records of its origin."""
    names = ("source.url", "source.hugging", "license", "base_model", "tags", "languages")
    begins = tuple(f"general.{name}" for name in names)
    metadata = GgufFile(path).metadata
    listed = {key: value if isinstance(value, (str, int)) else list(value) for key, value in metadata.items()
              if key.startswith(begins) or key == "tritpack.source.commit"}  # fmt: skip
    return listed


def with_readme(source: Path, folder: Path, readme: bytes) -> Path:
    shutil.copytree(source, folder)
    (folder / CARD).write_bytes(readme)
    return folder


def test_a_folder_says_what_its_readme_says(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = with_readme(tiny_checkpoint, tmp_path / "any name", README)
    conversion = convert(folder, tmp_path / "m.gguf")
    assert recorded(conversion.path) == EXPECTED and conversion.warnings == []
    metadata = GgufFile(conversion.path).metadata
    assert metadata["general.size_label"] == "1.7M" and metadata["general.name"] == "bitnet"
    assert next(line.partition("  ")[2] for line in metadata["tritpack.source.files"]) == CARD
    repack(conversion.path, tmp_path / "r.gguf", outtype="t158")
    assert recorded(tmp_path / "r.gguf") == EXPECTED


def test_a_changed_readme_is_a_note(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = with_readme(tiny_checkpoint, tmp_path / "c", README)
    convert(folder, tmp_path / "m.gguf")
    (folder / CARD).write_bytes(README + b"more")
    report = verify(tmp_path / "m.gguf", folder, level="structure")
    assert report.verdict == "pass" and "README.md differs" in " ".join(report["structure"].notes)


def test_the_hub_gives_repository_and_commit(server: HubServer, tmp_path: Path) -> None:
    commit = server.snapshots["org/tiny", "main"][0]
    convert("org/tiny", tmp_path / "m.gguf")
    record = recorded(tmp_path / "m.gguf")
    assert record == {
        "general.source.url": f"https://huggingface.co/org/tiny/tree/{commit}",
        "general.source.huggingface.repository": "org/tiny",
        "tritpack.source.commit": commit,
    }
    assert parse_reference(str(record["general.source.url"])) == ("org/tiny", commit)
    snapshot = tmp_path / "cache" / "models--org--tiny" / "snapshots" / commit
    link = tmp_path / "latest"
    link.symlink_to(snapshot)
    for number, folder in enumerate((snapshot, link)):
        convert(folder, tmp_path / f"{number}.gguf")
        assert (tmp_path / f"{number}.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes(), folder


def test_reproduction_takes_the_origin_from_the_file(server: HubServer, repos: dict[str, Path], tmp_path: Path) -> None:
    convert("org/tiny", tmp_path / "m.gguf")
    report = verify(tmp_path / "m.gguf", repos["org/tiny"], level="structure", reproduce=True)
    assert report.verdict == "pass", report.first_finding


def test_the_hub_gives_the_readme(
    server: HubServer, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_readme(tiny_checkpoint, tmp_path / "with", README)
    with HubServer({"org/carded": folder}) as hub:
        server.snapshots.update(hub.snapshots)
        server.large.update(hub.large)
        convert("org/carded", tmp_path / "m.gguf", stream=True)
    assert recorded(tmp_path / "m.gguf").items() >= EXPECTED.items()


HOSTILE = {
    "no end": b"---\nlicense: mit\n",
    "huge": b"---\nlicense: mit\ntags: [" + b"a, " * LARGEST_FRONT_MATTER + b"]\n---\n",
    "cycle": b"---\na: &x [*x]\nlicense: mit\n---\n",
    "laughs": b"---\na: &a [x, x]\nb: &b [*a, *a]\nlicense: *b\n---\n",
    "not UTF-8": b"---\nlicense: \xff\xfe\n---\n",
    "deep": b"---\nlicense: " + b"[" * 30000 + b"\n---\n",
    "a list": b"---\n- license\n---\n",
    "python": b"---\nlicense: !!python/object/apply:os.system [exit 1]\n---\n",
    "broken": b"---\nlicense: [mit\n---\n",
    "keys": b"---\n? [a]\n: b\n---\n",
    "binary": bytes(range(256)) * 100,
    "empty": b"",
    "nothing": b"---\n---\n",
    "types": b"---\nlicense: {a: b}\ntags: [[x], {y: z}]\nlanguage: {}\nbase_model: [[]]\nlicense_name: {}\n---\n",
    "long": b"---\nlicense: " + b"m" * 1000 + b"\n---\n",
    "control": b'---\nlicense: "m\\x1b[2Jit"\ntags: ["\\ud800", "a\\nb"]\n---\n',
    "no values": b"---\nlicense:\nlanguage: ~\ntags: null\nbase_model: []\n---\n",
}
QUIET = ("binary", "empty", "nothing", "no values")
"""What is not hostile, or no front matter at all, is worth no warning."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_readme_gives_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / CARD).write_bytes(HOSTILE[name])
    origin = origin_of(tmp_path)
    assert origin.metadata() == ({"general.license": "exit 1"} if name == "python" else {})
    assert len(origin.warnings) == (name not in (*QUIET, "python")) and all(len(w) < 300 for w in origin.warnings)


def test_what_is_right_beside_what_is_wrong_is_kept(tiny_checkpoint: Path, tmp_path: Path) -> None:
    readme = b"---\nlicense: mit\ntags: [a, [b], {c: d}, '\\e', e]\nlanguage: {en: 1}\n---\n"
    folder = with_readme(tiny_checkpoint, tmp_path / "c", readme)
    conversion: Conversion = convert(folder, tmp_path / "m.gguf")
    assert recorded(conversion.path) == {"general.license": "mit", "general.tags": ["a", "\\e", "e"]}
    assert conversion.warnings == ["README.md: not all of tags, language is what the Hub expects there"]


def test_a_folder_named_readme_is_none(tmp_path: Path) -> None:
    (tmp_path / CARD).mkdir()
    assert origin_of(tmp_path).metadata() == {}


def test_a_checkpoint_of_another_name_is_the_same_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    edited_checkpoint(tiny_checkpoint, tmp_path / "models--a--b")
    convert(tmp_path / "models--a--b", tmp_path / "x.gguf")
    convert(tiny_checkpoint, tmp_path / "y.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "y.gguf").read_bytes()


@pytest.mark.parametrize("model", ["../..", "./a", "org/..", "-a/b"])
def test_what_no_repository_is_called_has_no_address(model: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\nbase_model: {model}\n---\n")
    assert origin_of(tmp_path).card == {"general.base_model.count": 1, "general.base_model.0.name": model}
