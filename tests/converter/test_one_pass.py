"""The one pass over a source: the same bytes however it is cut, bounded, and whole or absent whatever happens."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import DEMO, exit_code_of, run
from tests.make.checkpoints import Tensors, edited_checkpoint
from tritpack.converter.cli.parameters import ByteSize
from tritpack.converter.convert import convert
from tritpack.converter.merge import merge
from tritpack.converter.pipeline import jobs, one_pass, output
from tritpack.converter.plan import PlannedTensor
from tritpack.converter.repack import repack
from tritpack.converter.sources.checkpoint import CheckpointFolder, ShardReader
from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unreadable, Unsupported, WriteFailed
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.partial_file import PartialFile


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(params=["packed", "online", "gguf"])
def source(request: pytest.FixtureRequest, tiny_checkpoint: Path, online_checkpoint: Path, tiny_gguf: Path) -> Path:
    return {"packed": tiny_checkpoint, "online": online_checkpoint, "gguf": tiny_gguf}[request.param]


@pytest.mark.parametrize("outtype", ["i2_s", "t158", "tq2_0"])
def test_threads_and_blocks_do_not_matter(
    source: Path, outtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"outtype": outtype, "embedding_type": "q8_0", "allow_scale_rounding": outtype == "tq2_0"}
    convert(source, whole := tmp_path / "whole.gguf", threads=1, **arguments)  # type: ignore[arg-type]
    monkeypatch.setattr(one_pass, "BLOCK", 3000)
    monkeypatch.setattr(jobs, "PART", 1000)
    (tmp_path / "elsewhere").mkdir()
    before = os.umask(0o077)
    try:
        convert(source, cut := tmp_path / "elsewhere" / "cut.gguf", threads=5, max_memory=300 << 20, **arguments)  # type: ignore[arg-type]
    finally:
        os.umask(before)
    assert digest(cut) == digest(whole)


def test_every_byte_of_a_source_is_read_once(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[str, int] = {}
    real = one_pass._fill

    def counted(data: Bytes, reader: ShardReader, name: str) -> None:
        real(data, reader, name)
        read[name] = read.get(name, 0) + data.size

    monkeypatch.setattr(one_pass, "_fill", counted)
    convert(source, tmp_path / "x.gguf")
    weights = [source] if source.is_file() else sorted(source.glob("*.safetensors"))
    assert read == {path.name: path.stat().st_size for path in weights}


def test_the_recorded_hashes_are_those_of_the_files(tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(tiny_checkpoint, tmp_path / "x.gguf")
    lines = list(GgufFile(tmp_path / "x.gguf").metadata["tritpack.source.files"])
    assert lines == [
        f"{digest(tiny_checkpoint / name)}  {name}"
        for name in sorted(os.listdir(tiny_checkpoint))
        if name != "README.md"
    ]
    total = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    assert GgufFile(tmp_path / "x.gguf").metadata["general.source.sha256"] == total


def test_several_outputs_are_those_of_several_runs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    names = ["i2_s", "t158", "tl1"]
    result = run("convert", str(tiny_checkpoint), "-o", str(tmp_path / "m-{ftype}.gguf"), "--outtype", "I2_S,t158,TL1")
    assert exit_code_of(result) == 0, result.output
    for name in names:
        convert(tiny_checkpoint, alone := tmp_path / "alone.gguf", outtype=name, force=True)
        assert digest(tmp_path / f"m-{name}.gguf") == digest(alone), name


def apart(tensor: PlannedTensor, sink: jobs.Sink) -> jobs.Job:
    """A job that reads its tensor by itself, as those do whose bytes begin where another tensor's begin."""
    job = jobs.WholeJob(tensor, sink, None)  # type: ignore[arg-type]
    job.place = None
    return job


@pytest.mark.parametrize("misfits", [[], [0], [-1], [5000, 9000]], ids=str)
def test_a_table_gets_f16_only_if_every_value_survives(
    misfits: list[int], tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass begins with f16 and changes its mind; what it wrote by then is written again."""

    def edit(tensors: Tensors) -> None:
        dtype, shape, data = tensors["model.embed_tokens.weight"]
        values = np.full(len(data) // 2, 0x3F80, "<u2")  # one, in bf16
        values[misfits] = 0x3301  # 3e-8, which f16 rounds
        tensors["model.embed_tokens.weight"] = dtype, shape, values.tobytes()

    folder = edited_checkpoint(tiny_checkpoint, tmp_path / "c", tensors=edit)
    monkeypatch.setattr(one_pass, "BLOCK", 3000)
    convert(folder, path := tmp_path / "x.gguf", threads=3)
    file = GgufFile(path)
    assert file.tensors["token_embd.weight"].layout == ("bf16" if misfits else "f16")
    assert file.metadata["tritpack.embedding_type"] == ("bf16" if misfits else "f16")
    convert(folder, asked := tmp_path / "y.gguf", embedding_type="bf16" if misfits else "f16")
    assert digest(path) == digest(asked)
    # The same, where no blocks of the table come by.
    monkeypatch.setattr(jobs, "OpenRows", apart)
    convert(folder, whole := tmp_path / "z.gguf")
    assert digest(whole) == digest(asked)


@pytest.mark.parametrize("limit", [{"split_max_tensors": 7}, {"split_max_bytes": 300_000}], ids=str)
def test_a_split_output_merges_to_the_whole_one(
    limit: dict[str, int], tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    conversion = convert(tiny_checkpoint, tmp_path / "x.gguf", **limit)  # type: ignore[arg-type]
    assert len(conversion.files) > 1 and sorted(tmp_path.iterdir()) == conversion.files
    assert conversion.path.name == f"x-00001-of-{len(conversion.files):05}.gguf"
    assert all(path.stat().st_size <= limit.get("split_max_bytes", 1 << 30) for path in conversion.files)
    merge(conversion.path, tmp_path / "merged.gguf")
    assert digest(tmp_path / "merged.gguf") == digest(tiny_gguf)
    repack(conversion.path, tmp_path / "t2.gguf", outtype="t2")
    repack(tiny_gguf, tmp_path / "from_one.gguf", outtype="t2")
    tensors = [
        {name: file.bytes_of(info).tobytes() for name, info in file.tensors.items()}
        for file in (GgufFile(tmp_path / "t2.gguf"), GgufFile(tmp_path / "from_one.gguf"))
    ]
    assert tensors[0] == tensors[1]


@pytest.mark.parametrize("length", range(32))
def test_a_table_that_stays_bf16_fits_a_split(length: int, tmp_path: Path) -> None:
    """The names of the two types differ by a byte, which may take the header of a part beyond a multiple of 32."""
    conversion = convert(DEMO / "checkpoint", tmp_path / "x.gguf", name="n" * (length + 1), split_max_tensors=30)
    file = GgufFile(conversion.path)
    assert len(conversion.files) == 2 and file.tensors["token_embd.weight"].layout == "bf16"
    convert(DEMO / "checkpoint", tmp_path / "y.gguf", name="n" * (length + 1), embedding_type="bf16")
    merge(conversion.path, tmp_path / "merged.gguf")
    assert digest(tmp_path / "merged.gguf") == digest(tmp_path / "y.gguf")


def test_a_killed_split_run_is_continued(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_after(9, tiny_checkpoint, tmp_path / "x.gguf", split_max_tensors=5)
    done = tensors_done(monkeypatch)
    conversion = convert(tiny_checkpoint, tmp_path / "x.gguf", split_max_tensors=5)
    assert len(done) == len(conversion.plan.tensors) - 9 and sorted(tmp_path.iterdir()) == conversion.files
    merge(conversion.path, tmp_path / "merged.gguf")
    assert digest(tmp_path / "merged.gguf") == digest(tiny_gguf)


OUTPUTS = {
    "template": ("{name}.{ftype}.gguf", "A-model-2B.i2_s.gguf"),
    "capitals": ("{FTYPE}.gguf", "I2_S.gguf"),
    "folder": ("folder/", "folder/A-model-1.7M-2b-I2_S.gguf"),
    "folder without slash": ("folder", "folder/A-model-1.7M-2b-I2_S.gguf"),
    "plain": ("plain.gguf", "plain.gguf"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_names_of_outputs(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    given, expected = OUTPUTS[name]
    (tmp_path / "folder").mkdir()
    slash = "/" if given.endswith("/") else ""
    conversion = convert(tiny_checkpoint, f"{tmp_path / given}{slash}", name="A/model 2B")
    assert conversion.path == tmp_path / expected and conversion.path.is_file()


@pytest.mark.parametrize(
    ("given", "outtype", "words"),
    [("-", "i2_s", "cannot be a pipe"), ("x.gguf", "i2_s,t158", "would hold 2 outputs")],
)
def test_outputs_that_cannot_be(given: str, outtype: str, words: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    target = given if given == "-" else str(tmp_path / given)
    result = run("convert", str(tiny_checkpoint), "-o", target, "--outtype", outtype)
    assert exit_code_of(result) == 2 and words in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("text", "size"), [("500M", 500_000_000), ("2g", 2_000_000_000), ("77", 77)])
def test_sizes(text: str, size: int) -> None:
    assert ByteSize().convert(text, None, None) == size


def test_too_little_memory_is_refused_with_the_number(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"needs \d+ bytes of memory, --max-memory allows 1000000") as caught:
        convert(tiny_checkpoint, tmp_path / "x.gguf", max_memory=1_000_000)
    assert "--max-memory" in str(caught.value.hint) and not list(tmp_path.iterdir())


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failed_write_leaves_nothing(
    number: int, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = os.pwrite, [0]

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        written[0] += len(data)
        if written[0] > 50_000:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(WriteFailed, match=os.strerror(number)):
        convert(tiny_checkpoint, tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


def test_a_full_disk(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A real one: a tmpfs that is smaller than the output."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=100k tritpack-test {disk} 2>/dev/null"):
        pytest.skip("no tmpfs can be mounted here")
    try:
        result = run("convert", str(tiny_checkpoint), "-o", str(disk / "x.gguf"))
        assert exit_code_of(result) == 5 and "are free on that disk" in str(result.exception)
        assert not list(disk.iterdir())
    finally:
        os.system(f"umount {disk}")


class Broken(io.BytesIO):
    """A file on a disk that fails."""

    def readinto(self, buffer: object, /) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("stream", "words"), [(Broken(b""), "Input/output error"), (io.BytesIO(b"short"), "was cut short")]
)
def test_a_read_that_fails(
    stream: io.BytesIO, words: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointFolder, "open_shard", lambda self, name: stream)
    with pytest.raises(Unreadable, match=words):
        convert(tiny_checkpoint, tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to(tiny_checkpoint: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(WriteFailed, match="Permission denied"):
        convert(tiny_checkpoint, tmp_path / "x.gguf")


def test_of_two_runs_on_one_output_the_second_stops(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with PartialFile(tmp_path / "x.gguf", 100, force=False):
        with pytest.raises(WriteFailed, match="is being written by another process"):
            convert(tiny_checkpoint, tmp_path / "x.gguf")
        assert len(list(tmp_path.iterdir())) == 1
    convert(tiny_checkpoint, tmp_path / "x.gguf")


# -- runs that are killed ----------------------------------------------------------------------------------------------


def killed_after(tensors: int, source: Path, path: Path, **arguments: Any) -> None:
    """Convert in a process that ends without a word once so many tensors are finished."""
    child = os.fork()
    if not child:
        finished, real = [0], output.Output.finish

        def finish(self: output.Output, tensor: str) -> None:
            real(self, tensor)
            finished[0] += 1
            if finished[0] == tensors:
                os._exit(9)

        output.Output.finish = finish  # type: ignore[method-assign]
        convert(source, path, threads=1, **arguments)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.fixture
def left_over(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """What is left of a conversion to x.gguf that was killed after nine tensors."""
    killed_after(9, tiny_checkpoint, tmp_path / "x.gguf")
    [partial] = tmp_path.iterdir()
    assert partial.name == ".x.gguf.partial"
    return partial


def tensors_done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tensors that are finished from now on."""
    done: list[str] = []
    real = output.Output.finish

    def finish(self: output.Output, tensor: str) -> None:
        done.append(tensor)
        real(self, tensor)

    monkeypatch.setattr(output.Output, "finish", finish)
    return done


def test_a_killed_run_is_continued(
    left_over: Path, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tensors_done(monkeypatch)
    conversion = convert(tiny_checkpoint, tmp_path / "x.gguf")
    assert len(done) == len(conversion.plan.tensors) - 9
    assert digest(tmp_path / "x.gguf") == digest(tiny_gguf) and not left_over.exists()
    assert list(conversion.scales) == [tensor.output.name for tensor in conversion.plan.tensors if tensor.ternary]


@pytest.mark.parametrize(
    "change", ["another layout", "another source", "a touched source", "a torn journal", "rubbish"]
)
def test_what_is_not_continued(
    change: str, left_over: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, outtype = tiny_checkpoint, "t2" if change == "another layout" else "i2_s"
    if change == "another source":
        shutil.copytree(source, tmp_path / "other")
        source = tmp_path / "other"
    elif change == "a touched source":
        os.utime(source / "model.safetensors")
    elif change == "a torn journal":
        data = left_over.read_bytes()
        left_over.write_bytes(data[: data.rindex(b'{"key"') + 10])
    elif change == "rubbish":
        left_over.write_bytes(os.urandom(left_over.stat().st_size))
    done = tensors_done(monkeypatch)
    conversion = convert(source, tmp_path / "x.gguf", outtype=outtype)
    assert len(done) == len(conversion.plan.tensors), change
    convert(source, tmp_path / "y.gguf", outtype=outtype)
    assert digest(tmp_path / "x.gguf") == digest(tmp_path / "y.gguf") and not left_over.exists()


def test_a_part_that_has_changed_is_done_again(
    left_over: Path, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut can leave a journal whose parts never reached the disk."""
    data = bytearray(left_over.read_bytes())
    info = next(info for info in GgufFile(tiny_gguf).tensors.values() if info.name == "token_embd.weight")
    data[info.file_offset : info.file_offset + info.nbytes] = bytes(info.nbytes)
    left_over.write_bytes(data)
    done = tensors_done(monkeypatch)
    convert(tiny_checkpoint, tmp_path / "x.gguf")
    assert "token_embd.weight" in done
    assert digest(tmp_path / "x.gguf") == digest(tiny_gguf)


def test_a_part_after_a_torn_line_is_done_again(left_over: Path, tiny_checkpoint: Path, tiny_gguf: Path) -> None:
    with open(left_over, "ab") as stream:
        stream.write(b'{"part": "blk.1.ffn')
    convert(tiny_checkpoint, path := left_over.with_name("x.gguf"))
    assert digest(path) == digest(tiny_gguf)


def killable_child(work: Callable[[], object]) -> int:
    """The id of a forked process that does `work`, and that SIGTERM and SIGINT kill from its first step on.

    The signals wait until their handlers are the default ones: a KeyboardInterrupt in the child would
    unwind into a second pytest, which shares the first one's pipes.
    """
    numbers = {signal.SIGTERM, signal.SIGINT}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    child = os.fork()
    if not child:
        try:
            for number in numbers:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return child


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_two_hundred_deaths(number: int, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """At random moments: the output is whole or absent, the source is as it was, and the next run succeeds."""
    chance = random.Random(int(number))
    convert(tiny_checkpoint, expected := tmp_path / "expected.gguf")
    before = {path: digest(path) for path in tiny_checkpoint.iterdir()}
    (folder := tmp_path / "out").mkdir()
    killed = 0
    for _ in range(200 if number == signal.SIGKILL else 30):
        child = killable_child(lambda: convert(tiny_checkpoint, folder / "x.gguf", force=True))
        time.sleep(chance.uniform(0, 0.08))
        os.kill(child, number)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
        if (folder / "x.gguf").exists():
            assert digest(folder / "x.gguf") == digest(expected), killed
            if chance.random() < 0.5:
                (folder / "x.gguf").unlink()
        assert {path.name for path in folder.iterdir()} <= {"x.gguf", ".x.gguf.partial"}, killed
    assert killed > 10
    convert(tiny_checkpoint, folder / "x.gguf", force=True)
    assert [path.name for path in folder.iterdir()] == ["x.gguf"] and digest(folder / "x.gguf") == digest(expected)
    assert {path: digest(path) for path in tiny_checkpoint.iterdir()} == before


def test_options_that_name_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = run("convert", str(tiny_checkpoint), "-o", str(tmp_path / "x.gguf"), "--outtype", "i2_s,q3")
    assert result.exit_code == 2 and "'q3' is not one of" in result.output
