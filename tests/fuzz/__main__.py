"""Runs the fuzzers: `python -m tests.fuzz [TARGET ...] [--seconds N] [--findings DIR] [--corpus DIR] [--binaries DIR]`.

Every target gets the same share of the time. Ends with 1 if there was a finding. README.md here says what they are, and
what a machine needs for them; without it they are left out, and the reason is printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import replay

FOLDER = Path(__file__).resolve().parent
SEEDS = FOLDER / "corpus"
C_TARGETS = tuple(path.stem.removeprefix("fuzz_") for path in sorted((FOLDER / "c").glob("fuzz_*.c")))
PYTHON_TARGETS = (
    "gguf", "split_set", "gguf_model", "gguf_used", "safetensors", "checkpoint", "oracle", "tokenizer", "template",
    "option_files", "hub", "bundle",
)  # fmt: skip
ENVIRONMENT = {
    "ASAN_OPTIONS": "allocator_may_return_null=1:max_allocation_size_mb=2048",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "1",
}
# The check for pointers that overflow takes six times as long to compile, and AddressSanitizer sees where they lead.
SANITIZERS = "-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize=pointer-overflow -fno-sanitize-recover=all"
OPTIONS = ("-report_slow_units=60", "-rss_limit_mb=4096", "-timeout=60", "-print_final_stats=1", "-len_control=0")
LONGEST = {"tensor": 400, "pack": 400, "model": 400, "gguf": 4096, "safetensors": 8192, "template": 8192}
"""Bytes of an input; of others 1 << 17."""
BINARIES = FOLDER.parents[1] / "build" / "fuzz" / "asan"


@dataclasses.dataclass
class Tally:
    """What a target did: inputs tried, CPU seconds, findings."""

    runs: int = 0
    cpu: float = 0
    findings: set[str] = dataclasses.field(default_factory=set)


def fuzz(name: str, seconds: float, corpus: Path, findings: Path, binaries: Path) -> Tally:
    """Fuzz a target for a time, starting its process again whenever an input ends it."""
    tally, end = Tally(), time.monotonic() + seconds
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    while (left := int(end - time.monotonic())) > 0:
        options = [f"-max_total_time={left}", f"-max_len={LONGEST.get(name, 1 << 17)}", *OPTIONS]
        options += [f"-artifact_prefix={findings}/{name}-", str(corpus), str(SEEDS / name)]
        program = [sys.executable, "-m", "tests.fuzz.child", name, str(findings)]
        program = [str(binaries / f"fuzz_{name}")] if name in C_TARGETS else program
        before = _cpu()
        done = subprocess.run(
            [*program, *options], cwd=FOLDER.parents[1], capture_output=True, text=True, errors="replace",
            env=environment(),
        )  # fmt: skip
        tally.cpu += _cpu() - before
        tally.runs += sum(map(int, re.findall(r"stat::number_of_executed_units: (\d+)", done.stderr)))
        if done.returncode:
            (findings / f"{name}-ended.txt").write_text(done.stderr[-20000:])
            if not re.search(r"^artifact_prefix=|Test unit written", done.stderr, re.MULTILINE):
                raise SystemExit(f"{name} cannot be fuzzed:\n{done.stderr[-3000:]}")
    tally.findings = {path.name for path in findings.glob(f"{name}-*") if path.suffix != ".txt"}
    return tally


def left_out() -> dict[str, str]:
    """Return the reason by target, for those that cannot be fuzzed here."""
    reasons = {}
    if importlib.util.find_spec("atheris") is None:
        reasons |= dict.fromkeys(PYTHON_TARGETS, "atheris is not installed (pip install atheris)")
    empty = "int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n ? 0 : 0; }"
    try:
        with tempfile.TemporaryDirectory() as folder:
            command = ["clang", "-x", "c", "-fsanitize=fuzzer,address", "-", "-o", f"{folder}/empty"]
            subprocess.run(command, input=empty, text=True, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        reasons |= dict.fromkeys(C_TARGETS, "there is no clang with libFuzzer (apt-get install clang libclang-rt-dev)")
    return reasons


def build(binaries: Path) -> None:
    """Build the fuzzers of the C library."""
    command = ["make", "-s", f"-j{os.cpu_count()}", "-f", "runtime/runtime.mk", "fuzzers"]
    variables = ["CC=clang", "CFLAGS=", f"BUILD={binaries.parent}", f"SANITIZERS={SANITIZERS}"]
    subprocess.run([*command, *variables], cwd=FOLDER.parents[1], check=True, capture_output=True)


def environment() -> dict[str, str]:
    """Return the environment of a fuzzer."""
    return {**os.environ, **ENVIRONMENT}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", default=(*PYTHON_TARGETS, *C_TARGETS))
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--findings", type=Path, help="a new folder by default, so that no old finding counts")
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "tritpack-fuzz" / "corpus")
    parser.add_argument("--binaries", type=Path, default=BINARIES)
    options = parser.parse_args()
    findings = options.findings or Path(tempfile.mkdtemp(prefix="tritpack-fuzz-"))
    reasons, found = left_out(), 0
    targets = [name for name in options.targets if name not in reasons]
    for reason in sorted({reasons[name] for name in options.targets if name in reasons}):
        print(f"not fuzzed: {', '.join(name for name in options.targets if reasons.get(name) == reason)}: {reason}")
    if set(C_TARGETS) & {*targets}:
        build(options.binaries)
    for name in targets:
        share = options.seconds / len(targets)
        tally = fuzz(name, share, options.corpus / name, findings, options.binaries)
        print(f"{name}: {tally.runs} inputs in {tally.cpu:.0f} s of CPU, {len(tally.findings)} findings", flush=True)
        for path in sorted(tally.findings):
            print(replay.shown(findings / path), flush=True)
        found += len(tally.findings)
    print(f"{found} findings" + (f" in {findings}; {FOLDER.name}/README.md says what to do" if found else ""))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
