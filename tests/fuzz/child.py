"""Fuzzes one Python target in this process with atheris: `python -m tests.fuzz.child TARGET FINDINGS [OPTION ...]`.

A finding is written to the folder FINDINGS, one file per place in the code, and the run goes on. What ends the process
(an abort in a library, no memory left) is left to tests/fuzz/__main__.py, which starts it again.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tritpack"]):
    from tests.fuzz import targets
from tests.fuzz import mutate, watch

CORPUS = Path(__file__).with_name("corpus")


def main(name: str, findings: Path, *options: str) -> None:
    target, mutation = targets.TARGETS[name], mutate.MUTATIONS.get(name, mutate.json_mutation)
    seeds = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]

    def one_input(data: bytes) -> None:
        error = watch.finding(target, data)
        if error is not None:
            watch.keep(findings, name, data, error)

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.1:
            return bytes(atheris.Mutate(data, most))
        # libFuzzer prefers inputs that reach rare code, and so may hardly ever take a seed of another kind.
        return mutation(rng.choice(seeds) if rng.random() < 0.3 else data, most, rng)

    atheris.Setup([name, *options], one_input, custom_mutator=mutator)
    watch.limit_memory()
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
