"""Count instructions per ternary weight, ours and those of other engines: `make bench-instructions`.

A count does not depend on other programs, on the clock or on memory, so it compares kernels where speeds are noisy.
valgrind's callgrind counts; it knows the instruction sets up to AVX2, so build the engines for AVX2 (a program that
uses AVX-512 dies of SIGILL). The models have 2 and 3 layers of the 2B-4T with a small vocabulary. What one layer needs
for one token is the difference between both models and between two numbers of tokens; what is left of loading, of the
head and of the interpreter are the few instructions that vary from run to run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.entries import Entry, entries_of, peer, say
from tritpack.converter.tools.make_dummy import SHAPES, make_dummy
from tritpack.formats.errors import MissingRequirement, TritpackError
from tritpack.formats.model_spec import ModelSpec

OUR_LAYOUTS = ("t158", "i2_s", "tq2_0")
TOKENS = {"decode": (1, 3), "prompt": (32, 64)}
"""The two numbers of tokens of each kind of work."""
LAYERS = (2, 3)
COUNTED = re.compile(r"Collected : (\d+)")
EVALUATE = """
import json, sys
from tritpack import Model
path, kind, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Model(path, threads=1, kv_type="i16", context=256) as model:
    ids = [number % 500 for number in range(n)]
    for part in [ids] if kind == "prompt" else [[token] for token in ids]:
        model.eval(part)
    print(json.dumps(model.kernels()))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make bench-instructions", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("peers", nargs="*", type=peer, metavar="ENGINE=PATH", help="an engine and its llama-bench")
    parser.add_argument("--embedding-type", default="q6_k", help="of the embedding and head")
    parser.add_argument("--folder", type=Path, default=Path("build/bench-peers"), help="where the models are kept")
    options = parser.parse_args(arguments)
    _require_valgrind()
    options.folder.mkdir(parents=True, exist_ok=True)
    models = {layers: _model(options.folder, layers) for layers in LAYERS}
    files = {layers: list(entries_of(models[layers], OUR_LAYOUTS, options)) for layers in LAYERS}
    print("Instructions per ternary weight of a layer and token, whole programs, one thread, AVX2 at most.\n")
    print("| engine, layout | " + " | ".join(TOKENS) + " |\n" + "|---" * (len(TOKENS) + 1) + "|", flush=True)
    for pair in zip(*files.values(), strict=True):
        try:
            cells = [f"{per_weight(pair, kind):.4f}" for kind in TOKENS]
        except TritpackError as error:
            say(f"left out: {pair[0].engine} {pair[0].layout}: {error}")
            continue
        print(f"| {pair[0].engine} {pair[0].layout} | " + " | ".join(cells) + " |", flush=True)


def _require_valgrind() -> None:
    try:
        subprocess.run(["valgrind", "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingRequirement("valgrind is not installed", hint="apt install valgrind") from error


def _spec(layers: int) -> ModelSpec:
    return dataclasses.replace(SHAPES["bitnet-2b-4t"], layers=layers, vocab_size=512)


def _model(folder: Path, layers: int) -> Path:
    path = folder / f"bitnet-2b-4t-{layers}-layers"
    if not path.exists():
        make_dummy(path, shape=_spec(layers))
    return path


def per_weight(pair: Sequence[Entry], kind: str) -> float:
    """Return the instructions that one layer needs per weight for one token. pair: the file of each of LAYERS."""
    fewer, more = TOKENS[kind]
    small, large = ([_count(entry, kind, n) for n in (fewer, more)] for entry in pair)
    spec = _spec(1)
    weights = sum(math.prod(spec.tensor_shapes()[name]) for name in spec.linear_names())
    return ((large[1] - large[0]) - (small[1] - small[0])) / (more - fewer) / weights


def _count(entry: Entry, kind: str, tokens: int) -> int:
    """Return the instructions of a program that evaluates so many tokens; raise TritpackError if it fails."""
    if entry.program is None:
        command = [sys.executable, "-c", EVALUATE, entry.file, kind, tokens]
    else:
        sizes = ["-p", tokens, "-n", 0] if kind == "prompt" else ["-p", 0, "-n", tokens]
        command = [entry.program, "-m", entry.file, *sizes, "-t", 1, "-r", 1, "-o", "json"]
    counter = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    say(f"{entry.engine} {entry.layout}: {kind} of {tokens}, {entry.file.name}")
    done = subprocess.run(
        [*counter, *map(str, command)],
        capture_output=True,
        check=False,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    found = COUNTED.search(done.stderr)
    if done.returncode or not found or not json.loads(done.stdout or "[]"):
        words = done.stderr.strip().splitlines()[-1:] or [""]
        raise TritpackError(f"ended with {done.returncode} under valgrind: {words[0]}")
    return int(found[1])


if __name__ == "__main__":
    main()
