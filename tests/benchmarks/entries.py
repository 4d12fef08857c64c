"""The files that are measured: one model, for each engine in each layout that it runs."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tritpack.converter.convert import convert
from tritpack.converter.targets.engines.table import rows
from tritpack.formats.errors import TritpackError

OURS = "tritpack"


@dataclasses.dataclass(frozen=True)
class Entry:
    """An engine with one file. program: its llama-bench; None for tritpack."""

    engine: str
    layout: str
    file: Path
    program: Path | None


def peer(text: str) -> tuple[str, Path]:
    """Parse `ik_llama.cpp=/path/to/llama-bench`."""
    engine, _, path = text.partition("=")
    known = [row.name for row in rows() if row.target and row.name != OURS]
    if engine not in known:
        raise argparse.ArgumentTypeError(f"{engine!r}: the engine must be one of {', '.join(known)}")
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{path!r} is not a file; give the llama-bench that you built")
    return engine, Path(path)


def entries_of(source: Path, ours: Sequence[str], options: argparse.Namespace) -> Iterator[Entry]:
    """Yield every engine with every layout that it runs, and write the files that are not there yet.

    source: a checkpoint folder. ours: the layouts for tritpack. options: folder, embedding_type and peers.
    """
    layouts = {row.name: row.target.layouts or () for row in rows() if row.target}
    for engine, program in [(OURS, None), *options.peers]:
        for layout in ours if program is None else layouts[engine]:
            if layout in ("tl1", "tl2"):  # their kernels are made for the shape of one model, when the engine is built
                continue
            try:
                yield Entry(engine, layout, _file(source, engine, layout, options), program)
            except TritpackError as error:
                say(f"left out: {engine} {layout}: {error}")


def _file(source: Path, engine: str, layout: str, options: argparse.Namespace) -> Path:
    path: Path = options.folder / f"{source.name}-{options.embedding_type}-{engine}-{layout}.gguf"
    if not path.exists():
        say(f"making {path}")
        # Speed is measured here: an engine with another activation function takes as long as one with the right one.
        convert(
            source,
            path,
            outtype=layout,
            embedding_type=options.embedding_type,
            target=engine,
            allow_wrong_engine=engine != OURS,
        )
    return path


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
