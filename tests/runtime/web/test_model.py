"""The page's generation loop with a native library made of plain JavaScript. It runs in node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.make.web_page import READ_INPUT, bundled, run_node

# Tokens are 0 to 99. The next one is the sum of all positions so far, so a wrong cache gives wrong tokens.
NATIVE = """
const { Model, turns } = await import(given.module);
const passes = []; // (tokens, layers)
let clock = 0;
performance.now = () => clock;
const native = {
  cache: [],
  eval(ids, which) {
    if (ids.some((id) => !(id >= 0 && id < 100))) throw new Error("The model cannot run: no such token.");
    const rows = ids.map((id) => {
      this.cache.push(id);
      const row = new Float32Array(100);
      row[this.cache.reduce((sum, each) => sum + each, 0) % 100] = 1;
      return row;
    });
    if (which === "none") return null;
    return Float32Array.from((which === "all" ? rows : rows.slice(-1)).flatMap((row) => [...row]));
  },
  layerCount: 4,
  begin(ids, which) { this.begun = [ids, which]; this.left = this.layerCount; },
  layers(count) {
    passes.push([this.begun[0].length, count]);
    clock += given.pace * this.begun[0].length * count;
    if (count > this.left) throw new Error("There are no such layers.");
    this.left -= count;
    if (this.left === 0) this.logits = this.eval(...this.begun);
    return this.left;
  },
  last() { return this.logits; },
  rewind(positions) { this.cache.length = positions; },
};
const text = { bos: 1, stops: new Set(), control: new Set(), bytes: (id) => Uint8Array.of(65 + (id % 26)) };
const model = new Model(native, text, 1000, turns());
const generated = async (ids, options, stopped = () => false) => {
  const steps = model.generate(ids, options, stopped);
  for (;;) {
    const { value, done } = await steps.next();
    if (done) return value;
  }
};
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled("model", tmp_path_factory.mktemp("bundle"))


def test_tokens_are_right_after_logits_were_refused(module: Path, tmp_path: Path) -> None:
    script = """
    const before = await generated([1, 2, 3], { max_tokens: 5 });
    let refused = "";
    try {
      model.logits([...Array(150).fill(7), 1000]);
    } catch (error) {
      refused = error.message;
    }
    const after = await generated([1, 2, 3], { max_tokens: 5 });
    console.log(JSON.stringify({ before: before.ids, refused, after: after.ids }));
    process.exit();
    """
    found = run_node(READ_INPUT + NATIVE + script, tmp_path, {"module": str(module), "pace": 1})
    assert found["refused"] == "The model cannot run: no such token."
    assert found["after"] == found["before"] == [6, 12, 24, 48, 96]


@pytest.mark.parametrize(("pace", "layers"), [(10.0, 1), (0.25, 1), (0.2, 2), (0.0, 4)])
def test_a_stop_waits_for_a_few_layers_of_a_prompt(module: Path, tmp_path: Path, pace: float, layers: int) -> None:
    """pace: milliseconds of a token in a layer."""
    script = """
    let looks = 0;
    const { stopReason } = await generated(Array(300).fill(1), { max_tokens: 1 }, () => (looks += 1) > 4);
    const { ids } = await generated([1, 2, 3], { max_tokens: 2 });
    console.log(JSON.stringify({ stopReason, passes: passes.slice(0, 4), ids }));
    process.exit();
    """
    found = run_node(READ_INPUT + NATIVE + script, tmp_path, {"module": str(module), "pace": pace})
    assert found["stopReason"] == "stopped" and found["ids"] == [6, 12]
    assert {tokens for tokens, _ in found["passes"]} == {72}
    assert max(count for _, count in found["passes"]) == layers
