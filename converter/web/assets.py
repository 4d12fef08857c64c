"""The files of the page: sources that ship as they are, and the engine that `make web` builds."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import tritpack.runtime
from tritpack.formats.errors import MissingRequirement
from tritpack.runtime.abi import ABI_VERSION

WEB = Path(tritpack.runtime.__file__).parent / "web"
PAGE, LOCAL, BUILT = WEB / "page", WEB / "local", WEB / "npm" / "dist"
ENGINE = (
    "tritpack.js",
    "tritpack-worker.js",
    "tritpack-thread.js",
    "tritpack.wasm",
    "tritpack-threads.wasm",
    "licenses.txt",
)
PACKAGES = "clang lld wasi-libc libclang-rt-dev-wasm32 nodejs npm"
"""Debian's, which `make web` needs."""


def require_engine() -> None:
    """Raise MissingRequirement unless the engine of the page was built, and from this version of the C library."""
    if missing := [name for name in ENGINE if not (BUILT / name).is_file()]:
        raise MissingRequirement(
            f"the page's engine is not part of this installation ({missing[0]} is missing)",
            hint=f"in the source tree: make web (Debian: apt-get install {PACKAGES}); released wheels contain it",
        )
    built = (BUILT / "abi").read_text("ascii").strip() if (BUILT / "abi").is_file() else "unknown"
    if built != str(ABI_VERSION):
        raise MissingRequirement(
            f"the page's engine was built for version {built} of the C library, this is version {ABI_VERSION}",
            hint="run make web again",
        )


def copy_page(folder: Path) -> None:
    """Write the page with the engine that runs in the browser, and the service worker that keeps it."""
    for path in sorted(PAGE.iterdir()):
        shutil.copyfile(path, folder / path.name)
    for name in ("engine.js", "local_engine.js"):
        shutil.copyfile(LOCAL / name, folder / name)
    (folder / "tritpack").mkdir()
    for name in ENGINE:
        shutil.copyfile(BUILT / name, folder / "tritpack" / name)
    (folder / ".nojekyll").touch()  # GitHub's pages take the files as they are


def hashes(folder: Path, *suffixes: str) -> dict[str, str]:
    """Return path -> SHA-256 of the files of the page with these suffixes."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in suffixes)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def write_service_worker(folder: Path) -> None:
    """Write sw.js, which knows every file of the page and changes when one of them does. The files of the model belong
    to the worker that loads it, but for their description."""
    described = hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()
    files = {**hashes(folder, ".html", ".css", ".js", ".svg", ".wasm"), "model.json": described}
    version = hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]
    head = f"const VERSION = {json.dumps(version)};\nconst FILES = {json.dumps(files)};\n"
    (folder / "sw.js").write_text(head + (LOCAL / "sw.js").read_text("utf-8"), "utf-8")
