"""The engine of the page in Debian's Chromium: several questions at once, stops, a browser that keeps nothing.

Needs what `make web` builds, Chromium, and Playwright from PyPI; without them these tests skip and say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import DEMO
from tests.make.web_page import PlainHost, chromium, require_engine
from tritpack.converter.convert import convert
from tritpack.converter.web.web import web

READY = "html[data-state=ready]"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainHost]:
    require_engine()
    folder = tmp_path_factory.mktemp("web")
    convert(DEMO / "checkpoint", folder / "demo.gguf")
    started = PlainHost(web(folder / "demo.gguf", folder / "site", part_size=1_000_000).path)
    yield started
    started.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of a browser that has kept nothing. Errors of it fail the test."""
    errors: list[str] = []
    context = browser.new_context(service_workers="block")
    context.set_default_timeout(120_000)
    opened = context.new_page()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


LOAD = """async () => {
  const { Tritpack } = await import("./tritpack/tritpack.js");
  window.model = await Tritpack.load(document.baseURI);
  window.ended = async (steps) => {
    for (;;) {
      const { value, done } = await steps.next();
      if (done) return value;
    }
  };
}"""


def load(page: Any, host: PlainHost) -> None:
    page.goto(host.url)
    page.wait_for_selector(READY)
    page.evaluate(LOAD)


def test_a_stop_reaches_generations_that_wait(page: Any, host: PlainHost) -> None:
    load(page, host)
    proof, waited = page.evaluate("""async () => {
      const proof = model.prove(), waiting = ended(model.generate("Once", { max_tokens: 200 }));
      model.stop();
      return [await proof, await waiting];
    }""")
    assert proof["found"]["sha256"] == proof["expected"]["sha256"], "a proof goes on"
    assert (waited["stopReason"], waited["tokens"]) == ("stopped", 0)


def test_generation_is_right_after_logits_were_refused(page: Any, host: PlainHost) -> None:
    load(page, host)
    before, refused, after = page.evaluate("""async () => {
      const ids = async () => (await ended(model.generate("Once", { max_tokens: 8 }))).ids;
      const before = await ids(), bad = [...Array(150).fill(7), 10 ** 6];
      const refused = await model.logits(bad).then(() => "", (error) => error.message);
      return [before, refused, await ids()];
    }""")
    assert refused.startswith("The model cannot run: ") and after == before


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


def test_while_it_loads_a_screen_reader_is_told_little_and_settings_wait(page: Any, host: PlainHost) -> None:
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
    page.wait_for_selector(READY)
    told = page.evaluate("told")
    assert told[-1] == "The model is ready." and len(told) == len(set(told)) <= 9, told
    assert page.evaluate("early") and page.is_enabled("#settings")
    page.click("#settings")
    assert "model's own" not in page.inner_text("#settings-note")
