"""numpy waits until something needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


SHOW = """
import sys
from tritpack.converter.cli.main import main
try:
    main()
except SystemExit:
    pass
print("loaded" if "numpy._core" in sys.modules or "numpy.core" in sys.modules else "not loaded")
"""


def test_inspect_reads_a_header_without_numpy(tiny_gguf: Path) -> None:
    shown = python(SHOW, "inspect", "--bandwidth", 20, tiny_gguf)
    assert "a language model" in shown and shown.splitlines()[-1] == "not loaded"


def test_its_statistics_load_it(tiny_gguf: Path) -> None:
    shown = python(SHOW, "inspect", "--bandwidth", 20, "--stats", tiny_gguf)
    assert "have the hashes that the file records" in shown and shown.splitlines()[-1] == "loaded"


def test_the_stand_in_has_what_numpy_has() -> None:
    code = (
        "from tritpack.converter.cli.late_numpy import import_late; import_late()\n"
        "import sys, numpy as np, numpy.typing as npt\n"
        "assert np.array([1, 2]).sum() == 3 and npt.NDArray and np.linalg.norm([3, 4]) == 5\n"
        "import numpy; assert numpy.float32 is np.float32 and sys.modules['numpy'].__version__ == np.__version__"
    )
    python(code)
