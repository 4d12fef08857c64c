"""The ladder of proof: structure, weights, logits, text, generation. `verify` climbs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats.errors import CheckFailed, MissingRequirement, Unreadable, Unsupported, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from converter.verify.oracle import Oracle
    from converter.verify.oracle_codes import Coded
    from converter.verify.rung import Report, Rung
    from formats.gguf_file import GgufFile

    F32 = npt.NDArray[np.float32]

LEVELS = ("weights", "logits", "full")


def verify(
    file: str | Path,
    source: str | Path,
    *,
    level: str = "full",
    quantize: str | None = None,
    revision: str | None = None,
    text: str | Path | None = None,
    progress: Callable[[str], None] = lambda rung: None,
) -> Report:
    """Hold FILE against SOURCE: a checkpoint folder, ORG/NAME[@REVISION] on the Hub, or another GGUF.

    level: `weights` proves bytes, `logits` also runs FILE against the oracle, `full` also compares ISAs and threads.
    quantize: `absmean` where `convert` needed it. text: a file of ordinary text for the `text` rung; a built-in one
    otherwise. Raises Unreadable if FILE or SOURCE cannot be read, Unsupported for a SOURCE of another kind."""
    from converter.opening import is_gguf, local_path
    from converter.verify.oracle import Oracle
    from converter.verify.packed_oracle import PackedOracle
    from converter.verify.rung import Report, Rung
    from converter.verify.structure import check_structure
    from converter.verify.weights import check_weights
    from formats.gguf_file import GgufFile
    from runtime import packing

    if level not in LEVELS:
        raise UsageError(f"--level {level} is unknown", hint=f"choose one of: {', '.join(LEVELS)}")
    words = _read_text(text)
    packed = GgufFile(file)
    origin = local_path(source, revision=revision)

    def judge(**as_stored: Any) -> Oracle:
        return PackedOracle(origin, **as_stored) if is_gguf(origin) else Oracle(origin, quantize=quantize, **as_stored)

    packing.install()
    oracle = judge()
    progress("structure")
    report = Report(str(file), str(source), [check_structure(packed, origin, oracle)])
    progress("weights")
    report.rungs.append(check_weights(packed, oracle))
    names = {"weights": (), "logits": ("logits", "text"), "full": ("logits", "text", "generation")}[level]
    if report.rungs[0].verdict == "fail":
        report.rungs += [Rung(name, skipped="the file's structure is wrong") for name in names]
    elif names:
        progress("running")
        try:
            report.rungs += _run(packed, judge(rounded=_rounding(packed), rescaled=_rescaling(packed)), words, names)
        except MissingRequirement as error:
            if report.verdict == "pass":
                raise
            # What was found already must not be lost because the rest cannot run here.
            report.rungs += [Rung(name, skipped=error.message) for name in names]
        except (Unreadable, Unsupported, UsageError, CheckFailed) as error:
            report.rungs.append(Rung(names[0], findings=[f"the file cannot be run: {error.message}"]))
            report.rungs += [Rung(name, skipped="the file cannot be run") for name in names[1:]]
    return report


def _run(packed: GgufFile, oracle: Oracle, words: str, names: Sequence[str]) -> list[Rung]:
    """The rungs that run FILE."""
    from converter.verify.generation import check_generation
    from converter.verify.logits import check_logits
    from runtime.model import Model

    with Model(packed) as model:
        tokens = model.tokenizer.encode(words)
        rungs = check_logits(model, oracle, tokens)
    if "generation" in names:
        rungs.append(check_generation(packed, tokens[:8]))
    return rungs


def _rounding(packed: GgufFile) -> Callable[[str, F32], F32]:
    """The oracle computes with embedding and head as FILE's types round them."""
    from formats import float_types

    def rounded(name: str, rows: F32) -> F32:
        kind = packed.tensors[f"{name}.weight"].layout
        if kind not in float_types.FLOAT_TYPES:
            return rows  # a ternary table holds its values exactly, or the weights rung has said so
        return float_types.decode(kind, float_types.encode(kind, rows), rows.shape[0], rows.shape[1])

    return rounded


def _rescaling(packed: GgufFile) -> Callable[[str, Coded], Coded]:
    """The oracle computes with scales as FILE's layouts can hold them; whether they do, the weights rung says."""
    from converter.rounding import rounded
    from formats.ternary import TernaryTensor

    def rescaled(name: str, coded: Coded) -> Coded:
        info = packed.tensors[f"{name}.weight"]
        layout = packed.layout_of(info)
        if layout is None or f"{name}.scale" in packed.tensors:
            return coded
        return coded[0], rounded(TernaryTensor(*coded), layout).scales

    return rescaled


def _read_text(path: str | Path | None) -> str:
    if path is None:
        return (resources.files(__package__) / "text.txt").read_text("utf-8")
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: cannot be read as UTF-8 text: {error}") from error
