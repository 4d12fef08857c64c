"""The interface of the page's engine, with a worker that only notes what it is asked. It runs in node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.make.web_page import READ_INPUT, WEB, run_node

WORKER = """
const posted = [];
let worker;
globalThis.Worker = class {
  constructor() { worker = this; }
  postMessage(data) {
    posted.push(data);
    if (data.ask === "load") queueMicrotask(() => this.onmessage({ data: { id: data.id, done: {} } }));
  }
  terminate() { this.terminated = true; }
};
const { Tritpack } = await import(given.web + "/engine/index.js");
const model = await Tritpack.load("http://127.0.0.1/model.json");
const late = new Promise((resolve) => setTimeout(resolve, 2000, "it never settles"));
const settled = (promise) => Promise.race([promise.then(() => "done", (error) => error.message), late]);
"""


@pytest.mark.parametrize("ending", ["closed", "failed"])
def test_calls_after_the_end_are_rejected(ending: str, tmp_path: Path) -> None:
    script = """
    const before = model.prove();
    if (given.ending === "closed") model.close();
    else worker.onerror({ message: "out of memory" });
    const after = [model.tokenize("a"), model.logits([1]), model.prove(), model.refresh(), model.generate("a").next()];
    console.log(JSON.stringify([worker.terminated, ...(await Promise.all([before, ...after].map(settled)))]));
    process.exit();
    """
    found = run_node(READ_INPUT + WORKER + script, tmp_path, {"web": str(WEB), "ending": ending})
    said = {"closed": "The model was closed.", "failed": "The worker failed: out of memory."}[ending]
    assert found == [True] + [said] * 6


def test_stop_names_the_generations_that_it_ends(tmp_path: Path) -> None:
    script = """
    const asked = () => posted.filter(({ ask }) => ask === "generate").map(({ id }) => id);
    const stopped = () => posted.filter(({ ask }) => ask === "stop").map(({ id }) => id);
    const one = model.generate("a"), other = model.generate("b");
    const first = one.next(), second = other.next();
    const [id, waiting] = asked();
    worker.onmessage({ data: { id: waiting, text: "b" } });
    await second;
    await other.return(); // its loop is left
    const left = stopped();
    model.stop();
    worker.onmessage({ data: { id, done: { stopReason: "stopped" } } });
    worker.onmessage({ data: { id: waiting, done: { stopReason: "stopped" } } });
    await first;
    const all = stopped();
    model.stop(); // nothing is asked any more
    console.log(JSON.stringify({ id, waiting, left, all, later: stopped() }));
    process.exit();
    """
    found = run_node(READ_INPUT + WORKER + script, tmp_path, {"web": str(WEB)})
    assert found["left"] == [found["waiting"]]
    assert set(found["all"]) == {found["id"], found["waiting"]} and found["later"] == found["all"]
