"""What the figures of a report belong to: both sides by hash, oracle, kernels, machine and versions."""

from __future__ import annotations

import contextlib
import datetime
import platform
from importlib import metadata
from typing import Any

from tritpack.converter.sources.origin import snapshot_of
from tritpack.converter.sources.origin_keys import COMMIT_KEY, REPOSITORY_KEY
from tritpack.converter.verify.context import Context, Options
from tritpack.converter.verify.rung import Report
from tritpack.converter.version import VERSION
from tritpack.formats.errors import MissingRequirement
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.library import library
from tritpack.runtime.machine import usable_cores

PACKAGES = ("numpy", "tokenizers", "transformers", "torch")
RECORDED = {
    "recorded_repository": REPOSITORY_KEY,
    "recorded_commit": COMMIT_KEY,
}
"""What a file may say of its source, and the keys of its metadata that do."""


def describe(report: Report, context: Context, level: str) -> dict[str, Any]:
    """Provenance as `verify --json` has it. level: what was asked for."""
    return {
        "tritpack": VERSION,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "level": level,
        "oracle": context.judge_name,
        "options": _asked(context.options),
        "file_sha256": context.file.sha256,
        "files": context.file.file_hashes,
        "source_sha256": context.source.sha256,
        "source_files": context.source.file_hashes,
        **_repository(context),
        "kernels": _kernels(report),
        "machine": _machine(),
        "packages": _packages(),
    }


def describe_alone(report: Report, file: GgufFile, level: str, options: Options) -> dict[str, Any]:
    """Provenance of a file that was checked without a source: what it records of its source is what it says."""
    recorded = {key: file.metadata.get(metadata_key) for key, metadata_key in RECORDED.items()}
    return {
        "tritpack": VERSION,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "level": level,
        "options": {key: value for key, value in _asked(options).items() if key != "oracle"},
        "file_sha256": file.sha256,
        "files": file.file_hashes,
        **{key: value for key, value in recorded.items() if isinstance(value, str)},
        "kernels": _kernels(report),
        "machine": _machine(),
        "packages": _packages(),
    }


def _kernels(report: Report) -> list[str]:
    return sorted({symbol for rung in report.rungs for symbol in rung.figures.get("kernels", ())})


def _asked(options: Options) -> dict[str, Any]:
    """Options that were given and decide what is compared; of those that name a file, that they were given."""
    chosen = {
        "quantize": options.quantize,
        "oracle": "recorded" if options.oracle.endswith(".npy") else options.oracle,
        "strict": options.strict,
        "reproduce": options.reproduce,
    }
    inputs = [name for name in ("tokens", "text", "golden", "prompt", "against") if getattr(options, name) is not None]
    return {key: value for key, value in {**chosen, "inputs": inputs}.items() if value}


def _repository(context: Context) -> dict[str, str]:
    """The repository and commit of SOURCE where it came from the Hub; otherwise what FILE records of them."""
    repository, commit = snapshot_of(context.source_path)
    if repository and commit:
        return {"source_repository": repository, "source_commit": commit}
    recorded = {key: context.file.metadata.get(metadata_key) for key, metadata_key in RECORDED.items()}
    return {key: value for key, value in recorded.items() if isinstance(value, str)}


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
