"""Shows a finding and runs its input again: `python -m tests.fuzz.replay FILE ...`. Ends with 1 if it is still one.

FILE is called TARGET-ANYTHING, as the fuzzers call it. A Python target needs no atheris here.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import re
import subprocess
import sys
import traceback
from pathlib import Path

LONGEST = 20_000
"""Characters of an input that is printed: the machine of CI is gone when somebody reads what it printed."""


def shown(path: Path) -> str:
    """Return the lines that say what a finding is, and how to run it again here and elsewhere."""
    data = path.read_bytes()
    packed = base64.b64encode(gzip.compress(data, mtime=0)).decode()
    elsewhere = f"base64 -d <<<{packed} | gunzip > {path.name}" if len(packed) <= LONGEST else "too long to print"
    again = f"python -m tests.fuzz.replay {path}"
    return f"  {_what(path)}\n    {len(data)} bytes, again: {again}\n    elsewhere, first: {elsewhere}"


def _what(path: Path) -> str:
    """Return the first line of a Python finding's report; else what libFuzzer calls it, and the sanitizer's summary."""
    report = path.with_suffix(".txt")
    if report.is_file():
        return report.read_text("utf-8").splitlines()[0]
    name, _, kind = path.name.rpartition("-")[0].partition("-")
    ended = path.with_name(f"{name}-ended.txt")
    summaries = re.findall(r"^SUMMARY: .*", ended.read_text("utf-8") if ended.is_file() else "", re.MULTILINE)
    return ": ".join((name, kind, *summaries[:1]))


def target_of(path: Path) -> str:
    """Return the target that an input is for."""
    return path.name.partition("-")[0]


def replay(path: Path, binaries: Path) -> str | None:
    """Give an input to its target, and return what was wrong; None if it got a right answer."""
    from tests.fuzz import __main__ as runs
    from tests.fuzz import targets, watch

    name = target_of(path)
    if name in runs.C_TARGETS:
        runs.build(binaries)
        done = subprocess.run([binaries / f"fuzz_{name}", path], env=runs.environment(), capture_output=True, text=True)
        return done.stderr if done.returncode else None
    if name not in targets.TARGETS:
        raise SystemExit(f"{path}: no target is called {name!r}")
    watch.limit_memory()
    error = watch.finding(targets.TARGETS[name], path.read_bytes())
    return None if error is None else "".join(traceback.format_exception(error))


def main() -> int:
    from tests.fuzz.__main__ import BINARIES

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.replay", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--binaries", type=Path, default=BINARIES)
    options = parser.parse_args()
    wrong = {path: message for path in options.files if (message := replay(path, options.binaries)) is not None}
    for path in options.files:
        print(f"{path}: {wrong.get(path, 'a right answer')}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
