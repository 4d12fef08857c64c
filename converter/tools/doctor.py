"""What `tritpack doctor` runs. A check that executes nothing proves nothing: kernels and a model are run."""

from __future__ import annotations

import platform
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from tritpack.converter.version import VERSION
from tritpack.formats.errors import TritpackError
from tritpack.formats.names import ISAS
from tritpack.runtime.library import library

SCHEMA = "tritpack.doctor/1"
PACKAGES = ("numpy", "gguf", "safetensors", "tokenizers", "jinja2")


def diagnose() -> dict[str, Any]:
    """Versions, CPU, kernels and checks. Raises MissingRequirement if there is no C library to diagnose."""
    c = library()
    failures, lines = c.self_test()
    wrong = [line for line in lines if "WRONG" in line]
    failed = {line.split(":")[0] for line in wrong}
    # Of each operation and layout the highest on the ladder that this CPU has.
    ladder = sorted((k for k in c.kernels() if k.available), key=lambda kernel: ISAS.index(kernel.isa))
    active = {(kernel.op, kernel.layout): kernel.symbol for kernel in ladder}.values()
    kernels = [
        {
            "symbol": kernel.symbol,
            "isa": kernel.isa,
            "active": kernel.symbol in active,
            "state": "not on this CPU" if not kernel.available else "failed" if kernel.symbol in failed else "ok",
        }
        for kernel in c.kernels()
    ]
    checks = [
        {
            "name": "kernels",
            "verdict": "fail" if failures else "pass",
            "detail": "; ".join(wrong)
            if failures
            else f"{sum(k['state'] == 'ok' for k in kernels)} run and equal to scalar",
        },
        _whole_path(),
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


def _whole_path() -> dict[str, str]:
    """A small seeded model: written, converted, and verified on every ISA against the numpy oracle."""
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
        return {"name": name, "verdict": "fail", "detail": error.message}
    findings = [sentence for rung in report.rungs for sentence in rung.sentences]
    runs = [run for rung in report.rungs for run in rung.figures.get("runs", [])]
    detail = "; ".join(findings) or f"converted and verified; {len(runs)} runs gave the same bits ({', '.join(runs)})"
    return {"name": name, "verdict": report.verdict, "detail": detail}


def _versions() -> dict[str, str]:
    versions = {
        "tritpack": VERSION,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
