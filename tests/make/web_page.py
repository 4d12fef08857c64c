"""What the tests of the page share: node, the engine that `make web` built, a plain static host, a browser."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tritpack.converter.web.assets import BUILT, ENGINE

WEB = REPOSITORY / "runtime" / "web"
NODE_MODULES = Path(os.environ.get("BUILD", REPOSITORY / "build")) / "web" / "node"
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync"""


HELPERS = """
window.load = async (options, folder = ".") => {
  const { Tritpack } = await import(new URL("tritpack/tritpack.js", document.baseURI));
  window.model?.close();
  return (window.model = await Tritpack.load(new URL(folder, document.baseURI), options)).info;
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
"""Functions for tests in a page: the engine without the chat."""


def require_engine() -> None:
    """Skip the test unless `make web` was run."""
    if missing := [name for name in ENGINE if not (BUILT / name).is_file()]:
        pytest.skip(f"the page's engine is not built ({missing[0]} is missing): make web")


def run_node(script: str, folder: Path, given: Any = None) -> Any:
    """Run a module in `folder` with `given` as JSON on its input, and return the JSON that it prints. Skips without
    node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node: nodejs")
    (folder / "script.mjs").write_text(script, "utf-8")
    done = subprocess.run(
        [node, folder / "script.mjs"], input=json.dumps(given).encode(), capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


READ_INPUT = """
import { readFileSync } from "node:fs";
const given = JSON.parse(readFileSync(0, "utf-8"));
"""


def bundled(name: str, folder: Path) -> Path:
    """Return a module of the engine, bundled with its libraries. Skips unless `make web` has fetched them."""
    node = shutil.which("node")
    if node is None or not (NODE_MODULES / "node_modules").is_dir():
        pytest.skip(f"needs node, and the libraries of the page in {NODE_MODULES}: make web")
    subprocess.run([node, WEB / "build.mjs", NODE_MODULES, folder, name], check=True)
    return folder / f"{name}.js"


class PlainHost:
    """A static host that sets no headers of its own, as most are. asked: the paths that were asked for. down: hang up
    on everybody, on connections that are open already, too."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.down = False
        host = self

        class Handler(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def parse_request(self) -> bool:
                self.close_connection = True
                return not host.down and super().parse_request()

            def log_message(self, format: str, *args: object) -> None:
                host.asked.append(self.path)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser. Skips without Playwright or Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=FLAGS.split())
        yield browser
        browser.close()
