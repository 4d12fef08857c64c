"""Time tritpack beside llama-bench of other engines, in turn and on the same model: `make bench-peers`.

The model has a published shape and random weights. Each engine gets it in the layouts that it runs, written by
`tritpack convert --for ENGINE`. In every round each file is timed once, forwards and then backwards, so that a machine
that slows down does so for all; the table has the median of the rounds and their range.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.entries import Entry, entries_of, peer, say
from tritpack.converter.tools.make_dummy import make_dummy
from tritpack.converter.version import VERSION
from tritpack.formats.errors import TritpackError
from tritpack.runtime.bench import bench
from tritpack.runtime.library import library, library_path

OUR_LAYOUTS = ("t158", "t2", "i2_s")
COMPILER = re.compile(rb"GCC: \([^)\0]{1,60}\) [0-9.]+|clang version [0-9.]+")
"""What compilers leave in the section .comment of a program."""


@dataclasses.dataclass(frozen=True)
class Test:
    """One column of the table: `n` tokens of a prompt (pp) or decoded one by one (tg), on so many threads."""

    kind: str
    n: int
    threads: int

    def __str__(self) -> str:
        return f"{self.kind}{self.n}, {self.threads} thread{'s' if self.threads > 1 else ''}"


Samples = dict[tuple[Entry, Test], list[float]]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    entries = list(entries_of(_model(options.folder, options.shape), OUR_LAYOUTS, options))
    kinds = (("pp", options.prompt), ("tg", options.generate))
    tests = [Test(kind, n, threads) for kind, n in kinds for threads in options.threads]
    samples: Samples = {(entry, test): [] for entry in entries for test in tests}
    builds: dict[str, str] = {}
    for number in range(options.rounds):
        for entry in entries if number % 2 == 0 else entries[::-1]:
            say(f"round {number + 1} of {options.rounds}: {entry.engine} {entry.layout}")
            try:
                for test in tests:
                    speed, commit = _time(entry, test, options.kv_type)
                    samples[entry, test].append(speed)
            except TritpackError as error:
                say(f"left out: {entry.engine} {entry.layout}: {error}")
                entries = [other for other in entries if other is not entry]
                continue
            builds[entry.engine] = f"{commit} ({', '.join(_compilers(entry.program or library_path()))})"
    print(_report(entries, tests, samples, builds, options))


def _model(folder: Path, shape: str) -> Path:
    path = folder / shape
    if not path.exists():
        say(f"making {path}")
        make_dummy(path, shape=shape)
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="+", type=peer, metavar="ENGINE=PATH", help="an engine and its llama-bench")
    parser.add_argument("--shape", default="bitnet-2b-4t", help="what `tritpack make-dummy --shape` takes")
    parser.add_argument("--embedding-type", default="q6_k", help="of the embedding and head")
    parser.add_argument("--kv-type", default="i16", help="tritpack's cache; the others have 16 bits too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=_numbers, default=[1, 2], metavar="N,N")
    parser.add_argument("--prompt", type=int, default=512, metavar="N")
    parser.add_argument("--generate", type=int, default=128, metavar="N")
    parser.add_argument("--folder", type=Path, default=Path("build/bench-peers"), help="where the models are kept")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _time(entry: Entry, test: Test, kv_type: str) -> tuple[float, str]:
    """Return tokens per second and the commit or version of the engine; raise TritpackError if it gives none."""
    n_prompt, n_gen = (test.n, 0) if test.kind == "pp" else (0, test.n)
    if entry.program is None:
        result = bench(
            entry.file, n_prompt=[n_prompt], n_gen=[n_gen], threads=[test.threads], repetitions=1, kv_type=kv_type
        )
        return result["rows"][0]["tokens_per_second"], VERSION
    counts = ["-p", n_prompt, "-n", n_gen, "-t", test.threads, "-r", 1, "-o", "json"]
    command = [str(part) for part in (entry.program, "-m", entry.file, *counts)]
    done = subprocess.run(command, capture_output=True, check=False)
    try:
        (row,) = json.loads(done.stdout)
        return float(row["avg_ts"]), str(row["build_commit"])
    except (ValueError, KeyError) as error:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise TritpackError(f"{entry.program} ended with {done.returncode}: {' / '.join(words)}") from error


def _compilers(program: Path) -> list[str]:
    """Return the compilers that a program or library names, sorted."""
    return sorted({found.decode() for found in COMPILER.findall(program.read_bytes())}) or ["compiler unknown"]


def _report(
    entries: list[Entry], tests: list[Test], samples: Samples, builds: dict[str, str], options: argparse.Namespace
) -> str:
    """Return the table in Markdown, and below it what each layout of ours reaches by the fastest of the others."""
    lines = [
        f"Shape {options.shape} with random weights, {options.embedding_type} embedding and head; {library().cpu()};",
        f"tokens per second, median and range of {options.rounds} rounds; tritpack with the {options.kv_type} cache.",
        "",
        "| engine, layout | " + " | ".join(map(str, tests)) + " |",
        "|---" * (len(tests) + 1) + "|",
    ]
    for entry in entries:
        cells = [_cell(samples[entry, test]) for test in tests]
        lines.append(f"| {entry.engine} {entry.layout} | " + " | ".join(cells) + " |")
    others = [entry for entry in entries if entry.program]
    for entry in entries if others else []:
        if entry.program is None:
            cells = [_ratio(entry, others, test, samples) for test in tests]
            lines.append(f"| **{entry.engine} {entry.layout} by the fastest other** | " + " | ".join(cells) + " |")
    lines += ["", *(f"- {engine} {build}" for engine, build in builds.items())]
    return "\n".join(lines)


def _ratio(entry: Entry, others: list[Entry], test: Test, samples: Samples) -> str:
    fastest = max(others, key=lambda other: statistics.median(samples[other, test]))
    ratio = statistics.median(samples[entry, test]) / statistics.median(samples[fastest, test])
    return f"{ratio:.2f} x {fastest.engine} {fastest.layout}"


def _cell(speeds: list[float]) -> str:
    return f"{statistics.median(speeds):.1f} ({min(speeds):.1f}-{max(speeds):.1f})"


if __name__ == "__main__":
    main()
