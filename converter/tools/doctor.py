"""`tritpack doctor`: run every kernel and a small model on this machine, and say what is missing."""

from __future__ import annotations

import dataclasses
import platform
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from tritpack.converter.inspect.bandwidth import measure_bandwidth
from tritpack.converter.version import VERSION
from tritpack.formats.errors import MissingRequirement, TritpackError
from tritpack.formats.names import ISAS
from tritpack.runtime.library import Library, library
from tritpack.runtime.machine import usable_cores
from tritpack.runtime.pages import shares_here

SCHEMA = "tritpack.doctor/1"
PACKAGES = ("numpy", "gguf", "safetensors", "tokenizers", "sentencepiece", "huggingface_hub", "jinja2", "click")


def doctor() -> dict[str, Any]:
    """Return what `tritpack doctor --json` prints.

    `bandwidth` is that of the memory, which inspect uses too: it is measured here, and remembered.
    `missing` says why the C library cannot be used, and is None where it can. Without it the small model is converted
    and its weights are proved, and nothing is run. `huge_pages` is the share of a new file in the folder of temporary
    files, and of copied weights, that the system keeps in them; None where it does not tell.
    """
    try:
        c, missing, hint = library(), None, None
    except MissingRequirement as error:
        c, missing, hint = None, str(error), error.hint
    kernels, check = _kernel_check(c) if c else ([], _check("kernels", "skipped", "they need the C library"))
    checks = [check, _model_check("full" if c else "weights")]
    return {
        "schema": SCHEMA,
        "verdict": "fail" if missing or any(check["verdict"] == "fail" for check in checks) else "pass",
        "missing": missing,
        "hint": hint,
        "versions": _versions(),
        "cpu": c.cpu() if c else platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "best_isa": c.best_isa() if c else None,
        "isas": [{"name": isa.name, "available": isa.available} for isa in c.isas()] if c else [],
        "kernels": kernels,
        "bandwidth": dataclasses.asdict(measure_bandwidth()),
        "huge_pages": _huge_pages(),
        "checks": checks,
    }


def _huge_pages() -> dict[str, float | None]:
    try:
        with tempfile.TemporaryDirectory(prefix="tritpack-") as folder:
            return shares_here(Path(folder))
    except (TritpackError, OSError):  # no room, say; the check of a model tells it
        return {"file": None, "memory": None}


def _kernel_check(c: Library) -> tuple[list[dict[str, Any]], dict[str, str]]:
    failures, lines = c.self_test()
    wrong = [line for line in lines if "WRONG" in line]
    kernels = _kernels(c, {line.split(":")[0] for line in wrong})
    equal = sum(kernel["state"] == "ok" for kernel in kernels)
    detail = "; ".join(wrong) or f"{equal} kernels ran and equal scalar"
    return kernels, _check("kernels", "fail" if failures else "pass", detail)


def _kernels(c: Library, failed: set[str]) -> list[dict[str, Any]]:
    """Every kernel and its state; of each operation and layout, the one of the best ISA of this CPU is active."""
    available = sorted((k for k in c.kernels() if k.available), key=lambda kernel: ISAS.index(kernel.isa))
    active = {(kernel.op, kernel.layout): kernel.symbol for kernel in available}.values()
    return [
        {
            "symbol": kernel.symbol,
            "isa": kernel.isa,
            "active": kernel.symbol in active,
            "state": "not on this CPU" if not kernel.available else "failed" if kernel.symbol in failed else "ok",
        }
        for kernel in c.kernels()
    ]


def _model_check(level: str) -> dict[str, str]:
    """Write a small seeded model, convert it, and verify it on every ISA against the numpy oracle."""
    name = "a model, end to end"
    try:
        from tritpack.converter.convert import convert
        from tritpack.converter.tools.make_dummy import make_dummy
        from tritpack.converter.verify.ladder import verify

        with tempfile.TemporaryDirectory(prefix="tritpack-") as folder:
            checkpoint, packed = Path(folder) / "checkpoint", Path(folder) / "model.gguf"
            make_dummy(checkpoint, shape="tiny", seed=158)
            convert(checkpoint, packed)
            report = verify(packed, checkpoint, level=level)
    except (TritpackError, ImportError, OSError) as error:  # whatever is wrong with this machine is shown with the rest
        return _check(name, "fail", str(error))
    findings = [sentence for rung in report.rungs for sentence in rung.sentences]
    runs = [run for rung in report.rungs for run in rung.figures.get("runs", [])]
    ran = f"converted and verified; {len(runs)} runs gave the same bits ({', '.join(runs)})"
    good = ran if runs else "converted, and its weights are proved; running it needs the C library"
    return _check(name, report.verdict, "; ".join(findings) or good)


def _check(name: str, verdict: str, detail: str) -> dict[str, str]:
    return {"name": name, "verdict": verdict, "detail": detail}


def _versions() -> dict[str, str]:
    system = f"{platform.system()} {platform.machine()}"
    own = {"tritpack": VERSION, "python": platform.python_version(), "system": system}
    return {**own, **{package: _version_of(package) for package in PACKAGES}}


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
