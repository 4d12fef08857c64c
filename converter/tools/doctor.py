"""`tritpack doctor`: run every kernel and a small model on this machine."""

from __future__ import annotations

import platform
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from tritpack.converter.version import VERSION
from tritpack.formats.errors import TritpackError
from tritpack.formats.names import ISAS
from tritpack.runtime.library import Library, library

SCHEMA = "tritpack.doctor/1"
PACKAGES = ("numpy", "gguf", "safetensors", "tokenizers", "jinja2")


def doctor() -> dict[str, Any]:
    """Return what `tritpack doctor --json` prints. Raises MissingRequirement without the C library."""
    c = library()
    failures, lines = c.self_test()
    wrong = [line for line in lines if "WRONG" in line]
    kernels = _kernels(c, {line.split(":")[0] for line in wrong})
    equal = sum(kernel["state"] == "ok" for kernel in kernels)
    checks = [
        _check("kernels", failures == 0, "; ".join(wrong) or f"{equal} kernels ran and equal scalar"),
        _model_check(),
    ]
    return {
        "schema": SCHEMA,
        "verdict": "fail" if any(check["verdict"] == "fail" for check in checks) else "pass",
        "versions": _versions(),
        "cpu": c.cpu(),
        "best_isa": c.best_isa(),
        "isas": [{"name": isa.name, "available": isa.available} for isa in c.isas()],
        "kernels": kernels,
        "checks": checks,
    }


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


def _model_check() -> dict[str, str]:
    """Write a small seeded model, convert it, and verify it on every ISA against the numpy oracle."""
    from tritpack.converter.convert import convert
    from tritpack.converter.tools.make_dummy import make_dummy
    from tritpack.converter.verify.ladder import verify

    name = "a model, end to end"
    try:
        with tempfile.TemporaryDirectory(prefix="tritpack-") as folder:
            checkpoint, packed = Path(folder) / "checkpoint", Path(folder) / "model.gguf"
            make_dummy(checkpoint, shape="tiny", seed=158)
            convert(checkpoint, packed)
            report = verify(packed, checkpoint)
    except TritpackError as error:
        return _check(name, False, str(error))
    findings = [sentence for rung in report.rungs for sentence in rung.sentences]
    runs = [run for rung in report.rungs for run in rung.figures.get("runs", [])]
    detail = "; ".join(findings) or f"converted and verified; {len(runs)} runs gave the same bits ({', '.join(runs)})"
    return _check(name, report.verdict == "pass", detail)


def _check(name: str, good: bool, detail: str) -> dict[str, str]:
    return {"name": name, "verdict": "pass" if good else "fail", "detail": detail}


def _versions() -> dict[str, str]:
    system = f"{platform.system()} {platform.machine()}"
    own = {"tritpack": VERSION, "python": platform.python_version(), "system": system}
    return {**own, **{package: _version_of(package) for package in PACKAGES}}


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
