"""How the page fetches, checks and keeps the parts of a model. It runs in node, with a storage and network of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.make.web_page import READ_INPUT, bundled, run_node

NETWORK = """
const { fill, fillFromBlob, forgetOthers, sha256 } = await import(given.module);
const base = "http://127.0.0.1/model.json", files = new Map(), stored = new Map();
globalThis.fetch = async (url) => {
  const bytes = files.get(String(url));
  if (bytes === undefined) throw new TypeError("no network");
  return new Response(bytes);
};
if (given.storage) {
  globalThis.caches = { open: async () => ({
    match: async (key) => stored.has(String(key)) ? new Response(stored.get(String(key))) : undefined,
    put: async (key, answer) => {
      if (given.storage === "full") throw new DOMException("full", "QuotaExceededError");
      stored.set(String(key), new Uint8Array(await answer.arrayBuffer()));
    },
    delete: async (key) => stored.delete(String(key)),
    keys: async () => [...stored.keys()].map((url) => ({ url })),
  }) };
} else Object.defineProperty(globalThis, "caches", { get() { throw new DOMException("blocked", "SecurityError"); } });
const parts = [];
for (const [i, size] of [100, 100, 50].entries()) {
  const bytes = new Uint8Array(size).fill(i + 1), url = `part-${i}.bin`;
  files.set(new URL(url, base).href, bytes);
  parts.push({ url, size, sha256: await sha256(bytes) });
}
const whole = Uint8Array.from([...files.values()].flatMap((bytes) => [...bytes]));
const into = new Uint8Array(250), target = (offset, size) => into.subarray(offset, offset + size);
const said = (promise) => promise.then(() => "filled", (error) => error.message);
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled("download", tmp_path_factory.mktemp("bundle"))


def answers(script: str, module: Path, folder: Path, storage: str = "yes") -> Any:
    end = "process.exit();"
    return run_node(READ_INPUT + NETWORK + script + end, folder, {"module": str(module), "storage": storage})


def test_a_file_of_another_length_is_refused(module: Path, tmp_path: Path) -> None:
    script = """
    const loaded = (blob, size) => said(fillFromBlob(blob, { file: { size }, parts }, target, () => {}));
    console.log(JSON.stringify([
      await loaded(new Blob([whole]), 250), await loaded(new Blob([whole, "x"]), 250),
      await loaded(new Blob([whole.subarray(1)]), 250), await loaded(new Blob([whole.subarray(0, 200)]), 200),
    ]));
    """
    assert answers(script, module, tmp_path) == [
        "filled",
        "This is another file: it has 251 bytes, expected 250. Nothing of it is used.",
        "This is another file: it has 249 bytes, expected 250. Nothing of it is used.",
        "The parts of this model hold more than its file: load it from the folder that tritpack web wrote.",
    ]


def test_only_files_of_the_same_folder_are_forgotten(module: Path, tmp_path: Path) -> None:
    script = """
    await fill(parts, base, target, () => {});
    await fill(parts.slice(1), base, target, () => {}); // from the storage
    for (const name of ["old.bin", "other/part.bin"]) stored.set(`http://127.0.0.1/${name}?sha256=0`, whole);
    await forgetOthers(parts.slice(0, 2), base);
    console.log(JSON.stringify([...stored.keys()].map((url) => new URL(url).pathname)));
    """
    assert answers(script, module, tmp_path) == ["/part-0.bin", "/part-1.bin", "/other/part.bin"]


@pytest.mark.parametrize("storage", ["yes", "full", ""])
def test_the_sentences_are_true(module: Path, tmp_path: Path, storage: str) -> None:
    script = """
    const last = new URL("part-2.bin", base).href, bytes = files.get(last), found = [];
    for (const damage of [bytes.subarray(1), Uint8Array.of(...bytes, 1), undefined]) {
      files.set(last, damage);
      found.push(await said(fill(parts, base, target, () => {})));
    }
    files.set(last, new ReadableStream({ pull(controller) { controller.error(new Error("cut")); } }));
    console.log(JSON.stringify([...found, await said(fill(parts, base, target, () => {}))]));
    """
    name, kept = "art 3 of 3 of the model", " What was complete is kept." if storage == "yes" else ""
    assert answers(script, module, tmp_path, storage) == [
        f"P{name} (/part-2.bin) is damaged: it has 49 bytes, expected 50. Nothing of it is used.",
        f"P{name} (/part-2.bin) is damaged: it has more than 50 bytes, expected 50. Nothing of it is used.",
        f"P{name} cannot be reached (http://127.0.0.1/part-2.bin). Is the network there?{kept}",
        f"The download of p{name} broke off.{kept} Try again.",
    ]
