"""What the workers of the fleet's tests run: they are other processes and import it from here."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tritpack.converter.convert import convert
from tritpack.formats.errors import NetworkTrouble, Unsupported

OUTTYPES = ("i2_s", "t158")


def release(recipe: str) -> list[str]:
    """Make two outputs beside the recipe, one after the other, and return which of them this run has made.

    The recipe is a file with the path of a checkpoint, or the word `dies`. Between the outputs the run waits until the
    folder has a file `go`. What it begins and makes is noted in a log beside the recipe.
    """
    path = Path(recipe)
    note(path, "begins")
    if path.read_text() == "dies":
        os._exit(1)
    made = []
    for outtype in OUTTYPES:
        output = path.with_name(f"{path.stem}-{outtype}.gguf")
        if not output.exists():
            convert(path.read_text(), output, outtype=outtype)
            note(path, outtype)
            made.append(outtype)
        while not (path.parent / "go").exists():
            time.sleep(0.02)
    return made


def note(path: Path, what: str) -> None:
    with open(path.with_suffix(".log"), "a") as stream:
        stream.write(f"{os.getpid()} {what}\n")


def notes(recipe: Path) -> list[tuple[int, str]]:
    log = recipe.with_suffix(".log")
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(process), what) for process, what in (line.split(" ", 1) for line in lines)]


def fails(recipe: str) -> str:
    """Fail as the recipe says, and note it."""
    note(Path(recipe), "begins")
    kind = Path(recipe).read_text()
    if kind == "unsupported":
        raise Unsupported("is not a model", path=recipe, tensor="t", hint="none")
    if kind == "network once" and len(notes(Path(recipe))) == 1:
        raise NetworkTrouble("does not answer")
    if kind == "network":
        raise NetworkTrouble("does not answer", hint="try again")
    if kind == "bug":
        raise ZeroDivisionError("a bug")
    return kind
