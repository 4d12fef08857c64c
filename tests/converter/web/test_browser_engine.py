"""The engine of the page in Debian's Chromium: what it computes is what the native library computes, bit for bit.

One page without a model serves all tests of this file, since loading the engine takes far less than starting a page.
Needs what `make web` builds, Chromium, and Playwright from PyPI; without them these tests skip and say so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.make.web_page import HELPERS, chromium, require_engine
from tritpack.converter.web.server import server
from tritpack.converter.web.web import web
from tritpack.runtime.model import Model

PROMPT = "Once upon a time there was a little"


@pytest.fixture(scope="module")
def site(demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with each type of cache, beside a page that loads nothing."""
    require_engine()
    folder = web(demo_gguf, tmp_path_factory.mktemp("web") / "site", part_size=1_000_000).path
    web(demo_gguf, folder / "i16", kv_type="i16")
    (folder / "empty.html").write_text("<!doctype html><title>Empty</title><input type='file'>")
    return folder


@pytest.fixture(scope="module")
def page(site: Path) -> Iterator[Any]:
    with chromium() as browser, server(site, "127.0.0.1", 0) as listening:
        Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
        opened = browser.new_page()
        opened.set_default_timeout(120_000)
        opened.add_init_script(HELPERS)
        opened.goto(f"http://127.0.0.1:{listening.server_port}/empty.html")
        assert opened.evaluate("crossOriginIsolated")
        yield opened
        listening.shutdown()


@pytest.fixture
def variant(site: Path, request: pytest.FixtureRequest) -> Path:
    """A folder below the page's with the same files, linked: a test may replace one."""
    folder = site / request.node.name
    folder.mkdir()
    for path in [*site.glob("*.bin"), *site.glob("*.json")]:
        (folder / path.name).symlink_to(path)
    return folder


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def described(folder: Path, **changes: Any) -> None:
    """Say other things of the model in a folder."""
    path = folder / "model.json"
    replace(path, json.dumps({**json.loads(path.read_text("utf-8")), **changes}).encode())


@pytest.mark.parametrize(("threads", "kv_type"), [(1, "f32"), (2, "f32"), (3, "f32"), (2, "i16")])
def test_tokens_and_logits_are_the_native_ones(page: Any, demo_gguf: Path, threads: int, kv_type: str) -> None:
    folder = "i16/" if kv_type == "i16" else "."
    info = page.evaluate("([threads, folder]) => load({ threads }, folder)", [threads, folder])
    assert (info["threads"], info["kvType"]) == (threads, kv_type)
    with Model(demo_gguf, threads=1, kv_type=kv_type) as model:
        ids = model.tokenize(PROMPT)
        greedy = model.generate(PROMPT, max_tokens=40, temp=0)
        many = (ids * 20)[:150]
        logits = hashlib.sha256(model.logits(many).tobytes()).hexdigest()
        after = model.generate(tokens=many, max_tokens=3, temp=0).ids
    found = page.evaluate("([input, options]) => generated(input, options)", [PROMPT, {"max_tokens": 40}])
    assert (found["ids"], found["text"], found["stopReason"]) == (greedy.ids, greedy.text, greedy.stop_reason)
    assert page.evaluate("async (ids) => sha256(await model.logits(ids))", many) == logits
    assert page.evaluate("(ids) => generated(ids, { max_tokens: 3 })", many)["ids"] == after, "a prompt of batches"
    proof = page.evaluate("model.prove()")
    assert proof["found"] == {key: proof["expected"][key] for key in ("greedy", "sha256")}
    assert proof["tokenized"] == ids
    info = page.evaluate("model.refresh()")
    assert info["memory"] == info["reserved"], "all memory was taken at once"
    assert any(name.endswith("_simd128") for name in info["kernels"])


def test_the_same_seed_gives_the_same_text(page: Any, demo_gguf: Path) -> None:
    page.evaluate("load()")
    sampling = {"top_k": 30, "top_p": 0.9, "min_p": 0.02, "repeat_penalty": 1.1}
    with Model(demo_gguf) as model:
        for seed in (0, 3, 2**40):
            ours = model.generate(PROMPT, max_tokens=60, temp=0.9, seed=seed, **sampling)
            options = {**sampling, "temperature": 0.9, "seed": seed, "max_tokens": 60}
            found = page.evaluate("([input, options]) => generated(input, options)", [PROMPT, options])
            assert (found["ids"], found["text"]) == (ours.ids, ours.text), seed
        chat = [{"role": "user", "content": "Tell me of a dog."}]
        ours = model.chat(chat, max_tokens=30, temp=0)
        assert page.evaluate("(chat) => generated(chat, { max_tokens: 30 })", chat)["ids"] == ours.ids
        assert page.evaluate("(chat) => model.tokenize(chat)", chat) == model.tokenize(chat=chat)


def test_stop_works_within_one_token(page: Any) -> None:
    """On a busy machine the worker is tokens ahead when the page has its turn; in one of ten tries it is not."""
    page.evaluate("load()")
    for _ in range(10):
        later, end = page.evaluate("""async () => {
          const steps = model.generate("Once", { temperature: 1, repeat_penalty: 1.2, seed: 7 });
          for (let i = 0; i < 5; i += 1) await steps.next();
          model.stop();
          for (let later = 0; ; later += 1) {
            const { value, done } = await steps.next();
            if (done) return [later, value];
          }
        }""")
        if later <= 2:
            break
    assert later <= 2, "what was on its way when stop was called, and one more token"
    assert end["stopReason"] == "stopped" and 5 <= end["tokens"] <= 8
    again = page.evaluate("generated('Once', { max_tokens: 3 })")
    assert again["stopReason"] == "length", "the model goes on afterwards"


def test_a_stop_reaches_generations_that_wait(page: Any) -> None:
    page.evaluate("load()")
    proof, waited = page.evaluate("""async () => {
      const proof = model.prove(), waiting = generated("Once", { max_tokens: 200 });
      model.stop();
      return [await proof, await waiting];
    }""")
    assert proof["found"]["sha256"] == proof["expected"]["sha256"], "a proof goes on"
    assert (waited["stopReason"], waited["tokens"]) == ("stopped", 0)


def test_generation_is_right_after_logits_were_refused(page: Any) -> None:
    page.evaluate("load()")
    before, refused, after = page.evaluate("""async () => {
      const ids = async () => (await generated("Once", { max_tokens: 8 })).ids;
      const before = await ids(), bad = [...Array(150).fill(7), 10 ** 6];
      const refused = await model.logits(bad).then(() => "", (error) => error.message);
      return [before, refused, await ids()];
    }""")
    assert refused.startswith("The model cannot run: ") and after == before


def test_a_file_of_the_visitor_is_taken_if_it_is_that_file(page: Any, demo_gguf: Path, tmp_path: Path) -> None:
    load = """async () => {
      const { Tritpack } = await import("./tritpack/tritpack.js");
      const [file] = document.querySelector("input").files;
      const { expected, found } = await (await Tritpack.load(file, { manifest: "model.json" })).prove();
      return expected.sha256 === found.sha256;
    }"""
    page.set_input_files("input", demo_gguf)
    assert page.evaluate(load)
    (tmp_path / "other.gguf").write_bytes(demo_gguf.read_bytes()[:-8] + b"12345678")
    page.set_input_files("input", tmp_path / "other.gguf")
    with pytest.raises(Exception, match="Part 3 of 3 of the file is damaged"):
        page.evaluate(load)


@pytest.mark.parametrize("damage", ["cut", "longer"])
def test_a_part_of_another_length_is_refused(page: Any, variant: Path, damage: str) -> None:
    data = (variant / "model-001.bin").read_bytes()
    replace(variant / "model-001.bin", data[:-1] if damage == "cut" else data + b"x")
    with pytest.raises(Exception, match=r"Part 2 of 3 of the model .* is damaged: it has .* bytes, expected 1000000\."):
        page.evaluate("(folder) => load({}, folder)", f"{variant.name}/")


def test_a_model_that_does_not_fit_is_refused_however_many_threads(page: Any, variant: Path) -> None:
    described(variant, memory=5_000_000_000)
    with pytest.raises(Exception, match=r"The model needs 5\.00 GB of memory, and WebAssembly can have 4\.29 GB"):
        page.evaluate("(folder) => load({ threads: 3 }, folder)", f"{variant.name}/")


def test_a_model_that_fits_with_fewer_threads_runs_with_fewer(page: Any, variant: Path) -> None:
    described(variant, memory=4_200_000_000, memory_per_thread=40_000_000)
    info = page.evaluate("(folder) => load({ threads: 4 }, folder)", f"{variant.name}/")
    assert info["threads"] == 3 and info["why"] == "the memory of a page has no room for more"
    proof = page.evaluate("model.prove()")
    assert proof["found"]["sha256"] == proof["expected"]["sha256"]
    page.evaluate("model.close()")
