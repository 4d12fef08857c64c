"""Publishing with the real client to a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import exit_code_of, run
from tests.converter.release.test_check import change_last_byte
from tests.make.hub_server import HubServer
from tritpack.converter.release import publish as module
from tritpack.converter.release.bundle.create import create_bundle
from tritpack.converter.release.manifest import NAME


@pytest.fixture(autouse=True)
def no_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files go by LFS: a server for Xet is not here."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_sent_unless_asked_for(release: Path, server: HubServer) -> None:
    result = run("publish", release, "org/new")
    assert exit_code_of(result) == 0 and server.requests == [] and "would upload 5 files" in result.output
    document = json.loads(run("publish", release, "org/new", "--json").stdout)
    assert document["uploaded"] is False and document["commit"] is None
    sizes = {name: len(data) for name, data in contents(release).items()}
    assert {file["path"]: file["nbytes"] for file in document["files"]} == sizes
    assert document["nbytes"] == sum(sizes.values()) and document["schema"] == "tritpack.publish/1"


@pytest.mark.parametrize("kind", ["folder", "bundle"])
def test_all_files_are_in_one_commit(kind: str, release: Path, server: HubServer) -> None:
    source = release
    if kind == "bundle":
        source = release.with_name("m.tar.zst")
        create_bundle(release, source)
    result = run("publish", source, "org/new", "--upload", "-q")
    assert exit_code_of(result) == 0, result.exception
    assert server.uploads.branches["org/new"] == {"main": contents(release)}
    assert "org/new" in server.uploads.public and f"{server.url}/org/new/commit/" in result.output
    assert sum("/commit/" in request.path for request in server.requests) == 1
    assert "hf_secret" not in result.output + result.stderr
    assert {request.token for request in server.requests if request.method == "PUT"} == {None}


def test_a_branch_of_a_private_repository(release: Path, server: HubServer) -> None:
    arguments = ("publish", release, "org/new", "--upload", "--private", "--revision", "v1", "--json", "-q")
    for attempt in range(2):
        result = run(*arguments)
        assert exit_code_of(result) == 0, (attempt, result.exception)
        assert json.loads(result.stdout)["revision"] == "v1", attempt
    assert server.uploads.branches["org/new"] == {"main": {}, "v1": contents(release)}
    assert "org/new" not in server.uploads.public


def test_a_public_repository_is_not_taken_for_a_private_one(release: Path, server: HubServer) -> None:
    server.uploads.branches["org/new"] = {"main": {}}
    server.uploads.public.add("org/new")
    result = run("publish", release, "org/new", "--upload", "--private", "-q")
    assert exit_code_of(result) == 2 and "is public" in str(result.exception)
    assert server.uploads.branches["org/new"] == {"main": {}} and server.uploads.sent == []


def test_what_was_sent_is_not_sent_again(release: Path, server: HubServer) -> None:
    large = hashlib.sha256((release / "m.gguf").read_bytes()).hexdigest()
    server.failures.append([f"/upload/{large}", 400, 1])
    result = run("publish", release, "org/new", "--upload", "-q")
    assert exit_code_of(result) == 8 and str(result.exception) == "org/new: 127.0.0.1 answered HTTP 400"
    assert server.uploads.branches["org/new"] == {"main": {}} and len(server.uploads.sent) == 1
    assert exit_code_of(run("publish", release, "org/new", "--upload", "-q")) == 0
    assert server.uploads.branches["org/new"] == {"main": contents(release)}
    assert len(server.uploads.sent) == len(set(server.uploads.sent)) == 2


@pytest.mark.parametrize("name", ["m.gguf", "README.md", NAME])
def test_a_release_that_was_changed_is_not_published(name: str, release: Path, server: HubServer) -> None:
    change_last_byte(release / name)
    for arguments in ((), ("--upload",)):
        result = run("publish", release, "org/new", *arguments, "-q")
        assert exit_code_of(result) in (3, 6) and name in str(result.exception), arguments
    assert server.requests == []


@pytest.mark.parametrize("name", ["m.gguf", NAME])
def test_a_file_that_is_changed_after_the_check_is_not_sent(
    name: str, release: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = module._create

    def change(api: Any, publication: module.Publication) -> None:
        create(api, publication)
        change_last_byte(release / name)

    monkeypatch.setattr(module, "_create", change)
    result = run("publish", release, "org/new", "--upload", "-q")
    assert exit_code_of(result) == 6 and f"{name!r} was changed" in str(result.exception)
    assert not any("/commit/" in request.path for request in server.requests)


def test_errors_of_the_hub_are_sentences(release: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.uploads.writers = {"another"}
    result = run("publish", release, "org/new", "--upload", "-q")
    assert exit_code_of(result) == 3 and "refused access (HTTP 403)" in str(result.exception)
    assert "hf_secret" not in str(result.exception)
    server.uploads.writers = {"hf_secret"}
    server.uploads.refuse_card = '"license" must be one of [...]'
    result = run("publish", release, "org/new", "--upload", "-q")
    assert exit_code_of(result) == 1 and str(result.exception).startswith("README.md: the Hub does not accept")
    server.uploads.refuse_card = None
    server.failures.append(["/commit/", 503, 99])
    result = run("publish", release, "org/new", "--upload", "-q")
    assert exit_code_of(result) == 8 and "HTTP 503" in str(result.exception)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = run("publish", release, "org/new", "--upload", "-q")
    assert exit_code_of(result) == 2 and "HF_HUB_OFFLINE" in str(result.exception)


@pytest.mark.parametrize("name", ["new", "org/new/more", "org/new@main", "../x", "org/--", ""])
def test_names_that_no_repository_has(name: str, tmp_path: Path) -> None:
    assert exit_code_of(run("publish", tmp_path, name)) == 2


def test_a_folder_without_a_manifest(release: Path) -> None:
    (release / NAME).unlink()
    result = run("publish", release, "org/new")
    assert exit_code_of(result) == 3 and NAME in str(result.exception)
    assert exit_code_of(run("publish", release, "org/new", "--revision", "a..b")) == 2
    shutil.rmtree(release)
    assert exit_code_of(run("publish", release, "org/new")) == 3
