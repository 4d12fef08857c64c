"""Hatchling's hook: builds the C library through the top-level Makefile, so that there is one source of truth.

Without a compiler or make, a wheel without the library is made and a warning printed: converting and inspecting work,
running ends with exit code 7. A compiler that fails fails the build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs `make lib` for wheels and editable installs, and tags the wheel with the platform it was built for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        compiler = os.environ.get("CC", "cc").split()[0]
        missing = [tool for tool in ("make", compiler) if shutil.which(tool) is None]
        if missing:
            self.app.display_warning(
                f"{' and '.join(missing)} not found: tritpack is installed without its C library, so models cannot run"
            )
            return
        subprocess.run(["make", "--no-print-directory", "lib"], cwd=self.root, check=True)
        if not any(Path(self.root, "runtime").glob("libtritpack.*")):
            raise RuntimeError("make lib ended well but left no runtime/libtritpack.*")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
