"""Every recipe that comes with tritpack, run against a small stand-in of its repository on a hub of this machine."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY, run
from tests.make.checkpoints import edited_gguf
from tests.make.families import Checkpoints
from tests.make.hub_server import HubServer
from tests.make.remote import serving
from tritpack.converter.convert import convert
from tritpack.converter.families.family import families
from tritpack.converter.release.recipe.run import run_recipe
from tritpack.converter.release.recipe.shelf import load, shipped
from tritpack.formats.gguf_reader import GgufFile

STAND_INS = {
    "microsoft/bitnet-b1.58-2B-4T-bf16": "ms_2b4t_online",
    "microsoft/bitnet-b1.58-2B-4T-gguf": "ms_2b4t_packed.i2_s",
    "*/bitnet-b1.58-2B-4T": "ms_2b4t_packed",
    "1bitLLM/*": "onebitllm",
    "HF1BitLLM/*": "hf1bit_llama3",
    "tiiuae/Falcon3-*": "falcon3",
    "tiiuae/Falcon-E-*": "falcon_e",
    "SpectraSuite/*": "trilm_2_shards",
    "microsoft/bitnet-embedding-0.6b": "embedding_qwen3",
    "microsoft/bitnet-embedding-270m": "embedding_gemma3",
    "prism-ml/*-unpacked": "bonsai_untied_yarn",
    "prism-ml/*-mlx-2bit": "bonsai_mlx",
    "prism-ml/*-gguf": "bonsai_tied.pq2_0",
    "openbmb/*": "bitcpm",
}
"""Pattern of repositories -> a checkpoint of tests/make/families.py, or what one is converted to."""
RECIPES = {name: path for name, path in shipped().items() if name != "demo"}


def stand_in(repository: str) -> str:
    return next(made for pattern, made in STAND_INS.items() if fnmatch.fnmatchcase(repository, pattern))


def without_source(metadata: dict[str, Any]) -> None:
    """Let a file say as little of where it comes from as a vendor's own file."""
    for key in [key for key in metadata if key.startswith(("general.source.", "tritpack.source."))]:
        del metadata[key]


@pytest.fixture(scope="module")
def hub(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A hub with a stand-in for the repository of every recipe."""
    folders = {}
    repositories = [str(load(path).recipe.source.repository) for path in RECIPES.values()]
    for made in {stand_in(repository) for repository in repositories}:
        name, _, layout = made.partition(".")
        folders[made] = checkpoints(name).folder
        if layout:
            ours = convert(checkpoints(name).folder, tmp_path_factory.mktemp("ours") / "x.gguf", outtype=layout).path
            folders[made] = tmp_path_factory.mktemp(layout)
            edited_gguf(ours, folders[made] / f"ggml-model-{layout}.gguf", metadata=without_source)
    repos = {repository: folders[stand_in(repository)] for repository in repositories}
    cache = tmp_path_factory.mktemp("hub") / "cache"
    with pytest.MonkeyPatch.context() as monkeypatch, serving(repos, cache, monkeypatch) as server:
        yield server


def once_per_stand_in() -> list[Any]:
    """All recipes; those whose stand-in an earlier one has are marked slow."""
    seen: set[str] = set()
    cases = []
    for name, path in RECIPES.items():
        made = stand_in(str(load(path).recipe.source.repository))
        cases.append(pytest.param(name, marks=pytest.mark.slow if made in seen else ()))
        seen.add(made)
    return cases


@pytest.mark.parametrize("name", once_per_stand_in())
def test_a_recipe_makes_a_proved_release(name: str, hub: HubServer, tmp_path: Path) -> None:
    release = run_recipe(name, tmp_path, overrides=["verify.level=weights", "golden=null", "package.bundle=false"])
    assert release.verdict == "pass", release.outputs
    repository = str(load(name).recipe.source.repository)
    commit = hub.snapshots[repository, "main"][0]
    assert release.commit == commit
    resolved = yaml.safe_load((release.folder / "recipe.yaml").read_text())
    assert resolved["source"]["revision"] == commit and resolved["source"]["sha256"] == release.sha256
    for output in release.outputs:
        metadata = GgufFile(release.folder / output.files[0]).metadata
        assert metadata["general.source.huggingface.repository"] == repository, output
    assert (release.folder / "manifest.json").is_file() and (release.folder / "README.md").is_file()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is(name: str) -> None:
    text, recipe = RECIPES[name].read_text(), load(RECIPES[name]).recipe
    repository = str(recipe.source.repository)
    assert RECIPES[name].stem == repository.replace("/", "-")
    assert recipe.source.url == f"https://huggingface.co/{repository}"
    assert recipe.is_pinned or "# not pinned: no network when written" in text
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    assert recipe.family in {None, *(family.name for family in families())}


def test_no_two_releases_have_the_same_name() -> None:
    names = [load(path).recipe.name for path in shipped().values()]
    assert len(set(names)) == len(names)


def test_check_reads_all_of_them_and_warns() -> None:
    result = run("recipe", "check")
    assert result.exit_code == 0, result.output
    good = [line for line in result.stdout.splitlines() if line.endswith(": good")]
    [warned] = [line for line in result.stderr.splitlines() if "source.revision is 'main'" in line]
    assert len(good) == len(shipped()) and f" and {len(RECIPES) - 1} more: " in warned


def test_the_readme_lists_them() -> None:
    text = (REPOSITORY / "recipes" / "README.md").read_text()
    assert [name for name in shipped() if f"`{name}`" not in text] == []
