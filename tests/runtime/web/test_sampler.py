"""The page's sampler against runtime/sampling.py: the same seed and logits give the same tokens. It runs in node."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.make.web_page import READ_INPUT, WEB, run_node
from tritpack.runtime.sampling import Sampler, SamplingParams

SEEDS = [0, 1, 7, 158, 2**31 - 1, 2**32, 2**53 - 1]
PARAMS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "repeat_penalty": 1.1},
    {"temperature": 0.8, "top_k": 1},
    {"temperature": 1.5, "top_p": 0.5},
    {"temperature": 0.9, "min_p": 0.05, "repeat_penalty": 0.7},
    {"temperature": 1e-30, "top_k": 5},
    {"temperature": 2.0, "top_k": 300, "top_p": 0.99, "min_p": 0.001},
]
DRAWS = """
const { Random } = await import(given.web + "/engine/random.js");
const bits = (value) => Buffer.from(new Float64Array([value]).buffer).toString("hex");
console.log(JSON.stringify(given.seeds.map((seed) => {
  const random = new Random(BigInt(seed));
  return Array.from({ length: 50 }, () => bits(random.next()));
})));
"""
TOKENS = """
const { Sampler } = await import(given.web + "/engine/sampler.js");
console.log(JSON.stringify(given.cases.map(({ params, rows, history }) => {
  const sampler = new Sampler(params), seen = [...history];
  return rows.map((row) => {
    const logits = new Float32Array(Uint8Array.from(Buffer.from(row, "base64")).buffer);
    seen.push(sampler.next(logits, seen));
    return seen.at(-1);
  });
})));
"""


def test_random_numbers_are_numpys_bit_for_bit(tmp_path: Path) -> None:
    seeds = [*SEEDS, 2**64 + 3, 2**160 + 12345, 10**60]
    found = run_node(READ_INPUT + DRAWS, tmp_path, {"web": str(WEB), "seeds": list(map(str, seeds))})
    for seed, draws in zip(seeds, found, strict=True):
        random = np.random.Generator(np.random.PCG64(seed))
        assert draws == [struct.pack("<d", random.random()).hex() for _ in range(50)], seed


@pytest.mark.parametrize("vocab", [5, 200, 2048, 20011])
def test_tokens_are_those_of_the_python_sampler(vocab: int, tmp_path: Path) -> None:
    import base64

    chance = np.random.default_rng(vocab)
    cases, expected = [], []
    for params in PARAMS:
        for seed in SEEDS[:4]:
            rows = chance.normal(0, 3, (12 if vocab < 20000 else 4, vocab)).astype(np.float32)
            rows[1] = np.round(rows[1])  # many ties, zeros of both signs
            rows[2, : vocab // 2] = -np.inf
            rows[3] = 0
            history = chance.integers(0, vocab, 9).tolist()
            encoded = [base64.b64encode(row.tobytes()).decode() for row in rows]
            cases.append({"params": {**params, "seed": seed}, "rows": encoded, "history": history})
            renamed = {"repetition_penalty" if key == "repeat_penalty" else key: value for key, value in params.items()}
            sampler, seen = Sampler(SamplingParams(**renamed, seed=seed)), list(history)  # type: ignore[arg-type]
            for row in rows:
                seen.append(sampler.next(row, seen))
            expected.append(seen[len(history) :])
    found = run_node(READ_INPUT + TOKENS, tmp_path, {"web": str(WEB), "cases": cases})
    for case, tokens, wanted in zip(cases, found, expected, strict=True):
        assert tokens == wanted, case["params"]


REFUSED = """
const { Sampler } = await import(given.web + "/engine/sampler.js");
const messages = [];
for (const [params, logits] of given.cases) {
  try {
    new Sampler(params).next(Float32Array.from(logits, Number), []);
    messages.push("");
  } catch (error) {
    messages.push(error.message);
  }
}
console.log(JSON.stringify(messages));
"""


def test_what_is_impossible_is_refused(tmp_path: Path) -> None:
    bad = [{"top_p": 0}, {"temperature": -1}, {"top_k": 1.5}, {"min_p": 2}, {"repeat_penalty": 0}, {"seed": -1}]
    cases = [*([params, [1, 2]] for params in bad), [{}, ["NaN", 1]], [{}, ["Infinity", 1]], [{}, ["-Infinity"]]]
    found = run_node(READ_INPUT + REFUSED, tmp_path, {"web": str(WEB), "cases": cases})
    for params, message in zip(bad, found, strict=False):
        assert message.startswith(f"{next(iter(params))} must be "), params
    assert ["are not numbers" in message for message in found[len(bad) :]] == [True] * 3
