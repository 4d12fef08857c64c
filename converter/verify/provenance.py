"""What the figures of a report belong to: both sides by hash, oracle, kernels, machine and versions."""

from __future__ import annotations

import contextlib
import datetime
import platform
from importlib import metadata
from typing import Any

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.verify.rung import Report
from tritpack.converter.version import VERSION
from tritpack.formats.errors import MissingRequirement
from tritpack.formats.files import sha256_files
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.library import library
from tritpack.runtime.machine import usable_cores

PACKAGES = ("numpy", "tokenizers", "transformers", "torch")


def describe(report: Report, file_sha256: str, source_sha256: str, oracle: str, level: str) -> dict[str, Any]:
    """Provenance as `verify --json` has it. level and oracle: what was asked for, in words."""
    kernels = sorted({symbol for rung in report.rungs for symbol in rung.figures.get("kernels", ())})
    return {
        "tritpack": VERSION,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "level": level,
        "oracle": oracle,
        "file_sha256": file_sha256,
        "source_sha256": source_sha256,
        "kernels": kernels,
        "machine": _machine(),
        "packages": _packages(),
    }


def source_sha256(source: CheckpointFolder | GgufFile) -> str:
    """The hash of a GGUF (see sha256_files), or of all files of a folder (see CheckpointFolder.sha256)."""
    return sha256_files(source.files) if isinstance(source, GgufFile) else source.sha256


def _machine() -> dict[str, Any]:
    try:
        cpu, isa = library().cpu().partition(";")[0].strip(), library().best_isa()
    except MissingRequirement:
        cpu, isa = platform.processor(), None
    return {"system": f"{platform.system()} {platform.machine()}", "cpu": cpu, "isa": isa, "cores": usable_cores()}


def _packages() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
