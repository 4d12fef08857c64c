"""The folder of `tritpack web`: its files, and what is refused. What runs in it is tested in test_browser.py."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import json
import socket
import urllib.request
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import KEYS, edited_gguf
from tritpack.converter.convert import convert
from tritpack.converter.repack import repack
from tritpack.converter.version import VERSION
from tritpack.converter.web import assets, manifest, server
from tritpack.converter.web.web import web
from tritpack.formats.errors import MissingRequirement, TritpackError, Unsupported, UsageError, WriteFailed
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.runtime.abi import ABI_VERSION, LayerStruct, TensorStruct
from tritpack.runtime.model import Model
from tritpack.runtime.tokenizer import KEY_SPLIT_SPECIALS


@pytest.fixture(autouse=True)
def built(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine that nothing runs."""
    folder = tmp_path / "built"
    folder.mkdir()
    for name in assets.ENGINE:
        (folder / name).write_text(name)
    (folder / "abi").write_text(f"{ABI_VERSION}\n")
    monkeypatch.setattr(assets, "BUILT", folder)
    return folder


def describe(folder: Path) -> dict:
    return json.loads((folder / "model.json").read_text("utf-8"))


def joined(folder: Path) -> bytes:
    parts = describe(folder)["parts"]
    for part in parts:
        data = (folder / part["url"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (part["size"], part["sha256"]), part["url"]
    return b"".join((folder / part["url"]).read_bytes() for part in parts)


def test_the_parts_are_the_file_and_every_tensor_lies_where_the_structs_say(tiny_gguf: Path, tmp_path: Path) -> None:
    result = web(tiny_gguf, tmp_path / "site", part_size=10_000)
    about, data = describe(result.path), joined(result.path)
    assert result.parts == len(about["parts"]) > 3 and max(part["size"] for part in about["parts"]) == 10_000
    assert data[: tiny_gguf.stat().st_size] == tiny_gguf.read_bytes()
    assert about["file"]["sha256"] == result.sha256 == hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()
    with Model(tiny_gguf) as model:
        tensors = model.c_model.tensors
        layers = (LayerStruct * model.spec.layers).from_buffer_copy(base64.b64decode(about["structs"]["layers"]))
        for name in ("attn_q", "ffn_down", "attn_norm"):
            struct, tensor = getattr(layers[1], name), tensors[f"blk.1.{name}.weight"]
            assert struct.data % 4 == 0, name
            assert data[struct.data : struct.data + struct.nbytes] == tensor.data.tobytes(), name
        ends = base64.b64decode(about["structs"]["ends"])
        assert len(ends) == 3 * ctypes.sizeof(TensorStruct)
        embedding, stored = TensorStruct.from_buffer_copy(ends), tensors["token_embd.weight"].data.tobytes()
        assert data[embedding.data : embedding.data + embedding.nbytes] == stored


def test_the_golden_prompt_is_what_the_library_computes(tiny_gguf: Path, tmp_path: Path) -> None:
    web(tiny_gguf, tmp_path / "site", kv_type="i16")
    golden = describe(tmp_path / "site")["golden"]
    with Model(tiny_gguf, kv_type="i16") as model:
        assert golden["prompt"] == model.tokenize(golden["text"])
        ids = golden["prompt"] + golden["greedy"]
        logits = model.logits(ids)
        assert golden["sha256"] == hashlib.sha256(logits.tobytes()).hexdigest()
        assert golden["greedy"] == logits[len(golden["prompt"]) - 1 : -1].argmax(axis=1).tolist()


def test_files_of_a_set_follow_each_other(tiny_gguf: Path, tmp_path: Path) -> None:
    repack(tiny_gguf, tmp_path / "set.gguf", split_max_tensors=9)
    first = next(tmp_path.glob("set-00001-of-*.gguf"))
    web(first, tmp_path / "site")
    data, file = joined(tmp_path / "site"), GgufFile(first)
    assert len(file.files) > 1 and all(data.count(path.read_bytes()) == 1 for path in file.files)


def test_norms_of_other_types_come_decoded_after_the_file(tiny_gguf: Path, tmp_path: Path) -> None:
    name, file = "output_norm.weight", GgufFile(tiny_gguf)
    data = {key: file.bytes_of(tensor).copy() for key, tensor in file.tensors.items()}
    halved = data[name].view(np.float32).astype(np.float16)
    plans = [TensorPlan(key, t.shape, t.type_id, t.nbytes) for key, t in file.tensors.items()]
    plans = [TensorPlan(name, plan.shape, 1, halved.nbytes) if plan.name == name else plan for plan in plans]
    data[name] = halved.view(np.uint8)
    pairs = {key: value for key, value in file.metadata.items() if key not in KEYS}
    write_gguf(tmp_path / "halved.gguf", pairs, plans, ([data[plan.name]] for plan in plans))
    web(tmp_path / "halved.gguf", tmp_path / "site")
    norm = TensorStruct.from_buffer_copy(base64.b64decode(describe(tmp_path / "site")["structs"]["ends"]), 56)
    image = joined(tmp_path / "site")
    assert norm.data % 64 == 0 and norm.data >= (tmp_path / "halved.gguf").stat().st_size
    assert image[norm.data :] == halved.astype(np.float32).tobytes()


def test_every_file_of_the_page_is_kept_by_the_service_worker(tiny_gguf: Path, tmp_path: Path) -> None:
    web(tiny_gguf, tmp_path / "site")
    text = (tmp_path / "site" / "sw.js").read_text("utf-8")
    files = json.loads(text.splitlines()[1].removeprefix("const FILES = ").removesuffix(";"))
    for name, digest in files.items():
        assert digest == hashlib.sha256((tmp_path / "site" / name).read_bytes()).hexdigest(), name
    for name in ("index.html", "engine.js", "page.css", "model.json", "tritpack/tritpack-worker.js"):
        assert name in files, name
    assert not [name for name in files if name.endswith(".bin")]
    assert describe(tmp_path / "site")["modules"] == {
        name: digest for name, digest in files.items() if name.endswith((".js", ".wasm"))
    }
    assert "LocalEngine" in (tmp_path / "site" / "engine.js").read_text()
    web(tiny_gguf, tmp_path / "site", name="another", force=True)
    assert (tmp_path / "site" / "sw.js").read_text("utf-8").splitlines()[0] != text.splitlines()[0]


def test_what_cannot_be_written_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="tritpack web did not write it"):
        web(tiny_gguf, tmp_path / "full", force=True)
    with pytest.raises(UsageError, match="is a file"):
        web(tiny_gguf, tiny_gguf, force=True)
    with pytest.raises(WriteFailed, match="does not exist"):
        web(tiny_gguf, tmp_path / "absent" / "site")
    web(tiny_gguf, tmp_path / "site")
    with pytest.raises(UsageError, match="exists already"):
        web(tiny_gguf, tmp_path / "site")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_others_put_into_the_folder_is_never_deleted(tiny_gguf: Path, tmp_path: Path) -> None:
    site = web(tiny_gguf, tmp_path / "site").path
    (tmp_path / "link").symlink_to(site)
    web(tiny_gguf, tmp_path / "link", force=True, name="new")
    assert (tmp_path / "link").is_symlink() and describe(site)["name"] == "new"
    (site / ".git").mkdir()
    (site / ".git" / "HEAD").write_text("ref")
    with pytest.raises(UsageError, match=r"did not write, such as \.git/HEAD"):
        web(tiny_gguf, site, force=True)
    assert (site / ".git" / "HEAD").read_text() == "ref"


def test_a_name_that_is_not_utf_8_is_escaped(tiny_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "m\udcff.gguf"
    path.write_bytes(tiny_gguf.read_bytes())
    about = describe(web(path, tmp_path / "site").path)
    assert about["name"] == "m\\udcff" and about["file"]["file"] == "m\\udcff.gguf"


@pytest.mark.parametrize("system", ["taken", "refused"])
def test_the_chat_that_the_page_reproduces_has_a_system_turn_where_that_works(
    tiny_gguf: Path, tmp_path: Path, system: str
) -> None:
    refuse = "{% if m.role == 'system' and REFUSED %}{{ raise_exception('no') }}{% endif %}"
    template = "{% for m in messages %}" + refuse + "{{ m.content }}{% endfor %}"
    template = template.replace("REFUSED", str(system == "refused"))
    edited = edited_gguf(
        tiny_gguf, tmp_path / "m.gguf", metadata=lambda pairs: pairs.update({"tokenizer.chat_template": template})
    )
    probe = describe(web(edited, tmp_path / "site").path)["text"]["chat_probe"]
    assert (probe["messages"][0]["role"] == "system") == (system == "taken")


def test_a_chat_template_that_fails_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    edited = edited_gguf(
        tiny_gguf,
        tmp_path / "m.gguf",
        metadata=lambda pairs: pairs.update({"tokenizer.chat_template": "{{ raise_exception('no') }}"}),
    )
    with pytest.raises(TritpackError):
        web(edited, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_context_too_short_for_the_proof_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a context of 4 tokens is too short"):
        web(tiny_gguf, tmp_path / "site", context=4)


def test_the_memory_of_a_thread_holds_the_scores_of_a_long_context(tiny_gguf: Path) -> None:
    with Model(tiny_gguf) as model:
        for context, rows in ((2048, 16), (131072, 16)):
            _, per_thread = manifest.session_bytes(model.spec, context, "f32")
            assert per_thread >= 4 * max(rows * context, 320 << 10), context


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_the_server_listens_on_ipv6(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("needs an IPv6 address of this machine, ::1")
    with server.server(tmp_path, "::1", 0) as listening:
        assert listening.server_port > 0


def test_models_that_the_page_cannot_run_are_refused(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = edited_gguf(
        tiny_gguf, tmp_path / "splits.gguf", metadata=lambda pairs: pairs.update({KEY_SPLIT_SPECIALS: True})
    )
    with pytest.raises(Unsupported, match="split_special_tokens"):
        web(splits, tmp_path / "site")
    monkeypatch.setattr(manifest, "LARGEST_MEMORY", 1 << 20)
    with pytest.raises(Unsupported, match="GB of memory with a context of"):
        web(tiny_gguf, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_without_the_engine_the_command_ends_with_7(tiny_gguf: Path, tmp_path: Path, built: Path) -> None:
    (built / "tritpack.wasm").unlink()
    with pytest.raises(MissingRequirement, match=r"tritpack\.wasm is missing"):
        web(tiny_gguf, tmp_path / "site")
    result = run("web", tiny_gguf, "-o", tmp_path / "site")
    assert exit_code_of(result) == 7 and "make web" in str(result.exception.hint)  # type: ignore[union-attr]


def test_an_engine_of_another_version_is_not_shipped(tiny_gguf: Path, tmp_path: Path, built: Path) -> None:
    (built / "abi").write_text("6\n")
    with pytest.raises(MissingRequirement, match="built for version 6"):
        web(tiny_gguf, tmp_path / "site")
    (built / "abi").unlink()
    with pytest.raises(MissingRequirement, match="built for version unknown"):
        web(tiny_gguf, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_command_says_what_it_wrote(tiny_gguf: Path, tmp_path: Path) -> None:
    result = run("web", tiny_gguf, "-o", tmp_path / "site", "--json", "--context", "64")
    said = json.loads(result.stdout)
    assert said["schema"] == "tritpack.web_folder/1" and said["context"] == 64 and "index.html" in said["files"]
    assert exit_code_of(run("web", tiny_gguf)) == 2
    assert exit_code_of(run("web", tiny_gguf, "-o", tmp_path / "site")) == 2
    again = run("web", tiny_gguf, "-o", tmp_path / "site", "--force")
    assert again.exit_code == 0 and "the model in 1 part; the page needs" in again.stdout


def test_the_server_sets_the_headers_that_threads_need(tmp_path: Path) -> None:
    (tmp_path / "module.wasm").write_bytes(b"\0asm")
    with server.server(tmp_path, "127.0.0.1", 0) as listening:
        Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{listening.server_port}/module.wasm") as answer:
            headers = answer.headers
        (tmp_path / "sw.js").write_text("")
        with pytest.raises(HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{listening.server_port}/sw.js")
        with pytest.raises(UsageError, match="cannot listen"):
            server.server(tmp_path, "127.0.0.1", listening.server_port)
        listening.shutdown()
    assert headers["Content-Type"] == "application/wasm"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_the_attestation_beside_a_file_is_told(tmp_path: Path, tiny_checkpoint: Path) -> None:
    file, record = tmp_path / "model.gguf", tmp_path / "model.intoto.json"
    convert(tiny_checkpoint, file)
    assert run("verify", file, "--source", tiny_checkpoint, "--level", "weights", "--attest", record).exit_code == 0
    web(file, tmp_path / "site")
    told = describe(tmp_path / "site")["file"]["attestation"]
    assert told["verdict"] == "pass" and told["matches"] and told["source"].startswith("a checkpoint with SHA-256 ")
    with file.open("ab") as stream:
        stream.write(bytes(32))
    web(file, tmp_path / "other")
    assert not describe(tmp_path / "other")["file"]["attestation"]["matches"]


def test_the_package_has_the_version_of_tritpack_and_exact_versions_of_others() -> None:
    assert json.loads((assets.WEB / "npm" / "package.json").read_text("utf-8"))["version"] == VERSION
    needed = json.loads((assets.WEB / "package.json").read_text("utf-8"))["devDependencies"]
    assert [name for name, version in needed.items() if not version.replace(".", "").isdigit()] == []


def test_sampling_of_the_file_comes_first(tiny_gguf: Path, tmp_path: Path) -> None:
    def add(pairs: dict) -> None:
        pairs.update({"general.sampling.temp": 0.5, "general.sampling.top_k": 7})

    web(tiny_gguf, tmp_path / "plain")
    web(edited_gguf(tiny_gguf, tmp_path / "sampled.gguf", metadata=add), tmp_path / "sampled")
    assert describe(tmp_path / "plain")["sampling"] == manifest.PAGE_SAMPLING
    assert describe(tmp_path / "sampled")["sampling"] == {**manifest.PAGE_SAMPLING, "temperature": 0.5, "top_k": 7}
