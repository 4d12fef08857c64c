"""The card: a front matter that the Hub's own parser reads, and nothing in it that the files do not say."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_gguf
from tritpack.converter.convert import convert
from tritpack.converter.release.attestation import attestation_name
from tritpack.converter.release.card import NAME, hashes_in, write_card
from tritpack.converter.targets.layout_choice import ROUNDING_KEY
from tritpack.formats.errors import IntegrityFailed, Unreadable, UsageError

ORIGIN = {
    "general.source.huggingface.repository": "org/tiny",
    "tritpack.source.commit": "0123456789abcdef0123456789abcdef01234567",
    "general.license": "other",
    "general.license.name": "own-terms",
    "general.license.link": "https://example.org/terms",
    "general.languages": ["en", "no"],
    "general.tags": ["chat", "text-generation"],
}


def front_matter(path: Path) -> dict[str, Any]:
    """As the Hub's client reads it."""
    cards = pytest.importorskip("huggingface_hub")
    card = cards.ModelCard.load(path)
    data: dict[str, Any] = card.data.to_dict()
    return data


@pytest.fixture(scope="module")
def release(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an origin, proved and with its report, and a split one of which nothing is attested."""
    folder = tmp_path_factory.mktemp("release")
    edited_gguf(tiny_gguf, folder / "tiny-i2_s.gguf", metadata=lambda pairs: pairs.update(ORIGIN))
    result = run(
        "verify", folder / "tiny-i2_s.gguf", "--source", tiny_checkpoint, "--level", "weights",
        "--attest", folder / "tiny-i2_s.intoto.json", "--report", folder / "tiny-i2_s.report",
    )  # fmt: skip
    assert exit_code_of(result) == 0
    convert(tiny_checkpoint, folder / "tiny-t158.gguf", outtype="t158", split_max_tensors=20)
    write_card(folder, text="Second *paragraph*\nfollows.\n\n<b>bold</b> https://example.org")
    return folder


def test_the_front_matter_is_what_the_files_say(release: Path) -> None:
    assert front_matter(release / NAME) == {
        "license": "other",
        "license_name": "own-terms",
        "license_link": "https://example.org/terms",
        "base_model": "org/tiny",
        "base_model_relation": "quantized",
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "language": ["en", "no"],
        "tags": ["gguf", "bitnet", "ternary", "1.58-bit", "tritpack", "chat"],
    }


def test_every_file_stands_there_with_its_hash(release: Path) -> None:
    files = sorted(release.glob("*.gguf"))
    assert len(files) > 2
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert dict(hashes_in((release / NAME).read_text("utf-8"))) == hashes


def test_it_says_what_was_proved_and_how_to_run_it(release: Path) -> None:
    text = (release / NAME).read_text("utf-8")
    assert "PASS: the file holds the model of its source; rungs passed: structure, weights" in text
    assert re.search(r"^\| weights \| pass \| ternary tensors \d+, ", text, re.MULTILINE)
    assert text.count("Nothing is attested of this file.") == 1 and "Every code" not in text
    assert '`tritpack generate tiny-i2_s.gguf -p "Once upon a time"`' in text
    assert "python run_inference.py -m tiny-i2_s.gguf" in text and "llama-cli" not in text
    commit = ORIGIN["tritpack.source.commit"]
    assert f"\ntritpack convert org/tiny@{commit} -o tiny-i2_s.gguf --outtype i2_s" in text


def test_the_text_of_a_recipe_stays_text(release: Path) -> None:
    text = (release / NAME).read_text("utf-8")
    assert "\nSecond \\*paragraph\\* follows.\n" in text
    assert "<b>" not in text and "https\\://example.org" in text


def test_what_is_not_known_is_left_out(attested: Path) -> None:
    path = write_card(attested.parent)
    assert front_matter(path).keys() == {"library_name", "pipeline_tag", "tags"}
    text = path.read_text("utf-8")
    assert "huggingface.co" not in text and "SOURCE" in text and "Every code and every scale was compared" in text
    assert path.read_bytes() == write_card(attested.parent, force=True).read_bytes()


def test_values_of_the_caller_come_first(attested: Path) -> None:
    path = write_card(attested.parent, front_matter={"license": "mit", "tags": None, "language": ["de"]})
    assert front_matter(path)["license"] == "mit" and front_matter(path)["language"] == ["de"]
    assert "tags" not in front_matter(path)
    with pytest.raises(UsageError, match="exists"):
        write_card(attested.parent)
    with pytest.raises(UsageError, match="'licence'"):
        write_card(attested.parent, front_matter={"licence": "mit"}, force=True)


def test_another_licence_has_another_name(release: Path, tmp_path: Path) -> None:
    shutil.copy(release / "tiny-i2_s.gguf", tmp_path / "m.gguf")
    head = front_matter(write_card(tmp_path, front_matter={"license": "mit"}))
    assert head["license"] == "mit" and not {"license_name", "license_link"} & head.keys()
    head = front_matter(write_card(tmp_path, front_matter={"license": "other"}, force=True))
    assert head["license_name"] == ORIGIN["general.license.name"]


HOSTILE = {
    "general.name": "x](http://a) <img src=x>\n---\nlicense: mit",
    "general.source.huggingface.repository": "a/b) [c](http://d",
    "general.license": "mit\nbase_model: evil/model",
    "general.tags": ["--- \nx", "'"],
    "tritpack.layout": "i2_s\n```\n<b>",
}


def test_text_of_a_file_can_be_anything(tiny_gguf: Path, tmp_path: Path) -> None:
    edited_gguf(tiny_gguf, tmp_path / "m.gguf", metadata=lambda pairs: pairs.update(HOSTILE))
    path = write_card(tmp_path)
    head = front_matter(path)
    assert head["license"] == HOSTILE["general.license"] and "base_model" not in head
    assert head["tags"][-2:] == HOSTILE["general.tags"]
    body = path.read_text("utf-8").partition("\n---\n\n")[2]
    outside = body.partition("\n```")[0]
    assert not re.search(r"(?<!\\)(\]\(|<)", outside) and body.count("\n```") == 2


def test_commands_of_a_card_are_no_others(tiny_gguf: Path, tmp_path: Path) -> None:
    odd = {"tritpack.layout": "i2_s; reboot", "tritpack.target": "$(reboot)", "general.name": np.arange(3)}
    edited_gguf(tiny_gguf, tmp_path / "m.gguf", metadata=lambda pairs: pairs.update(odd))
    text = write_card(tmp_path).read_text("utf-8")
    assert "# m.gguf" in text
    assert "--outtype 'i2_s; reboot' " in text and "--for '$(reboot)'" in text


def test_a_record_of_rounding_that_is_no_number_is_named(attested: Path, tmp_path: Path) -> None:
    file = edited_gguf(attested, tmp_path / "m.gguf", metadata=lambda pairs: pairs.update({ROUNDING_KEY: "much"}))
    shutil.copy(attestation_name(attested), attestation_name(file))
    with pytest.raises(Unreadable, match="is not a number"):
        write_card(tmp_path)


def test_an_attestation_of_another_file_is_named(attested: Path) -> None:
    attestation_name(attested).rename(attested.with_name("other.intoto.json"))
    attested.rename(attested.with_name("other.gguf"))
    with pytest.raises(IntegrityFailed, match=r"is about m\.gguf"):
        write_card(attested.parent)


def test_a_folder_without_files_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"no \.gguf file"):
        write_card(tmp_path)


def test_a_broken_report_is_named(attested: Path) -> None:
    folder = attested.with_name("m.report")
    folder.mkdir()
    (folder / "report.json").write_text("{}")
    with pytest.raises(Unreadable, match="not a report"):
        write_card(attested.parent)
    shutil.copy(attestation_name(attested), folder / "report.json")
    with pytest.raises(Unreadable, match="not a report"):
        write_card(attested.parent)
