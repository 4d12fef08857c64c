"""The TypeScript types of the package folder: what a user of it may write, and that they name what the module has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.make.web_page import NODE_MODULES, READ_INPUT, WEB, run_node

USER = """\
import { Tritpack } from "tritpack";
import type { Generation, Info, Message, Proof } from "tritpack";

const model: Tritpack = await Tritpack.load(new URL("https://example.org/"), {
  threads: 2,
  onProgress: ({ done, total, text }) => console.log(done / total, text.length),
});
await Tritpack.load(new Blob([]), { manifest: "https://example.org/model.json" });
const chat: Message[] = [{ role: "user", content: "Hello" }];
for await (const text of model.generate(chat, { temperature: 0.7, seed: 1, max_tokens: null })) text.trim();
const steps = model.generate([1, 2], { top_k: 1, top_p: 1, min_p: 0, repeat_penalty: 1 });
const step = await steps.next();
const end: Generation | null = step.done ? step.value : null;
const ids: number[] = await model.tokenize("a");
const logits: Float32Array = await model.logits(ids);
const proof: Proof = await model.prove();
const info: Info = await model.refresh();
model.stop();
model.close();
console.log(end?.stopReason === "eos", logits.length, proof.found.sha256 === proof.expected.sha256);
console.log(info.threads, model.info.why);
// @ts-expect-error: models are loaded
new Tritpack();
// @ts-expect-error: a number is no address
await Tritpack.load(5);
// @ts-expect-error: spelled otherwise
model.generate("a", { maxTokens: 5 });
// @ts-expect-error: text needs a tokenizer
await model.logits("a");
// @ts-expect-error: no such reason
console.log(end?.stopReason === "error");
"""
FLAGS = "--noEmit --strict --target es2022 --lib es2022,dom,dom.asynciterable --module nodenext"
MEMBERS = """
const found = await import(given.module);
const names = (object) => Object.getOwnPropertyNames(object).filter((name) => typeof object[name] === "function");
const { Tritpack } = found, exports = Object.keys(found);
console.log(JSON.stringify({ exports, methods: names(Tritpack.prototype), statics: names(Tritpack) }));
"""


def test_a_users_program_has_the_types_that_it_needs(tmp_path: Path) -> None:
    compiler, node = NODE_MODULES / "node_modules" / "typescript" / "bin" / "tsc", shutil.which("node")
    if node is None or not compiler.is_file():
        pytest.skip(f"needs node, and TypeScript in {NODE_MODULES}: make web")
    (tmp_path / "user.mts").write_text(USER)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "tritpack").symlink_to(WEB / "npm")
    done = subprocess.run([node, compiler, *FLAGS.split(), "user.mts"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_types_name_what_the_module_has(tmp_path: Path) -> None:
    found = run_node(READ_INPUT + MEMBERS, tmp_path, {"module": str(WEB / "engine" / "index.js")})
    types = (WEB / "npm" / "index.d.ts").read_text("utf-8")
    body = types.partition("export class Tritpack {")[2]
    assert found["exports"] == re.findall(r"^export (?:class|function|const) (\w+)", types, re.MULTILINE)
    assert set(found["methods"]) == set(re.findall(r"^  (?:private )?(\w+)\(", body, re.MULTILINE))
    assert found["statics"] == re.findall(r"^  static (\w+)\(", body, re.MULTILINE)
