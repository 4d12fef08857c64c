"""The page in Debian's Chromium, from a plain static host: the demo computes there what it computes here, bit for bit.

Needs what `make web` builds, Chromium, and Playwright from PyPI; without them these tests skip and say so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.make.web_page import HELPERS, PlainHost, chromium, require_engine
from tritpack.converter.web.web import web

PART = 1_000_000
STATE = "html[data-state={}]"


@pytest.fixture(scope="module")
def site(demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_engine()
    return web(demo_gguf, tmp_path_factory.mktemp("web") / "site", part_size=PART).path


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
        if state == "ready":
            page.on("pageerror", lambda error: errors.append(str(error)))
        page.add_init_script(HELPERS)
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


def test_a_page_that_is_not_isolated_takes_one_thread(visit: Any, host: PlainHost) -> None:
    page = visit(host, service_workers="block")
    assert not page.evaluate("crossOriginIsolated")
    info = page.evaluate("load({ threads: 4 })")
    assert info["threads"] == 1 and "isolated" in info["why"]
    proof = page.evaluate("model.prove()")
    assert proof["found"]["sha256"] == proof["expected"]["sha256"]


def test_it_works_without_a_network_after_the_first_visit(visit: Any, host: PlainHost) -> None:
    page = visit(host)
    page.wait_for_function("navigator.serviceWorker.controller !== null")
    host.asked.clear()
    host.down = True
    page.reload()
    page.wait_for_selector(STATE.format("ready"))
    assert page.evaluate("crossOriginIsolated"), "the service worker gives a plain host's page the headers"
    threads = min(16, page.evaluate("navigator.hardwareConcurrency"))
    assert page.inner_text("#status").startswith(f"{threads} thread")
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
    visit: Any, host: PlainHost, demo_gguf: Path, tmp_path: Path
) -> None:
    page = visit(host)
    another = web(demo_gguf, tmp_path / "another", part_size=2 * PART, name="another").path
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


def test_a_damaged_part_is_refused(visit: Any, host: PlainHost, tmp_path: Path) -> None:
    path = tmp_path / "host" / "model-001.bin"
    data = bytearray(path.read_bytes())
    data[1234] ^= 16
    path.write_bytes(data)
    page = visit(host, "failed")
    said = page.inner_text("#loading-text")
    assert said.startswith("Part 2 of 3 of the model (/model-001.bin) is damaged: its SHA-256 is "), said
    assert said.endswith("Nothing of it is used."), said
    assert page.is_visible("#load-again") and not page.is_visible("#composer")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "tritpack/tritpack.wasm",
            "The WebAssembly module (/tritpack/tritpack.wasm) is damaged, or of another version",
        ),
        ("about.js", "A script of this page (/about.js) is damaged, or of another version"),
    ],
)
def test_damaged_modules_are_refused_without_a_service_worker(
    visit: Any, host: PlainHost, tmp_path: Path, name: str, said: str
) -> None:
    path = tmp_path / "host" / name
    data = path.read_bytes()
    changed = data[:-1] + bytes([data[-1] ^ 1]) if path.suffix == ".wasm" else data + b"// changed"
    path.write_bytes(changed)
    page = visit(host, "failed", service_workers="block")
    shown = page.inner_text("#loading-text")
    assert shown.startswith(said) and shown.endswith("Reload the page."), shown
    assert not [asked for asked in host.asked if asked.startswith("/model-")], "nothing of the model was fetched"


def test_a_page_whose_scripts_cannot_run_says_so(visit: Any, host: PlainHost, tmp_path: Path) -> None:
    path = tmp_path / "host" / "words.js"
    path.write_bytes(path.read_bytes()[:300])
    page = visit(host, "failed", service_workers="block")
    assert page.inner_text("#loading-text").startswith("/words.js cannot run: ")
    path.unlink()
    page.reload()
    page.wait_for_selector(STATE.format("failed"))
    assert page.inner_text("#loading-text") == f"{host.url}app.js, or what it needs, cannot be loaded. Reload the page."


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


def test_a_model_that_does_not_fit_is_refused_before_it_is_fetched(visit: Any, host: PlainHost, tmp_path: Path) -> None:
    path = tmp_path / "host" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "memory": 5_000_000_000}), "utf-8")
    said = visit(host, "failed", service_workers="block").inner_text("#loading-text")
    assert said == "The model needs 5.00 GB of memory, and WebAssembly can have 4.29 GB at most."
    assert not [name for name in host.asked if name.startswith("/model-")]


def test_a_chat_with_the_keyboard(visit: Any, host: PlainHost) -> None:
    page = visit(host, query="?threads=1", viewport={"width": 400, "height": 800}, color_scheme="dark")
    assert "1 thread " in page.inner_text("#status")
    assert page.evaluate("document.activeElement.id") == "question"
    page.clock.install()
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
    page.clock.run_for(10_000)
    assert page.inner_text("#spoken") == "", "it does not meet the answer twice"
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


def test_the_page_loads_where_site_data_are_blocked(browser: Any, host: PlainHost) -> None:
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script("""
      const refuse = { get() { throw new DOMException("Access is denied for this document.", "SecurityError"); } };
      for (const name of ["sessionStorage", "localStorage"]) Object.defineProperty(window, name, refuse);
    """)
    page.goto(host.url)
    page.wait_for_selector("html[data-state=ready], html[data-state=failed]")
    assert page.evaluate("document.documentElement.dataset.state") == "ready", page.inner_text("#loading-text")
    assert "1 thread " in page.inner_text("#status") and errors == []
    context.close()


def test_while_it_loads_a_screen_reader_is_told_little_and_settings_wait(browser: Any, host: PlainHost) -> None:
    context = browser.new_context(service_workers="block")
    page = context.new_page()
    page.add_init_script("""
      window.told = [];
      addEventListener("DOMContentLoaded", () => {
        window.early = document.querySelector("#settings").disabled;
        const watch = new MutationObserver((changes) => {
          for (const { target } of changes) if (target.closest("[role=status]")) told.push(target.textContent);
        });
        watch.observe(document.body, { childList: true, subtree: true });
      });
    """)
    page.goto(host.url)
    page.wait_for_selector(STATE.format("ready"))
    told = page.evaluate("told")
    assert told[-1] == "The model is ready." and len(told) == len(set(told)) <= 9, told
    assert page.evaluate("early") and page.is_enabled("#settings")
    page.click("#settings")
    assert "model's own" not in page.inner_text("#settings-note")
    context.close()


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
