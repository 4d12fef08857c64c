"""The pages of the weights: what is copied, what is refused, and what the system says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tritpack.formats.errors import MissingRequirement
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.huge_pages import BLOCK, HERE
from tritpack.runtime import machine, pages
from tritpack.runtime.model import Model


@pytest.fixture
def large(tmp_path: Path) -> GgufFile:
    """A file of more than two huge pages."""
    data = np.arange(5 << 18, dtype=np.uint32).view(np.uint8)
    write_gguf(path := tmp_path / "large.gguf", {}, [TensorPlan("t", (5 << 18,), 0, data.size)], [[data]])
    return GgufFile(path)


def test_a_copy_has_the_same_bytes_and_begins_with_a_huge_page(
    large: GgufFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PIECE", BLOCK)
    [copy] = pages.copied(large, 3)
    assert np.array_equal(copy, large.mapped[0]) and copy.ctypes.data % BLOCK == 0 and not copy.flags.writeable


def test_a_model_in_copied_weights_gives_the_same_bits(tiny_gguf: Path) -> None:
    with Model(tiny_gguf, threads=2) as mapped, Model(tiny_gguf, threads=2, no_mmap=True) as copied:
        assert not np.shares_memory(copied.weights[0], copied.file.mapped[0])
        assert mapped.logits([1, 2, 3]).tobytes() == copied.logits([1, 2, 3]).tobytes()


def test_a_copy_that_does_not_fit_is_refused(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "available_memory", lambda: 1000)
    with pytest.raises(MissingRequirement, match=r"a copy of the weights needs 0.0 GB of memory, 0.0 GB are available"):
        Model(tiny_gguf, no_mmap=True)
    assert exit_code_of(run("generate", tiny_gguf, "--tokens", "1", "--no-mmap")) == 7
    Model(tiny_gguf).close()


@pytest.mark.skipif(not HERE, reason="only Linux is asked for huge pages")
@pytest.mark.parametrize(("free", "read"), [(None, True), (3 * BLOCK, True), (2 * BLOCK, False)])
def test_only_files_that_fit_the_memory_are_read_in(
    free: int | None, read: bool, large: GgufFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    advice: list[int] = []
    monkeypatch.setattr(pages, "available_memory", lambda: free)
    monkeypatch.setattr(pages, "_advise", lambda data, number: advice.append(number))
    assert pages.read_in(large, 2) is large.mapped
    assert advice == [pages.HUGE, *[pages.POPULATE_READ] * read]


def test_the_share_of_huge_pages_is_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.zeros(BLOCK, np.uint8)
    first = data.ctypes.data
    sizes = "Rss: 2000 kB\nAnonHugePages: 1000 kB\nFilePmdMapped: 500 kB\n"
    area = f"{first:x}-{first + BLOCK:x} rw-p 00000000 00:00 0\n{sizes}"
    other = "1000-2000 rw-p 00000000 00:00 0 /x: y\nRss: 4000 kB\nAnonHugePages: 4000 kB\n"
    (tmp_path / "smaps").write_text(other + area + other)
    monkeypatch.setattr(pages, "SMAPS", tmp_path / "smaps")
    assert pages.huge_share([data]) == 0.75
    assert pages.huge_share([np.zeros(0, np.uint8)]) is None
    monkeypatch.setattr(pages, "SMAPS", tmp_path / "absent")
    assert pages.huge_share([data]) is None


def test_this_machine_has_memory() -> None:
    free = machine.available_memory()
    assert free is None or free > 1 << 20


def test_what_the_system_does_here_is_a_share_or_unknown(tmp_path: Path) -> None:
    """How large the shares are is the business of the kernel and of the file system."""
    shares = pages.shares_here(tmp_path)
    assert set(shares) == {"file", "memory"}
    for name, share in shares.items():
        assert share is None or 0 <= share <= 1, name
    assert (tmp_path / "pages").stat().st_size == pages.SAMPLE
