"""inspect takes what is on the Hub or at an address where it is: the same answers, by headers alone."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_gguf, split_gguf
from tests.make.families import Checkpoints
from tests.make.hub_server import HubServer
from tests.make.remote import serving
from tritpack.converter.convert import convert
from tritpack.converter.inspect.inputs import open_any
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.sources import hub, url_file
from tritpack.converter.sources.remote_gguf import RemoteGguf
from tritpack.formats import gguf_stream
from tritpack.formats.errors import IntegrityFailed, NetworkTrouble, TritpackError, Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.model_metadata import QUANTIZATION_KEY

pytest.importorskip("huggingface_hub")

ELSEWHERE = {"file", "files", "part", "place", "answers"}
"""Keys that say where a file is."""


@pytest.fixture(scope="module")
def repos(
    tiny_checkpoint: Path, online_checkpoint: Path, tiny_gguf: Path, checkpoints: Checkpoints,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:  # fmt: skip
    base = tmp_path_factory.mktemp("repositories")
    for name in ("one", "many/deep", "split", "foreign"):
        (base / name).mkdir(parents=True)
    shutil.copy(tiny_gguf, base / "one" / "model.gguf")
    convert(tiny_gguf, base / "many" / "a t2.gguf", outtype="t2")
    edited_gguf(tiny_gguf, base / "many" / "deep" / "b.gguf", metadata=lambda m: m.update({"general.name": "b"}))
    shutil.copy(online_checkpoint / "model.safetensors", base / "many" / "adapter.safetensors")
    split_gguf(tiny_gguf, base / "split", [0, 5, len(GgufFile(tiny_gguf).tensors)])
    # As the vendor's tools write it: nothing says that activations are floats, but scales that change within rows.
    convert(checkpoints("bonsai_mlx").folder, ours := base / "ours.gguf", outtype="pq2_0")
    edited_gguf(ours, base / "foreign" / "m.gguf", metadata=lambda m: m.__delitem__(QUANTIZATION_KEY))
    floats = base / "floats"
    floats.mkdir()
    values = np.random.default_rng(0).normal(0, 0.02, (512, 1024)).astype("<f2")
    data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
    names = [f"blk.{i}.ffn_up.weight" for i in range(30)]
    plans = [TensorPlan(name, (512, 1024), 1, data.size) for name in names]
    write_gguf(floats / "f16.gguf", {"general.architecture": "llama"}, plans, [[data]] * len(names))
    folders = {f"org/{name}": base / name for name in ("one", "many", "split", "foreign", "floats")}
    return {"org/tiny": tiny_checkpoint, "org/online": online_checkpoint, **folders}


@pytest.fixture
def server(repos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving(repos, tmp_path / "cache", monkeypatch) as running:
        yield running


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two results are equal but for where the files are."""
    for key in one.keys() - ELSEWHERE:
        assert _without_commands(one[key]) == _without_commands(other[key]), key


def _without_commands(value: Any) -> Any:
    """Verdicts of engines without the commands that name the file."""
    has = isinstance(value, list) and value and isinstance(value[0], dict) and "command" in value[0]
    return [{**row, "command": None} for row in value] if has else value


@pytest.mark.parametrize(
    ("argument", "file"),
    [
        ("org/one", "one/model.gguf"),
        ("hf:org/one@main", "one/model.gguf"),
        ("org/many/deep/b.gguf", "many/deep/b.gguf"),
        ("hf://org/many@main/a t2.gguf", "many/a t2.gguf"),
        ("https://huggingface.co/org/many/blob/main/deep/b.gguf", "many/deep/b.gguf"),
        ("https://huggingface.co/org/many/resolve/main/a%20t2.gguf?download=true", "many/a t2.gguf"),
        ("org/split", "split/m-00001-of-00002.gguf"),
        ("org/split/m-00001-of-00002.gguf", "split/m-00001-of-00002.gguf"),
        ("org/foreign", "foreign/m.gguf"),
    ],
)
def test_a_gguf_on_the_hub(argument: str, file: str, server: HubServer, repos: dict[str, Path], tmp_path: Path) -> None:
    name, _, rest = file.partition("/")
    local, remote = inspect(repos[f"org/{name}"] / rest), inspect(argument)
    same(local, remote)
    assert remote["file"] == argument and [Path(path).name for path in remote["files"]] == [
        Path(path).name for path in local["files"]
    ]
    assert all(path.startswith("org/") for path in remote["files"])
    assert remote["place"]["repository"] == f"org/{name}" and local["place"] is None
    assert f"The file is {remote['files'][0]} at commit " in remote["answers"]["from"]
    assert not list(tmp_path.rglob("*.gguf"))
    shown = run("inspect", argument)
    assert shown.exit_code == 0 and "a GGUF file" in shown.stdout


def test_only_headers_are_read(server: HubServer, repos: dict[str, Path]) -> None:
    path = repos["org/floats"] / "f16.gguf"
    assert path.stat().st_size > 30 << 20
    remote = inspect("org/floats")
    assert remote["ternarity"]["verdict"] == "ordinary" and remote["ternarity"]["read"] == 24
    assert f"(judged by some rows of 24 of {remote['ternarity']['linears']} linear layers)" in remote["answers"]["what"]
    assert server.sent < 3 << 20  # the first request, and eight rows of 24 tensors
    assert remote["nbytes"] == path.stat().st_size


def test_a_part_alone_says_what_it_holds(server: HubServer) -> None:
    result = run("inspect", "org/split/m-00002-of-00002.gguf")
    assert exit_code_of(result) == 3 and "part 2 of 2" in result.stdout


def test_several_files_are_named(server: HubServer) -> None:
    with pytest.raises(Unsupported, match=r"several GGUF files.*a t2.gguf, deep/b.gguf") as caught:
        inspect("org/many")
    assert "inspect also reads org/many/FILE" in str(caught.value.hint)
    shown = run("inspect", "org/many")
    assert shown.exit_code == 0 and "hf:org/many/a t2.gguf " in shown.stdout and "t2" in shown.stdout
    result = json.loads(run("inspect", "hf:org/many@main", "--json").stdout)
    assert [file["file"] for file in result["files"]] == ["hf:org/many@main/a t2.gguf", "hf:org/many@main/deep/b.gguf"]
    with pytest.raises(Unreadable, match=r"has no file deep/c.gguf") as missing:
        inspect("org/many/deep/c.gguf")
    assert "deep/b.gguf" in str(missing.value.hint)


@pytest.mark.parametrize("name", ["tiny", "online"])
def test_a_checkpoint_on_the_hub(name: str, server: HubServer, repos: dict[str, Path], tmp_path: Path) -> None:
    local, remote = inspect(repos[f"org/{name}"]), inspect(f"org/{name}")
    kept = {key: value for key, value in remote.items() if key not in ("ternarity", "name", "origin", "answers")}
    same(kept, local)
    assert remote["ternarity"]["verdict"] == local["ternarity"]["verdict"]
    assert not [path for path in (tmp_path / "cache").rglob("*.safetensors") if path.exists()]
    assert server.sent < repos[f"org/{name}"].joinpath("model.safetensors").stat().st_size / 2


def test_stats_download(server: HubServer, repos: dict[str, Path]) -> None:
    for argument, path in (("org/one", "one/model.gguf"), ("org/many/deep/b.gguf", "many/deep/b.gguf")):
        name, _, rest = path.partition("/")
        same(inspect(repos[f"org/{name}"] / rest, stats=True), inspect(argument, stats=True))
        server.requests.clear()
        same(inspect(repos[f"org/{name}"] / rest), inspect(argument))  # from the cache
        assert not [request for request in server.requests if request.elsewhere], argument


def test_offline_the_cache_is_used(server: HubServer) -> None:
    inspect("org/many/deep/b.gguf", stats=True)
    server.failures = [["/api/models", 503, 99]]
    assert inspect("org/many/deep/b.gguf")["kind"] == "gguf"
    with pytest.raises(NetworkTrouble):
        inspect("org/many/a t2.gguf")


# -- weight files ------------------------------------------------------------------------------------------------------


def test_a_weight_file(server: HubServer, repos: dict[str, Path], tmp_path: Path) -> None:
    whole = repos["org/online"] / "model.safetensors"
    assert inspect(whole)["kind"] == "checkpoint"  # all of the weights of its folder
    alone = Path(shutil.copy(whole, tmp_path / "x.safetensors"))
    for file in (str(alone), "org/many/adapter.safetensors", f"{server.url}/org/online/resolve/main/model.safetensors"):
        result = inspect(file)
        assert result["kind"] == "weights" and result["nbytes"] == whole.stat().st_size, file
        assert len(result["tensors"]) == len(inspect(whole)["tensors"]) and result["recognised"] is None, file
        assert result["ternarity"]["verdict"] == "ordinary" and result["damage"] == [], file  # nothing says BitNet
    shown = run("inspect", alone)
    assert shown.exit_code == 0 and "a weight file alone" in shown.stdout
    assert inspect(alone, stats=True)["ternarity"]["rows_read"] is None
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-1])
    assert exit_code_of(run("inspect", cut)) == 3
    assert exit_code_of(run("inspect", tmp_path / "none.safetensors")) == 3


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_a_gguf_at_an_address(server: HubServer, repos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_file, "FIRST_BYTES", 1000)  # several requests for one header
    monkeypatch.setattr(gguf_stream, "FIRST_READ", 4000)
    for name, rest in (("one", "model.gguf"), ("many", "a t2.gguf"), ("foreign", "m.gguf")):
        address = f"{server.url}/org/{name}/resolve/main/{rest.replace(' ', '%20')}"
        server.sent = 0
        result = inspect(address + "?signature=secret")
        same(inspect(repos[f"org/{name}"] / rest), result)
        assert result["files"] == [address], name
        assert server.sent < repos[f"org/{name}"].joinpath(rest).stat().st_size / 2, name
    assert {request.token for request in server.requests} == {None}


def test_addresses_that_cannot_be_read(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_file, "FIRST_BYTES", 1000)
    address = f"{server.url}/org/one/resolve/main/model.gguf"

    def refused(url: str, kind: type[TritpackError], words: str) -> TritpackError:
        with pytest.raises(kind, match=words) as caught:
            inspect(url)
        assert "secret" not in str(caught.value)
        return caught.value

    refused(f"{server.url}/org/one/resolve/main/other.gguf?secret", Unreadable, r"is not there \(HTTP 404\)")
    refused("http://127.0.0.1:9/model.gguf", NetworkTrouble, "the connection failed")
    refused("http://me:secret@127.0.0.1/m.gguf", UsageError, "with a name or password is not read")
    with pytest.raises(UsageError, match="these stay on the server"):
        inspect(address, stats=True)
    server.failures = [["/org/one/", 503, 1]]
    refused(address, NetworkTrouble, "answered HTTP 503")
    server.whole.add("model.gguf")
    error = refused(address, NetworkTrouble, r"does not send parts of the file \(HTTP 200")
    assert error.hint == "fetch the whole file, and give its path"
    server.whole.clear()
    server.etags["model.gguf"] = ['"a"', '"b"']
    refused(address, IntegrityFailed, "was changed on the server")
    server.etags.clear()
    server.cuts["model.gguf"] = [100] * 9  # a client may ask again by itself
    refused(address, NetworkTrouble, r"ended after 100 of 1000 bytes|connection")
    server.cuts.clear()
    monkeypatch.setattr(url_file, "MOST_BYTES", 3000)
    refused(address, Unreadable, "its headers take more than")


def test_what_a_server_sends_is_not_trusted(server: HubServer, repos: dict[str, Path]) -> None:
    stored = server.snapshots["org/one", "main"][1]["model.gguf"]
    address, whole = f"{server.url}/org/one/resolve/main/model.gguf", stored.data
    for data, words in (
        (b"GGUF" + bytes(8), "too few for a GGUF header"),
        (whole[:4] + b"\x09" + whole[5:], "unknown GGUF version"),
        (whole[:5000], "ends|claims|past"),
        (whole[:-4000], "needs"),
        (b"<html>" + bytes(4000), "is a web page: the download failed"),
    ):
        stored.data = data
        with pytest.raises(Unreadable, match=words) as caught:
            inspect(address)
        assert str(caught.value).startswith(address), words


def test_names_sizes_and_redirects_of_a_server_are_not_trusted(tiny_gguf: Path) -> None:
    whole = tiny_gguf.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = {"/loop.gguf": "/loop.gguf", "/local.gguf": "file:///etc/hostname?secret"}.get(self.path)
            if target:
                self.send_response(302)
                self.send_header("Location", target)
                self.end_headers()
                return
            first, last = (int(number) for number in self.headers["Range"].removeprefix("bytes=").split("-"))
            part = whole[first : last + 1]
            size = {"/huge.gguf": 10**30, "/large.gguf": 2**62}.get(self.path, len(whole))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{size}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            address = f"http://127.0.0.1:{running.server_port}"
            for name in ("nul%00.gguf", "", "..", "a/%2e%2e", "a%2Fb.gguf", "x" * 300 + ".gguf"):
                same(inspect(tiny_gguf), inspect(f"{address}/{name}"))
            for name, kind, words in (
                ("huge.gguf", Unreadable, "more than 4 TiB"),
                ("large.gguf", Unreadable, "more than 4 TiB"),
                ("loop.gguf", NetworkTrouble, "redirects without end"),
                ("local.gguf", NetworkTrouble, "redirects to an address of file:, which is not read"),
            ):
                with pytest.raises(kind, match=words) as caught:
                    inspect(f"{address}/{name}")
                assert "secret" not in str(caught.value), name
        finally:
            running.shutdown()
            thread.join()
    with pytest.raises(UsageError, match="is not an address"):
        inspect("http://[::1/m.gguf")


def test_metadata_of_what_is_not_here(server: HubServer, repos: dict[str, Path]) -> None:
    assert run("metadata", "get", "org/many/deep/b.gguf", "general.name").stdout == "b\n"
    for command in (("rm", "general.name"), ("fix",)):
        result = run("metadata", command[0], "org/one", *command[1:])
        assert exit_code_of(result) == 2 and "only those can be changed" in str(result.exception), command
    assert exit_code_of(run("metadata", "get", repos["org/tiny"])) == 2


def test_tensors_are_fetched_when_they_are_asked_for(server: HubServer, repos: dict[str, Path]) -> None:
    remote, local = open_any("org/many/a t2.gguf"), GgufFile(repos["org/many"] / "a t2.gguf")
    assert isinstance(remote, RemoteGguf)
    for name in ("output_norm.weight", "blk.0.attn_q.weight"):
        info = local.tensors[name]
        assert remote.tensors[name] == info and np.array_equal(remote.bytes_of(info), local.bytes_of(info)), name
    large = open_any("org/floats")
    assert isinstance(large, RemoteGguf)
    assert large.bytes_of(large.tensors["blk.0.ffn_up.weight"]).size == 1 << 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name/f.gguf", ("org/name", None, "f.gguf")),
        ("hf:org/name@v1/d/f.safetensors", ("org/name", "v1", "d/f.safetensors")),
        ("https://huggingface.co/org/name/resolve/refs%2Fpr%2F1/f.gguf", ("org/name", "refs/pr/1", "f.gguf")),
        ("https://huggingface.co/org/name/raw/main/f.txt", None),
        ("org/name", None),
        ("org/f.gguf", None),
        ("org/name/../f.gguf", None),
        ("./org/name/f.gguf", None),
        ("https://example.org/org/name/resolve/main/f.gguf", None),
    ],
)
def test_names_of_files_on_the_hub(text: str, expected: tuple[str, str | None, str] | None) -> None:
    assert hub.parse_file(text) == expected
