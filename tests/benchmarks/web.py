"""Decoding in a browser beside SIMD128 under node and the native library, in turn.

    python -m tests.benchmarks.web FOLDER FILE [--tokens N] [--rounds N] [--threads 1,2]

FOLDER is what `tritpack web FILE` wrote. Prints tokens per second, medians of the rounds, and their range; fails if one
of them writes other tokens than the others.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import statistics
import subprocess
import threading
from collections import defaultdict
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.make.web_page import chromium
from tritpack.converter.web.server import Handler
from tritpack.runtime.model import Model

IN_PAGE = """async ([prompt, count]) => {
  const steps = model.generate(prompt, { max_tokens: count + 1 });
  for (;;) {
    const { value, done } = await steps.next();
    if (done) return [value.tokensPerSecond, value.ids];
  }
}"""
LOAD = """async (threads) => {
  const { Tritpack } = await import("./tritpack/tritpack.js");
  window.model?.close();
  window.model = await Tritpack.load(document.baseURI, { threads });
}"""


def native(file: str, prompt: list[int], isa: str | None, threads: int, count: int) -> tuple[float, list[int]]:
    with Model(file, threads=threads, isa=isa, context=2048) as model:
        result = model.generate(tokens=prompt, max_tokens=count + 1, temp=0)
        return result.tokens_per_second, result.ids


def node(folder: str, threads: int, count: int) -> tuple[float, list[int]]:
    script = Path(__file__).with_name("web_node.mjs")
    program = [shutil.which("node") or "node", script, folder, str(threads), str(count)]
    result = json.loads(subprocess.run(program, check=True, capture_output=True).stdout)
    return result["tokens_per_second"], result["ids"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("file")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", default="1,2")
    options = parser.parse_args()
    prompt = json.loads(Path(options.folder, "model.json").read_text("utf-8"))["golden"]["prompt"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=options.folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    speeds: dict[str, list[float]] = defaultdict(list)
    texts: set[tuple[int, ...]] = set()

    def note(name: str, measured: Any) -> None:
        speeds[name].append(measured[0])
        texts.add(tuple(measured[1]))

    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.goto(f"http://127.0.0.1:{server.server_port}/icon.svg")
        page.goto(f"http://127.0.0.1:{server.server_port}/?threads=1")
        page.wait_for_selector("html[data-state=ready]", timeout=300_000)
        for threads in map(int, options.threads.split(",")):
            page.evaluate(LOAD, threads)
            page.evaluate(IN_PAGE, [prompt, options.tokens])  # V8 compiles what runs often a second time
            for _ in range(options.rounds):
                note(f"native {threads}", native(options.file, prompt, None, threads, options.tokens))
                note(f"node {threads}", node(options.folder, threads, options.tokens))
                note(f"browser {threads}", page.evaluate(IN_PAGE, [prompt, options.tokens]))
    for name, values in speeds.items():
        print(f"{name:10} {statistics.median(values):8.2f} tokens/s ({min(values):.2f} to {max(values):.2f})")
    assert len(texts) == 1, "they do not write the same tokens"


if __name__ == "__main__":
    main()
