"""Hatchling's hook. It builds the C library with the top-level Makefile, the one place that knows how.

Without a compiler or make it prints a warning and the wheel has no library: converting and inspecting work, and running
a model ends with exit code 7. An error of the compiler fails the build.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hook that runs `make lib` for wheels and editable installs, and tags the wheel with its platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        library = Path(self.root, "runtime", f"libtritpack.{'dylib' if sys.platform == 'darwin' else 'so'}")
        compiler = os.environ.get("CC", "cc").split()[0]
        missing = [tool for tool in ("make", compiler) if shutil.which(tool) is None]
        if missing and not library.is_file():
            tools = " and ".join(missing)
            self.app.display_warning(f"{tools} not found: installed without the C library, so models cannot run")
            return
        if not missing:
            subprocess.run(["make", "--no-print-directory", "lib"], cwd=self.root, check=True)
        if not library.is_file():
            raise RuntimeError(f"make lib succeeded but did not write {library}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform_tag()}"


def _platform_tag() -> str:
    tag = sysconfig.get_platform()
    if tag.startswith("macosx"):  # "universal2" Pythons: the library has this machine's architecture only
        tag = f"{tag.rsplit('-', 1)[0]}-{platform.machine()}"
    return tag.replace("-", "_").replace(".", "_")
