"""`recipe run`: what it makes, what it keeps, what it makes anew, and what it does not package."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import exit_code_of, run
from tests.make.remote import serving
from tritpack.converter.release.bundle.check import check_bundle
from tritpack.converter.release.manifest import check_folder
from tritpack.converter.release.recipe import packaging, proof
from tritpack.converter.release.recipe.run import Release, run_recipe
from tritpack.converter.release.recipe.shelf import shipped
from tritpack.converter.verify.golden import parse_golden
from tritpack.formats.errors import IntegrityFailed, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile

RECIPE = """\
name: small
source: {path: checkpoint}
family: bitnet
shape: {hidden_size: 256}
outputs:
  - {outtype: i2_s, split_max_tensors: 15}
  - {outtype: t158, suffix: q8, embedding_type: q8_0}
verify: {level: weights}
card: {text: Small and random.}
"""
ONE = ["outputs=[{outtype: t158, suffix: q8, embedding_type: q8_0}]"]
STEPS = 7  # two conversions and proofs, documents, manifest, bundle


@pytest.fixture(scope="module")
def made(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its checkpoint, and the release that was made from it."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_checkpoint, folder / "checkpoint")
    (folder / "checkpoint" / "LICENSE.txt").write_text("do what you like")
    (folder / "r.yaml").write_text(RECIPE)
    release = run_recipe(folder / "r.yaml", folder / "out")
    assert release.verdict == "pass" and [step.skipped for step in release.steps] == [False] * STEPS
    return folder


@pytest.fixture
def again(made: Path, tmp_path: Path) -> Callable[..., Release]:
    """Runs the recipe again in a copy of that folder, which is tmp_path / "made"."""
    shutil.copytree(made, tmp_path / "made")

    def run_again(*overrides: str, **options: Any) -> Release:
        return run_recipe(tmp_path / "made" / "r.yaml", tmp_path / "made" / "out", overrides=overrides, **options)

    return run_again


def redone(release: Release) -> list[str]:
    return [step.name for step in release.steps if not step.skipped]


def test_a_release_is_complete(made: Path) -> None:
    folder = made / "out" / "small"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    parts = {f"small-I2_S-0000{number}-of-00002.gguf" for number in (1, 2)}
    stems = ("small-I2_S", "small-q8-T158")
    reports = {f"{stem}.report/{name}" for stem in stems for name in packaging.REPORTS}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert names == {
        *parts, "small-q8-T158.gguf", *(f"{stem}.intoto.json" for stem in stems), *reports,
        *(f"tokenizer/{name}" for name in tokenizer), "LICENSE.txt", "README.md", "recipe.yaml", "manifest.json",
    }  # fmt: skip
    check_folder(folder)
    check_bundle(made / "out" / "small.tar.zst")
    assert "Small and random." in (folder / "README.md").read_text()
    assert json.loads((folder / "small-q8-T158.report" / "report.json").read_text())["file"] == "small-q8-T158.gguf"
    assert str(made) not in "".join(path.read_text(errors="replace") for path in folder.rglob("*.json"))
    file = GgufFile(folder / "small-q8-T158.gguf")
    assert file.tensors["token_embd.weight"].layout == "q8_0" and file.metadata["general.name"] == "small"


def test_the_recipe_in_a_release_makes_it_again(made: Path, tmp_path: Path) -> None:
    folder = made / "out" / "small"
    resolved = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert resolved["source"]["sha256"] == json.loads((folder / "small-q8-T158.report" / "report.json").read_text())[
        "provenance"]["source_sha256"]  # fmt: skip
    source = f"source.path={made / 'checkpoint'}"
    release = run_recipe(folder / "recipe.yaml", tmp_path, overrides=[source, *ONE, "package.bundle=false"])
    for path in [*release.folder.glob("*.gguf"), *release.folder.glob("*.intoto.json")]:
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
    assert release.bundle is None


def test_equal_inputs_give_equal_bundles(made: Path, tmp_path: Path) -> None:
    """Whatever the time, the folder, the umask and the number of threads."""
    mask = os.umask(0o077)
    try:
        release = run_recipe(made / "r.yaml", tmp_path / "deep" / "er", threads=1)
    finally:
        os.umask(mask)
    assert release.bundle is not None
    assert release.bundle.read_bytes() == (made / "out" / "small.tar.zst").read_bytes()


def test_what_is_right_is_kept(again: Callable[..., Release], tmp_path: Path) -> None:
    for path in (tmp_path / "made").rglob("*"):
        path.touch()  # time stamps decide nothing
    assert redone(again()) == []


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")


# Equal bytes have equal hashes, so what comes after a step is kept.
DAMAGE = {
    "small-q8-T158.gguf": ["convert small-q8-T158.gguf"],
    "small-I2_S-00002-of-00002.gguf": ["convert small-I2_S-00001-of-00002.gguf"],
    "small-q8-T158.intoto.json": ["verify small-q8-T158.gguf"],
    "small-q8-T158.report/report.md": ["verify small-q8-T158.gguf"],
    "README.md": ["documents"],
    "tokenizer/tokenizer.json": ["documents"],
    "manifest.json": ["manifest"],
    "../small.tar.zst": ["bundle"],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_made_anew(name: str, again: Callable[..., Release], tmp_path: Path) -> None:
    folder = tmp_path / "made" / "out" / "small"
    before = (folder / name).read_bytes()
    _cut(folder / name)
    assert redone(again()) == DAMAGE[name]
    assert (folder / name).read_bytes() == before
    check_folder(folder)
    check_bundle(folder.parent / "small.tar.zst")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", ["prove", "attest", "write"])
def test_a_killed_run_goes_on(step: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tritpack.converter.release.recipe import run as running

    def killed(*arguments: object, **options: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        place = running if step == "prove" else packaging if step == "attest" else packaging.Package
        patch.setattr(place, step, killed)
        with pytest.raises(Killed):
            run_recipe(made / "r.yaml", tmp_path, overrides=ONE)
    assert (tmp_path / "small" / "small-q8-T158.gguf").is_file() and not (tmp_path / "small" / "manifest.json").exists()
    release = run_recipe(made / "r.yaml", tmp_path, overrides=ONE)
    assert release.verdict == "pass" and not [name for name in redone(release) if name.startswith("convert")]
    check_folder(tmp_path / "small")


def test_a_changed_recipe_redoes_what_depends_on_it(again: Callable[..., Release], tmp_path: Path) -> None:
    assert redone(again("card.text=Other.")) == ["documents", "manifest", "bundle"]
    release = again(*ONE, "card.text=Other.")
    assert not list(release.folder.glob("*I2_S*"))
    assert "convert small-q8-T158.gguf" not in redone(release)
    check_folder(release.folder)


def test_another_source_needs_force(again: Callable[..., Release], tmp_path: Path) -> None:
    path = tmp_path / "made" / "checkpoint" / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_length": 7}))
    with pytest.raises(UsageError, match="made from another source") as raised:
        again()
    assert "--force" in str(raised.value.hint)
    assert len(redone(again(*ONE, force=True))) == 5
    with pytest.raises(IntegrityFailed, match="the recipe says 0000"):
        again(f"source.sha256={'0' * 64}")


def test_foreign_files_are_not_packaged(again: Callable[..., Release], tmp_path: Path) -> None:
    (tmp_path / "made" / "out" / "small" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not of this release"):
        again(force=True)
    assert (tmp_path / "made" / "out" / "small" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("path", ["/etc/hostname", "../../x", "../other.tar.zst", "a\0b", 7])
def test_a_hostile_journal_is_refused(path: Any, again: Callable[..., Release], tmp_path: Path) -> None:
    journal = tmp_path / "made" / "out" / ".small.journal.json"
    journal.write_text(json.dumps({**json.loads(journal.read_text()), "begun": [path]}))
    with pytest.raises(UsageError, match="is not a journal"):
        again()


@pytest.mark.parametrize("change", [{"key": None}, {"steps": {"manifest": {"files": {}}}}, {"steps": []}])
def test_a_damaged_journal_is_refused(change: Any, again: Callable[..., Release], tmp_path: Path) -> None:
    journal = tmp_path / "made" / "out" / ".small.journal.json"
    journal.write_text(json.dumps({**json.loads(journal.read_text()), **change}))
    with pytest.raises(UsageError, match="is not a journal"):
        again()


def test_what_is_not_proved_is_not_packaged(again: Callable[..., Release], tmp_path: Path) -> None:
    bounds = (
        "verify.thresholds=[{rung: weights, figure: ternary_tensors, most: 3}, {rung: weights, figure: x, least: 1}]"
    )
    release = again(bounds)
    assert release.verdict == "fail" and release.bundle is None
    assert release.outputs[0].failures == [
        "weights: ternary_tensors is 14, the recipe wants at most 3",
        "weights: x was not measured, and the recipe has a bound on it",
    ]
    names = {path.name for path in release.folder.iterdir()}
    assert not names & {"README.md", "manifest.json", "small-q8-T158.intoto.json"} and "small-q8-T158.report" in names
    assert not (release.folder.parent / "small.tar.zst").exists()
    assert again().verdict == "pass"


def test_a_wrong_output_is_found(again: Callable[..., Release], monkeypatch: pytest.MonkeyPatch) -> None:
    from tritpack.converter.release.recipe import run as running

    write = running.write_planned

    def wrong(source: Any, planned: Any, options: Any) -> Any:
        conversions = write(source, planned, options)
        _cut(conversions[0].path)
        return conversions

    monkeypatch.setattr(running, "write_planned", wrong)
    release = again("outputs=[{outtype: tq2_0}]")
    assert release.verdict == "fail" and "weights: " in release.outputs[0].failures[0]


def test_differences_are_warnings_and_refusals(again: Callable[..., Release]) -> None:
    release = again("shape.layers=9", "license=mit")
    assert "the source has another shape than the recipe says: layers 2 (not 9)" in release.warnings
    assert "the source's licence is not given, the recipe says mit" in release.warnings
    with pytest.raises(Unsupported, match="is of the family bitnet, the recipe says llama"):
        again("family=llama")


def test_prompts_and_pinned_tokens_reach_verify(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(*arguments: Any, golden: Path, prompt: list[str], level: str, **options: Any) -> None:
        assert [(entry.prompt, entry.greedy) for entry in parse_golden(golden)] == [("The", [1, 2])]
        assert (prompt, level) == (["Once"], "generation")
        raise Killed

    monkeypatch.setattr(proof, "verify", verify)
    golden = "golden=[{prompt: The, greedy: [1, 2]}, {prompt: Once}]"
    with pytest.raises(Killed):
        run_recipe(made / "r.yaml", tmp_path, overrides=[*ONE, "verify.level=generation", golden])


def test_one_command_from_the_hub_and_one_to_check(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text(
        "name: m\nsource: {repository: org/tiny}\noutputs: [{outtype: i2_s, engine: bitnet.cpp}]\n"
        "verify: {level: weights}\n"
    )
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "repository")
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n")
    (folder / "LICENSE").write_text("do what you like")
    with serving({"org/tiny": folder}, tmp_path / "cache", monkeypatch) as server:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the tests' hub has LFS alone
        published = ("--publish", "org/packed")
        result = run("recipe", "run", tmp_path / "r.yaml", "-o", tmp_path / "out", *published, "--json", "-q")
        assert result.exit_code == 0, result.output
    [release] = json.loads(result.stdout)["releases"]
    assert release["commit"] == server.snapshots["org/tiny", "main"][0] and release["verdict"] == "pass"
    assert "source.revision is 'main'" in result.stderr
    assert (Path(release["folder"]) / "LICENSE").read_text() == "do what you like"
    card = (Path(release["folder"]) / "README.md").read_text()
    assert "\nlicense: mit\n" in card and "\nbase_model: org/tiny\n" in card
    uploaded = server.uploads.branches["org/packed"]["main"]
    assert uploaded["README.md"].decode() == card and "manifest.json" in uploaded
    assert release["published"].startswith(f"{server.url}/org/packed/")
    checked = run("check", release["bundle"])
    assert checked.exit_code == 0, checked.output


def test_several_recipes_do_not_stop_each_other(made: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("nam: x\n")
    result = run("recipe", "run", tmp_path / "wrong.yaml", made / "r.yaml", "-o", made / "out", "--json", "-q")
    assert result.exit_code == 2 and "did you mean name?" in result.stderr
    first, second = json.loads(result.stdout)["releases"]
    assert first["exit_code"] == 2 and second["verdict"] == "pass"
    assert exit_code_of(run("recipe", "run", tmp_path / "wrong.yaml", "-o", tmp_path / "x")) == 2


def test_one_repository_is_not_for_several_releases(made: Path) -> None:
    result = run("recipe", "run", made / "r.yaml", made / "r.yaml", "--publish", "org/packed")
    assert exit_code_of(result) == 2 and "one recipe" in str(result.exception)


def test_list_and_show() -> None:
    listed = {row["recipe"]: row["pinned"] for row in json.loads(run("recipe", "list", "--json").stdout)["recipes"]}
    assert listed == {name: name == "demo" for name in shipped()}
    assert len(run("recipe", "list").stdout.splitlines()) == len(listed)
    shown = run("recipe", "show", "demo", "--set", "name=other")
    assert yaml.safe_load(shown.stdout)["name"] == "other"
    assert json.loads(run("recipe", "show", "demo", "--json").stdout)["name"] == "demo"
    wrong = run("recipe", "check", "demo", "nothing-here", "--json")
    assert wrong.exit_code == 3 and [row["error"] is None for row in json.loads(wrong.stdout)["recipes"]] == [
        True,
        False,
    ]


def test_recipes_run_on_dask(made: Path) -> None:
    pytest.importorskip("distributed")
    result = run("recipe", "run", made / "r.yaml", "-o", made / "out", "--json", "--executor", "dask", "--workers", 1)
    assert result.exit_code == 0, result.output
    [release] = json.loads(result.stdout)["releases"]
    assert release["verdict"] == "pass" and len(release["steps"]) == STEPS
