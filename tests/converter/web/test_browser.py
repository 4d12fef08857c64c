"""The page in Debian's Chromium, from a plain static host: the demo computes there what it computes here, bit for bit.

Needs what `make web` builds, Chromium, and Playwright from PyPI; without them these tests skip and say so.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import DEMO
from tests.make.web_page import PlainHost, chromium, require_engine
from tritpack.converter.convert import convert
from tritpack.converter.web.web import web
from tritpack.runtime.model import Model

PART = 1_000_000
PROMPT = "Once upon a time there was a little"
STATE = "html[data-state={}]"
LOADED = """
window.load = async (options) => {
  const { Tritpack } = await import("./tritpack/tritpack.js");
  return (window.model = await Tritpack.load(document.baseURI, options)).info;
};
window.generated = async (input, options) => {
  const steps = model.generate(input, options), texts = [];
  for (;;) {
    const { value, done } = await steps.next();
    if (done) return { text: texts.join(""), ...value };
    texts.push(value);
  }
};
window.sha256 = async (array) => {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", array));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
};
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "demo.gguf"
    convert(DEMO / "checkpoint", path)
    return path


@pytest.fixture(scope="module")
def site(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_engine()
    return web(demo, tmp_path_factory.mktemp("web") / "site", part_size=PART).path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def visit(site: Path, browser: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens the page in a browser that has never seen it. Errors of the page fail the test."""
    opened: list[Any] = []
    errors: list[str] = []

    def go(host: PlainHost, state: str = "ready", query: str = "", **options: Any) -> Any:
        context = browser.new_context(**options)
        context.set_default_timeout(120_000)
        opened.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.add_init_script(LOADED)
        page.goto(host.url + query)
        page.wait_for_selector(STATE.format(state))
        return page

    yield go
    for context in opened:
        context.close()
    assert errors == []


@pytest.fixture
def host(site: Path, tmp_path: Path) -> Iterator[PlainHost]:
    """The folder on a host of its own, which a test may damage."""
    started = PlainHost(Path(shutil.copytree(site, tmp_path / "host")))
    yield started
    started.close()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tokens_and_logits_are_the_native_ones(visit: Any, host: PlainHost, demo: Path, threads: int) -> None:
    page = visit(host)
    assert page.evaluate("crossOriginIsolated"), "the service worker gives a plain host's page the headers"
    info = page.evaluate(f"load({{ threads: {threads} }})")
    assert info["threads"] == threads
    with Model(demo, threads=1) as model:
        ids = model.tokenize(PROMPT)
        greedy = model.generate(PROMPT, max_tokens=40, temp=0)
        many = (ids * 20)[:150]
        logits = hashlib.sha256(model.logits(many).tobytes()).hexdigest()
    found = page.evaluate("([input, options]) => generated(input, options)", [PROMPT, {"max_tokens": 40}])
    assert (found["ids"], found["text"], found["stopReason"]) == (greedy.ids, greedy.text, greedy.stop_reason)
    assert page.evaluate("async (ids) => sha256(await model.logits(ids))", many) == logits
    proof = page.evaluate("model.prove()")
    assert proof["found"] == {key: proof["expected"][key] for key in ("greedy", "sha256")}
    assert proof["tokenized"] == ids
    after = page.evaluate("model.refresh()")
    assert after["memory"] == after["reserved"], "all memory was taken at once"
    assert any(name.endswith("_simd128") for name in after["kernels"])


def test_a_page_that_is_not_isolated_takes_one_thread(visit: Any, host: PlainHost) -> None:
    page = visit(host, service_workers="block")
    assert not page.evaluate("crossOriginIsolated")
    info = page.evaluate("load({ threads: 4 })")
    assert info["threads"] == 1 and "isolated" in info["why"]
    proof = page.evaluate("model.prove()")
    assert proof["found"]["sha256"] == proof["expected"]["sha256"]


def test_the_same_seed_gives_the_same_text(visit: Any, host: PlainHost, demo: Path) -> None:
    page = visit(host)
    page.evaluate("load()")
    sampling = {"top_k": 30, "top_p": 0.9, "min_p": 0.02, "repeat_penalty": 1.1}
    with Model(demo) as model:
        for seed in (0, 3, 2**40):
            ours = model.generate(PROMPT, max_tokens=60, temp=0.9, seed=seed, **sampling)
            options = {**sampling, "temperature": 0.9, "seed": seed, "max_tokens": 60}
            found = page.evaluate("([input, options]) => generated(input, options)", [PROMPT, options])
            assert (found["ids"], found["text"]) == (ours.ids, ours.text), seed
        chat = [{"role": "user", "content": "Tell me of a dog."}]
        ours = model.chat(chat, max_tokens=30, temp=0)
        assert page.evaluate("(chat) => generated(chat, { max_tokens: 30 })", chat)["ids"] == ours.ids
        assert page.evaluate("(chat) => model.tokenize(chat)", chat) == model.tokenize(chat=chat)


def test_stop_works_within_one_token(visit: Any, host: PlainHost) -> None:
    page = visit(host)
    page.evaluate("load()")
    later, end = page.evaluate("""async () => {
      const steps = model.generate("Once", { temperature: 1, repeat_penalty: 1.2 });
      for (let i = 0; i < 5; i += 1) await steps.next();
      model.stop();
      for (let later = 0; ; later += 1) {
        const { value, done } = await steps.next();
        if (done) return [later, value];
      }
    }""")
    assert later <= 2, "what was on its way when stop was called, and one more token"
    assert end["stopReason"] == "stopped" and 5 <= end["tokens"] <= 8
    again = page.evaluate("generated('Once', { max_tokens: 3 })")
    assert again["stopReason"] == "length", "the model goes on afterwards"


def test_it_works_without_a_network_after_the_first_visit(visit: Any, host: PlainHost) -> None:
    page = visit(host)
    page.wait_for_function("navigator.serviceWorker.controller !== null")
    host.asked.clear()
    host.down = True
    page.reload()
    page.wait_for_selector(STATE.format("ready"))
    assert page.evaluate("crossOriginIsolated")
    page.fill("#question", "Once")
    page.press("#question", "Enter")
    page.wait_for_selector(".assistant .stats", state="attached")
    page.click("#about")
    page.click("#prove")
    page.wait_for_selector("#proof-result .verdict")
    assert "bit for bit" in page.inner_text("#proof-result")
    assert host.asked == []


def test_a_folder_in_the_place_of_another_is_shown_at_once(visit: Any, host: PlainHost, tmp_path: Path) -> None:
    page = visit(host)
    path = tmp_path / "host" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "name": "another"}), "utf-8")
    page.reload()
    page.wait_for_selector(STATE.format("ready"))
    assert page.evaluate("navigator.serviceWorker.controller !== null")
    assert page.inner_text("#model-name") == "another"


def test_a_page_that_does_not_belong_together_is_not_kept(visit: Any, host: PlainHost, tmp_path: Path) -> None:
    with (tmp_path / "host" / "page.css").open("a") as stream:
        stream.write("/* of an older version */")
    page = visit(host)
    assert not page.evaluate("crossOriginIsolated"), "it works, with one thread"
    assert page.evaluate("caches.keys()") == ["tritpack-models"]


def test_the_older_page_is_kept_until_the_model_of_the_newer_one_is_there(
    visit: Any, host: PlainHost, demo: Path, tmp_path: Path
) -> None:
    page = visit(host)
    another = web(demo, tmp_path / "another", part_size=2 * PART, name="another").path
    shutil.copytree(another, tmp_path / "host", dirs_exist_ok=True)
    (tmp_path / "host" / "model-001.bin").unlink()
    page.reload()
    page.wait_for_selector(STATE.format("failed"))
    page.wait_for_function("""async () => {
      const names = (await caches.keys()).filter((name) => name.startsWith("tritpack-page"));
      const described = await Promise.all(names.map(async (name) => (await caches.open(name)).match("model.json")));
      return described.length === 2 && described.every(Boolean);
    }""")
    host.down = True
    page.reload()
    page.wait_for_selector(STATE.format("ready"))
    assert page.inner_text("#model-name") == "demo"
    host.down = False
    shutil.copy(another / "model-001.bin", tmp_path / "host")
    page.reload()
    page.wait_for_selector(STATE.format("ready"))
    assert page.inner_text("#model-name") == "another"
    host.down = True  # at once, whatever the service worker has kept by now: one of both models works
    page.reload()
    page.wait_for_selector(STATE.format("ready"))
    assert page.inner_text("#model-name") in ("another", "demo")


def test_other_pages_of_the_host_are_left_alone(visit: Any, host: PlainHost, tmp_path: Path) -> None:
    (tmp_path / "host" / "beside.html").write_text("<title>Beside</title>")
    page = visit(host)
    page.goto(host.url + "beside.html")
    assert page.title() == "Beside" and not page.evaluate("crossOriginIsolated")


@pytest.mark.parametrize("damage", ["one bit", "cut", "longer"])
def test_a_damaged_part_is_refused(visit: Any, host: PlainHost, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "host" / "model-001.bin"
    data = bytearray(path.read_bytes())
    data[1234] ^= 16
    path.write_bytes({"one bit": bytes(data), "cut": bytes(data[:-1]), "longer": bytes(data) + b"x"}[damage])
    page = visit(host, "failed")
    said = page.inner_text("#loading-text")
    assert said.startswith("Part 2 of 3 of the model (/model-001.bin) is damaged: "), said
    assert said.endswith("Nothing of it is used.") and ("SHA-256" in said) == (damage == "one bit"), said
    assert page.is_visible("#load-again") and not page.is_visible("#composer")


def test_a_damaged_module_is_not_called_an_old_browser(visit: Any, host: PlainHost, tmp_path: Path) -> None:
    for name in ("tritpack.wasm", "tritpack-threads.wasm"):
        path = tmp_path / "host" / "tritpack" / name
        path.write_bytes(path.read_bytes()[:5000])
    said = visit(host, "failed").inner_text("#loading-text")
    assert said.startswith("The WebAssembly module (") and "is damaged" in said, said


def test_what_was_complete_is_kept_and_a_damaged_copy_is_fetched_again(
    visit: Any, host: PlainHost, site: Path, tmp_path: Path
) -> None:
    path = tmp_path / "host" / "model-002.bin"
    path.unlink()
    page = visit(host, "failed")
    assert "Part 3 of 3 of the model is not there" in page.inner_text("#loading-text")
    shutil.copy(site / path.name, path)
    page.evaluate("""async () => {
      const cache = await caches.open("tritpack-models");
      const [key] = (await cache.keys()).filter(({ url }) => url.includes("model-000"));
      const bytes = new Uint8Array(await (await cache.match(key)).arrayBuffer());
      bytes[99] ^= 1;
      await cache.put(key, new Response(bytes));
    }""")
    host.asked.clear()
    page.click("#load-again")
    page.wait_for_selector(STATE.format("ready"))
    assert sorted(name for name in host.asked if name.endswith(".bin")) == [
        "/model-000.bin",
        "/model-002.bin",
        "/tokens.bin",
    ]


@pytest.mark.parametrize("service_workers", ["allow", "block"])
def test_a_model_that_does_not_fit_is_refused_before_it_is_fetched(
    visit: Any, host: PlainHost, tmp_path: Path, service_workers: str
) -> None:
    path = tmp_path / "host" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "memory": 5_000_000_000}), "utf-8")
    page = visit(host, "failed", service_workers=service_workers)
    assert (
        page.inner_text("#loading-text")
        == "The model needs 5.00 GB of memory, and WebAssembly can have 4.29 GB at most."
    )
    assert not [name for name in host.asked if name.startswith("/model-")]


def test_a_file_of_the_visitor_is_taken_if_it_is_that_file(
    visit: Any, host: PlainHost, demo: Path, tmp_path: Path
) -> None:
    page = visit(host, service_workers="block")
    page.evaluate("document.body.append(Object.assign(document.createElement('input'), { type: 'file', id: 'file' }))")
    load = f"""async () => {{
      const {{ Tritpack }} = await import("{host.url}tritpack/tritpack.js");
      const [file] = document.querySelector("#file").files;
      window.model = await Tritpack.load(file, {{ manifest: "{host.url}model.json" }});
      return (await model.prove()).found.sha256;
    }}"""
    page.set_input_files("#file", demo)
    expected = json.loads((tmp_path / "host" / "model.json").read_text("utf-8"))["golden"]["sha256"]
    assert page.evaluate(load) == expected
    (tmp_path / "other.gguf").write_bytes(demo.read_bytes()[:-8] + b"12345678")
    page.set_input_files("#file", tmp_path / "other.gguf")
    with pytest.raises(Exception, match="Part 3 of 3 of the file is damaged"):
        page.evaluate(load)


def test_a_chat_with_the_keyboard(visit: Any, host: PlainHost) -> None:
    page = visit(host, query="?threads=1", viewport={"width": 400, "height": 800}, color_scheme="dark")
    assert "1 thread " in page.inner_text("#status")
    assert page.evaluate("document.activeElement.id") == "question"
    page.click("#settings")
    for name, value in (("temperature", "0"), ("max_tokens", "12"), ("seed", "5")):
        page.fill(f"#set-{name}", value)
    page.fill("#system", "You tell tales.")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "settings", "focus goes back to where it was"
    page.focus("#question")
    page.keyboard.type("Tell me a story")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("about a dog")
    page.keyboard.press("Enter")
    page.wait_for_selector(".assistant .stats")
    assert page.inner_text(".user .body") == "Tell me a story\nabout a dog"
    assert "12 tokens · " in page.inner_text(".stats") and "limit of tokens" in page.inner_text(".stats")
    first = page.inner_text(".assistant .body")
    assert first.strip() and first.split()[0] in page.inner_text("#spoken"), "a screen reader is told"
    page.click(".assistant .actions button >> text=Retry")
    page.wait_for_selector(".assistant .stats")
    assert page.inner_text(".assistant .body") == first, "a greedy answer stays"
    page.click(".user .actions button >> text=Edit")
    page.keyboard.press("Control+A")
    page.keyboard.type("And a cat?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".assistant .stats")
    assert page.inner_text(".user .body") == "And a cat?" and page.locator(".message").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than a phone"
    page.reload()
    page.wait_for_selector(STATE.format("ready"))
    assert page.inner_text(".user .body") == "And a cat?", "the chat is kept"
    page.click("#new")
    assert page.locator(".message").count() == 0 and page.is_visible("#welcome")


def test_stop_with_the_keyboard_and_what_is_said_of_the_file(visit: Any, host: PlainHost, site: Path) -> None:
    page = visit(host)
    page.click("#settings")
    # Then only the end of the context ends the answer.
    for name, value in (("temperature", "0"), ("repeat_penalty", "1")):
        page.fill(f"#set-{name}", value)
    page.keyboard.press("Escape")
    page.focus("#question")
    page.keyboard.type("Once upon a time")
    page.keyboard.press("Enter")
    page.wait_for_selector(".assistant.busy .body p")
    page.keyboard.press("Escape")
    page.wait_for_selector(STATE.format("ready"))
    assert page.inner_text(".stats").endswith("stopped")
    page.click("#about")
    facts = page.inner_text("#facts")
    about = json.loads((site / "model.json").read_text("utf-8"))["file"]
    for said in (about["sha256"], "i2_s, 2 bits per ternary weight", "There is none beside the file."):
        assert said in facts, said


def test_answers_of_a_server_are_shown_by_the_same_page(browser: Any, visit: Any, tmp_path: Path) -> None:
    from tests.make.chat_server import ChatServer
    from tritpack.converter.web.assets import PAGE

    server = ChatServer(PAGE, key="secret")
    page = visit(server, "failed")
    page.fill("#key", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector(STATE.format("ready"))
    assert page.inner_text("#model-name") == "served" and "It runs on 127.0.0.1" in page.inner_text("#welcome-text")
    page.fill("#question", "Hello <b>")
    page.keyboard.press("Enter")
    page.wait_for_selector(".assistant .stats")
    assert page.inner_text(".assistant .body") == "You said: Hello <b>"
    assert "5 tokens · 12.5 tokens/s" in page.inner_text(".stats")
    assert server.requests[-1]["temperature"] == 0.25 and "max_tokens" not in server.requests[-1]
    page.fill("#question", "fail")
    page.keyboard.press("Enter")
    page.wait_for_selector(".failed")
    assert page.inner_text(".failed") == "the queue is full"
    server.close()
    assert np.all([request["stream"] for request in server.requests])
