"""Hatchling's hook. It builds the C library with the top-level Makefile, the one place that knows how.

Without a compiler or make it warns the user, and the wheel has no library: converting and inspecting work, and running
a model ends with exit code 7. An error of the compiler fails the build.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WARNING = (
    "tritpack is installed without its C library, because {tools} was not found: convert, inspect and verify --level "
    "weights work, but no model can run. Install a C compiler and make (Debian: apt-get install gcc libc6-dev make), "
    "then: pip install --force-reinstall --no-deps --no-cache-dir tritpack"
)


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hook that runs `make lib` for wheels and editable installs, and tags the wheel with its platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        library = Path(self.root, "runtime", f"libtritpack.{'dylib' if sys.platform == 'darwin' else 'so'}")
        compiler = os.environ.get("CC", "cc").split()[0]
        missing = [tool for tool in ("make", compiler) if shutil.which(tool) is None]
        if missing and not library.is_file():
            message = WARNING.format(tools=" and ".join(missing))
            self.app.display_warning(message)
            _tell_user(message)
            return
        if not missing:
            jobs = f"-j{os.cpu_count() or 1}"
            subprocess.run(["make", "--no-print-directory", jobs, "lib"], cwd=self.root, check=True)
        if not library.is_file():
            raise RuntimeError(f"make lib succeeded but did not write {library}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform_tag()}"


def _tell_user(message: str) -> None:
    """Print a warning on the stderr of the program that runs this build, or else on its terminal.

    pip shows what a build has printed only if it fails, and containers, which often lack a compiler, have no terminal.
    """
    for path in (f"/proc/{os.getppid()}/fd/2", "/dev/tty"):
        with contextlib.suppress(OSError):
            stream = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                if not os.path.sameopenfile(stream, 2):  # else it is on the screen already
                    os.write(stream, f"\nwarning: {message}\n".encode())
                return
            finally:
                os.close(stream)


def _platform_tag() -> str:
    tag = sysconfig.get_platform()
    if tag.startswith("macosx"):  # "universal2" Pythons: the library has this machine's architecture only
        tag = f"{tag.rsplit('-', 1)[0]}-{platform.machine()}"
    return tag.replace("-", "_").replace(".", "_")
