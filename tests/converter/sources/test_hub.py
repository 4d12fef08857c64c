"""The Hub as a source: the real client, in a process of its own, against a hub of ours on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.make.checkpoints import read_safetensors, write_safetensors
from tests.make.hub_server import HubServer
from tritpack.converter.sources import hub
from tritpack.formats.errors import MissingRequirement, UsageError
from tritpack.formats.gguf_reader import GgufFile

pytest.importorskip("huggingface_hub")

SMALL = ["config.json", "generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
FETCH = """
import sys
from tritpack.converter.sources import hub, hub_errors
from tritpack.formats.errors import TritpackError
hub_errors.PAUSES = (0.01, 0.02, 0.03, 0.04, 0.05)
try:
    print(hub.download(*sys.argv[1:]))
except TritpackError as error:
    print(f"error: {error}\\nhint: {error.hint}", file=sys.stderr)
    sys.exit(error.exit_code)
"""
CONVERT = "from tritpack.converter.cli.main import main; main()"


class Home:
    """A user with an empty cache, whose HF_ENDPOINT is a given hub."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.cache = folder / "home" / "hub"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):  # the hub is on this machine
            inherited.pop(name, None)
            inherited.pop(name.lower(), None)
        self.environment = {
            **inherited,
            "HF_HOME": str(folder / "home"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(REPOSITORY),
        }

    def python(self, program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in result.stderr, result.stderr
        return result

    def fetch(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.python(FETCH, *arguments, **environment)

    def fetched(self, *arguments: str, **environment: str) -> Path:
        result = self.fetch(*arguments, **environment)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        (line,) = result.stdout.splitlines()
        return Path(line)

    def blobs(self) -> list[Path]:
        return sorted(self.cache.glob("models--*/blobs/*"))


@pytest.fixture(scope="module")
def repos(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | dict[str, Path]]:
    """Repositories of every kind. `org/tiny` holds everything that must not be fetched, and another revision."""
    base = tmp_path_factory.mktemp("repositories")
    main = base / "main"
    shutil.copytree(tiny_checkpoint, main)
    (main / "1_Pooling").mkdir()
    (main / "1_Pooling" / "config.json").write_text("{}")
    (main / "original").mkdir()
    for name in ("original/consolidated.safetensors", "consolidated.00.safetensors", "adapter_model.safetensors"):
        (main / name).write_bytes(b"not wanted")
    for name in ("pytorch_model.bin", "model-00001-of-00002.safetensors", "picture.png", "notes.md", "run.py"):
        (main / name).write_bytes(b"not wanted")

    other = base / "other"
    shutil.copytree(tiny_checkpoint, other)
    (other / "generation_config.json").write_text("{}")

    sharded = base / "sharded"
    shutil.copytree(tiny_checkpoint, sharded)
    tensors = read_safetensors(sharded / "model.safetensors")
    (sharded / "model.safetensors").unlink()
    weight_map: dict[str, str] = {}
    for number, names in enumerate((list(tensors)[::2], list(tensors)[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        write_safetensors(sharded / file, {name: tensors[name] for name in names})
        weight_map |= dict.fromkeys(names, file)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (sharded / "model-00003-of-00003.safetensors").write_bytes(b"stray")

    hostile = base / "hostile"
    hostile.mkdir()
    (hostile / "config.json").write_text("{}")
    (hostile / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../../x.safetensors"}}')

    def folder(name: str, *files: str) -> Path:
        (base / name).mkdir()
        for file in files:
            (base / name / file).write_bytes(b"GGUF" + file.encode())
        return base / name

    return {
        "org/tiny": {"main": main, "refs/pr/1": other},
        "org/sharded": sharded,
        "org/hostile": hostile,
        "org/pickle": folder("pickle", "config.json", "pytorch_model.bin"),
        "org/adapter": folder("adapter", "adapter_config.json", "adapter_model.safetensors", "README.md"),
        "org/packed": folder("packed", "README.md", "ggml-model-i2_s.gguf", "config.json"),
        "org/many": folder("many", "a.gguf", "b.gguf"),
        "org/split": folder("split", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"),
        "org/torn": folder("torn", "m-00001-of-00003.gguf", "m-00002-of-00003.gguf"),
        "org/empty": folder("empty", "README.md"),
    }


@pytest.fixture
def server(repos: dict[str, Path | dict[str, Path]]) -> Iterator[HubServer]:
    with HubServer(repos) as running:
        yield running


@pytest.fixture
def home(server: HubServer, tmp_path: Path) -> Home:
    return Home(tmp_path, server.url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", ("org/name", None)),
        ("microsoft/bitnet-b1.58-2B-4T-gguf", ("microsoft/bitnet-b1.58-2B-4T-gguf", None)),
        ("org/name@v1.0", ("org/name", "v1.0")),
        ("org/name@refs/pr/1", ("org/name", "refs/pr/1")),
        ("org/name@" + "a1" * 20, ("org/name", "a1" * 20)),
        ("hf:org/name@main", ("org/name", "main")),
        ("hf://org/name", ("org/name", None)),
        ("https://huggingface.co/org/name", ("org/name", None)),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F1", ("org/name", "refs/pr/1")),
        *[(text, None) for text in ("name", "/org/name", "./name", "~/name", "../name", "a/b/c", "org/name/", "org/")],
        *[(text, None) for text in ("org/model.gguf", "org/model.safetensors", "org/a b", "org/näme", "org/a..b", "")],
        *[(text, None) for text in ("org/name@", "org/name@../x", "org/name@-x", "org/name@a b", "org/a--b", "a\\b/c")],
        ("https://huggingface.co/datasets/org/name", None),
        ("https://elsewhere.example/org/name", None),
    ],
)
def test_what_a_reference_looks_like(text: str, expected: tuple[str, str | None] | None) -> None:
    assert hub.parse_reference(text) == expected


def test_it_is_imported_only_when_needed(monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    program = "import sys, tritpack.converter.sources.hub; print('huggingface_hub' in sys.modules)"
    assert home.python(program).stdout == "False\n"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingRequirement, match="huggingface_hub"):
        hub.download("org/name")
    with pytest.raises(UsageError):
        hub.download("org/name", "../../elsewhere")


def test_only_what_is_needed_is_fetched_and_only_once(server: HubServer, home: Home, tiny_checkpoint: Path) -> None:
    folder = home.fetched("org/tiny", HF_TOKEN="hf_secret")
    wanted = sorted(["1_Pooling/config.json", *SMALL])
    assert server.files_asked() == [*wanted, "model.safetensors"]
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == sorted(
        [*wanted, "model.safetensors"]
    )
    for name in [*SMALL, "model.safetensors"]:
        assert (folder / name).read_bytes() == (tiny_checkpoint / name).read_bytes(), name
    # Nothing else is asked for: the client itself would fetch a list of AI agents.
    assert all(
        request.path.startswith(("/org/tiny/", "/api/models/org/tiny/")) or request.elsewhere
        for request in server.requests
    )
    # The token goes to the hub and to nobody else.
    assert {request.token for request in server.requests if request.path.startswith("/org/")} == {"hf_secret"}
    assert {request.token for request in server.requests if request.elsewhere} == {None}

    server.requests.clear()
    assert home.fetched("org/tiny") == folder
    assert server.files_asked() == []


def test_a_revision(server: HubServer, home: Home) -> None:
    folder = home.fetched("org/tiny", "refs/pr/1")
    assert (folder / "generation_config.json").read_text() == "{}"
    assert folder.name == server.snapshots["org/tiny", "refs/pr/1"][0]
    assert home.fetched("org/tiny", folder.name) == folder  # by its hash


def test_shards_are_those_of_the_index(server: HubServer, home: Home) -> None:
    home.fetched("org/sharded")
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    assert server.files_asked() == ["model.safetensors.index.json", *SMALL, *shards]


def test_an_index_cannot_name_what_is_not_there(server: HubServer, home: Home) -> None:
    result = home.fetch("org/hostile")
    assert result.returncode == 3 and "'../../../x.safetensors'" in result.stderr
    assert server.files_asked() == ["model.safetensors.index.json"]


@pytest.mark.parametrize("cut", [200_000, -200_000], ids=["closed", "reset"])
def test_a_cut_download_goes_on_where_it_stopped(
    server: HubServer, home: Home, tiny_checkpoint: Path, cut: int
) -> None:
    server.cuts = {"model.safetensors": [abs(cut), cut, cut], "tokenizer.json": [1000]}
    result = home.fetch("org/tiny")
    assert result.returncode == 0, result.stderr
    assert not server.cuts["model.safetensors"]
    starts = [int((sent or "bytes=0-")[6:-1]) for sent in server.sent_ranges("model.safetensors")]
    assert starts[:2] == [0, 200_000] and starts == sorted(starts) and len(starts) == 4
    folder = Path(result.stdout.strip())
    for name in ("model.safetensors", "tokenizer.json"):
        assert (folder / name).read_bytes() == (tiny_checkpoint / name).read_bytes(), name


def test_a_run_that_gave_up_leaves_its_bytes_to_the_next(server: HubServer, home: Home) -> None:
    server.cuts = {"model.safetensors": [50_000, *[0] * 5]}
    result = home.fetch("org/tiny")
    assert result.returncode == 8 and "connection" in result.stderr and "continues where it stopped" in result.stderr
    server.requests.clear()
    home.fetched("org/tiny")
    assert server.sent_ranges("model.safetensors") == ["bytes=50000-"]
    assert not list(home.cache.rglob("*.incomplete"))


@pytest.mark.parametrize(
    ("name", "no_links"), [("model.safetensors", "0"), ("tokenizer.json", "0"), ("model.safetensors", "1")]
)
def test_a_wrong_hash_is_refused_and_fetched_again(server: HubServer, home: Home, name: str, no_links: str) -> None:
    server.corrupt = {name}
    result = home.fetch("org/tiny", HF_HUB_DISABLE_SYMLINKS=no_links)
    assert result.returncode == 6, result.stderr
    stored = server.snapshots["org/tiny", "main"][1][name]
    assert name in result.stderr and (stored.sha256 in result.stderr or stored.git in result.stderr)
    server.corrupt = set()
    folder = home.fetched("org/tiny", HF_HUB_DISABLE_SYMLINKS=no_links)
    assert (folder / name).read_bytes() == stored.data


def test_what_rots_in_the_cache_is_found(home: Home) -> None:
    folder = home.fetched("org/tiny")
    (folder / "model.safetensors").resolve().write_bytes(b"rotten")
    assert home.fetch("org/tiny", HF_HUB_OFFLINE="1").returncode == 6
    assert home.fetch("org/tiny", HF_HUB_OFFLINE="1").returncode == 3  # gone, and not to be had
    assert home.fetched("org/tiny") == folder


def test_a_gated_repository(server: HubServer, home: Home) -> None:
    server.gated["org/tiny"] = "hf_good"
    for environment in ({}, {"HF_TOKEN": "hf_other"}):
        result = home.fetch("org/tiny", **environment)
        assert result.returncode == 3 and "is gated" in result.stderr and "hf auth login" in result.stderr, environment
        assert "hf_other" not in result.stderr, environment
    home.fetched("org/tiny", HF_TOKEN="hf_good")


def test_what_is_not_there(server: HubServer, home: Home) -> None:
    missing = home.fetch("org/nothing")
    assert missing.returncode == 3 and "no such repository" in missing.stderr and "private" in missing.stderr
    revision = home.fetch("org/tiny", "nowhere")
    assert revision.returncode == 3 and "has no revision 'nowhere'" in revision.stderr
    server.private["org/tiny"] = "hf_good"
    assert "no such repository" in home.fetch("org/tiny").stderr
    home.fetched("org/tiny", HF_TOKEN="hf_good")


def test_offline(server: HubServer, home: Home) -> None:
    result = home.fetch("org/tiny", HF_HUB_OFFLINE="1")
    assert result.returncode == 3 and "HF_HUB_OFFLINE" in result.stderr
    server.cuts = {"model.safetensors": [0] * 6}
    assert home.fetch("org/tiny").returncode == 8
    result = home.fetch("org/tiny", HF_HUB_OFFLINE="1")  # half a snapshot is none
    assert result.returncode == 3 and "HF_HUB_OFFLINE" in result.stderr
    folder = home.fetched("org/tiny")
    server.requests.clear()
    assert home.fetched("org/tiny", HF_HUB_OFFLINE="1") == folder
    assert not server.requests


def test_nobody_answers(server: HubServer, home: Home) -> None:
    folder = home.fetched("org/tiny")
    server.__exit__(None, None, None)
    result = home.fetch("org/tiny")  # the cache serves, and says so
    assert Path(result.stdout.strip()) == folder and folder.name in result.stderr
    result = home.fetch("org/sharded")
    assert result.returncode == 8 and "connection" in result.stderr and "HF_ENDPOINT" in result.stderr


def test_a_pickle_is_refused_before_it_is_fetched(server: HubServer, home: Home) -> None:
    result = home.fetch("org/pickle")
    assert result.returncode == 4 and "pytorch_model.bin" in result.stderr and "run code" in result.stderr
    assert server.files_asked() == [] and home.blobs() == []
    adapter = home.fetch("org/adapter")
    assert adapter.returncode == 4 and "is a LoRA adapter (adapter_config.json)" in adapter.stderr
    assert server.files_asked() == []


def test_a_repository_of_gguf_files(server: HubServer, home: Home) -> None:
    path = home.fetched("org/packed")
    assert path.name == "ggml-model-i2_s.gguf" and path.read_bytes().startswith(b"GGUF")
    assert server.files_asked() == ["ggml-model-i2_s.gguf"]
    assert home.fetched("org/packed", HF_HUB_OFFLINE="1") == path
    result = home.fetch("org/many")
    assert result.returncode == 4 and "a.gguf, b.gguf" in result.stderr
    assert home.fetch("org/empty").returncode == 3


def test_a_repository_of_a_split_gguf(server: HubServer, home: Home) -> None:
    path = home.fetched("org/split")
    assert path.name == "m-00001-of-00002.gguf" and (path.parent / "m-00002-of-00002.gguf").is_file()
    assert home.fetched("org/split", HF_HUB_OFFLINE="1") == path
    assert home.fetch("org/torn").returncode == 4


@pytest.mark.parametrize("where", ["/api/models", "/org/tiny/resolve", ""])
def test_a_hub_in_trouble(server: HubServer, home: Home, where: str) -> None:
    if where:
        large = next(sha256 for sha256, (name, _) in server.large.items() if name == "model.safetensors")
        server.failures = [[where if where != "/org/tiny/resolve" else large, 503, 2]]
        assert home.fetch("org/tiny").returncode == 0
        assert server.failures[0][2] == 0
    else:
        server.failures = [["/api/models", 500, 99]]
        result = home.fetch("org/tiny")
        assert result.returncode == 8 and "HTTP 500" in result.stderr
        server.failures = [["/api/models", 429, 99]]
        result = home.fetch("org/tiny")
        assert result.returncode == 8 and "429" in result.stderr


def test_something_that_is_no_hub(server: HubServer, home: Home) -> None:
    server.failures = [["/api/models", 200, 99]]
    result = home.fetch("org/tiny")
    assert result.returncode == 8 and "does not answer as a Hub does" in result.stderr


IMPATIENT = "from tritpack.converter.sources import hub_transfer; hub_transfer.PATIENCE = 1.0\n"


@pytest.mark.parametrize("part", ["/api/models", "config.json", "model.safetensors"])
def test_a_server_that_sends_a_byte_now_and_then(server: HubServer, home: Home, part: str) -> None:
    server.trickle.add(part)
    result = home.python(IMPATIENT + FETCH, "org/tiny")
    assert result.returncode == 8 and "no progress in 1 seconds" in result.stderr and "org/tiny" in result.stderr
    server.trickle.clear()
    assert home.fetch("org/tiny").returncode == 0


def test_a_server_that_is_silent(server: HubServer, home: Home) -> None:
    server.silent.add("/api/models")
    result = home.python(IMPATIENT + FETCH, "org/tiny", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert result.returncode == 8 and "org/tiny" in result.stderr
    assert len([request for request in server.requests if request.path.startswith("/api/models")]) == 1


@pytest.mark.parametrize(("part", "code"), [("/api/models", 8), ("config.json", 6), ("model.safetensors", 6)])
def test_an_answer_without_end(server: HubServer, home: Home, part: str, code: int) -> None:
    server.endless.add(part)
    result = home.fetch("org/tiny")
    assert result.returncode == code, result.stderr
    assert sum(path.stat().st_size for path in home.cache.rglob("*") if path.is_file()) < 32 << 20
    server.endless.clear()
    assert home.fetch("org/tiny").returncode == 0


@pytest.mark.parametrize("part", ["", "config.json"])
def test_a_mirror_that_lists_names_alone(server: HubServer, home: Home, part: str) -> None:
    server.plain = True
    server.trickle |= {part} if part else set()
    result = home.python(IMPATIENT + FETCH, "org/tiny")
    assert result.returncode == (8 if part else 0), result.stderr
    assert not part or "no progress in 1 seconds" in result.stderr


@pytest.mark.parametrize("name", ["../../../../../victim.gguf", "{home}/victim.gguf", "a\0b.gguf", "..\\victim.gguf"])
def test_a_listing_of_names_outside_the_repository(server: HubServer, home: Home, name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim.gguf"
    victim.write_bytes(b"precious")
    folder = home.cache / "models--org--packed" / "snapshots" / server.snapshots["org/packed", "main"][0]
    folder.mkdir(parents=True)
    server.names["ggml-model-i2_s.gguf"] = name.format(home=tmp_path)
    result = home.fetch("org/packed")
    assert result.returncode == 8 and "it lists" in result.stderr and victim.read_bytes() == b"precious"


def test_a_part_of_the_cache_may_be_on_another_disk(home: Home, tmp_path: Path) -> None:
    folder = home.fetched("org/tiny")
    storage = folder.parent.parent
    shutil.move(storage / "blobs", tmp_path / "disk")
    (storage / "blobs").symlink_to(tmp_path / "disk")
    assert home.fetched("org/tiny") == folder


def test_a_listing_of_impossible_sizes(server: HubServer, home: Home) -> None:
    server.sizes["config.json"] = 1 << 40
    result = home.fetch("org/tiny")
    assert result.returncode == 8 and f"config.json is listed with {1 << 40} bytes" in result.stderr


def test_a_cache_that_is_only_read(server: HubServer, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is complete needs a lock, a folder or a note. (root can write everywhere, so writing raises.)"""
    folder = home.fetched("org/tiny")
    refuse = """
import errno, os, pathlib
def refuse(*args, **options):
    raise OSError(errno.EROFS, "Read-only file system", str(args[0]))
real = os.open
def opening(path, flags, *rest, **options):
    return refuse(path) if flags & (os.O_WRONLY | os.O_RDWR) else real(path, flags, *rest, **options)
os.open = opening
os.mkdir = os.replace = os.unlink = os.symlink = pathlib.Path.write_text = pathlib.Path.touch = refuse
"""
    result = home.python(refuse + FETCH, "org/tiny")
    assert result.returncode == 0 and Path(result.stdout.strip()) == folder, result.stderr
    (home.cache / "models--org--tiny" / "refs" / "main").unlink()
    assert home.python(refuse + FETCH, "org/tiny").returncode == 0
    empty = home.python(refuse + FETCH, "org/sharded")
    assert empty.returncode == 5 and "a folder with space that can be written" in empty.stderr


def test_a_link_out_of_the_cache_is_not_followed(home: Home) -> None:
    folder = home.fetched("org/tiny")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc/passwd")
    result = home.fetch("org/tiny")
    assert result.returncode == 6 and "is a link out of it, to /etc/passwd" in result.stderr
    assert home.fetched("org/tiny") == folder and (folder / "config.json").resolve().is_relative_to(home.cache)


def test_a_full_disk(home: Home) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
    result = home.python(limit + FETCH, "org/tiny")
    assert result.returncode == 5 and "cannot be written" in result.stderr
    home.fetched("org/tiny")


def test_two_at_once(server: HubServer, home: Home) -> None:
    command = [sys.executable, "-c", FETCH, "org/tiny"]
    runs = [subprocess.Popen(command, env=home.environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {run.communicate(timeout=60)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0] and len(outputs) == 1
    assert len(server.sent_ranges("model.safetensors")) == 1


# End to end: the command line takes a reference where it takes a folder.


def convert(home: Home, output: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return home.python(CONVERT, "convert", *arguments, "-o", str(output), **environment)


def test_convert_takes_a_reference(home: Home, tmp_path: Path, tiny_gguf: Path) -> None:
    result = convert(home, tmp_path / "out.gguf", "org/tiny")
    assert result.returncode == 0, result.stderr
    converted, expected = GgufFile(tmp_path / "out.gguf"), GgufFile(tiny_gguf)
    for name, info in expected.tensors.items():
        assert bytes(converted.bytes_of(converted.tensors[name])) == bytes(expected.bytes_of(info)), name
    assert converted.metadata["general.name"] == "tiny"
    assert convert(home, tmp_path / "offline.gguf", "org/tiny", HF_HUB_OFFLINE="1").returncode == 0


@pytest.mark.parametrize("arguments", [("org/tiny@refs/pr/1",), ("org/tiny", "--revision", "refs/pr/1")])
def test_convert_takes_a_revision(server: HubServer, home: Home, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = convert(home, tmp_path / "out.gguf", *arguments)
    assert result.returncode == 0, result.stderr
    assert (home.cache / "models--org--tiny" / "snapshots" / server.snapshots["org/tiny", "refs/pr/1"][0]).is_dir()


def test_convert_ends_with_the_right_code(server: HubServer, home: Home, tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"
    offline = convert(home, output, "org/tiny", HF_HUB_OFFLINE="1")
    assert offline.returncode == 3 and "HF_HUB_OFFLINE" in offline.stderr
    server.gated["org/tiny"] = "hf_good"
    gated = convert(home, output, "org/tiny")
    assert gated.returncode == 3 and "is gated" in gated.stderr
    server.corrupt = {"model.safetensors"}
    corrupt = convert(home, output, "org/tiny", HF_TOKEN="hf_good")
    assert corrupt.returncode == 6 and "model.safetensors" in corrupt.stderr
    pickle = convert(home, output, "org/pickle")
    assert pickle.returncode == 4 and "pickle" in pickle.stderr
    missing = convert(home, output, "org/nothing")
    assert missing.returncode == 3 and "no such repository" in missing.stderr
    assert not output.exists()
    server.corrupt = set()
    assert convert(home, output, "org/tiny", HF_TOKEN="hf_good").returncode == 0
