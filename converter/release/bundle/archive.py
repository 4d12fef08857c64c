"""The two wrappings of a bundle: members of a tar archive, in one Zstandard frame.

Every bundle of the same files has the same bytes, so a header says nothing but path and size, and a reader refuses any
other: so nothing else that tar can hold (links, devices, owners, sparse files) gets in.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zstandard

from tritpack.converter.release.file_paths import refuse_bad_path
from tritpack.converter.release.manifest import NAME, Entry, Manifest
from tritpack.formats.errors import TritpackError, Unreadable, locating
from tritpack.formats.inputs import open_input

SUFFIX = ".tar.zst"
LEVEL = 3
"""Of zstd. The codes of trained and of random models leave nothing to find but their shares of -1, 0 and +1, and for
those a level is as good as the next. Measured in bits per weight, and above the entropy of the codes (demo: 5.5 million
trained weights, entropy 1.5782; 2B shape: uniformly random ones, entropy 1.5850):

    representation          demo, level 3     demo, level 19    2B shape, level 3
    i2_s, as in the file    1.5888  +0.7 %    1.5919  +0.9 %    1.6035  +1.2 %
    t2, as in the file      1.5879  +0.6 %    1.5917  +0.9 %    1.6035  +1.2 %
    t158, as in the file    1.6108  +2.1 %    1.6082  +1.9 %    1.6001  +1.0 %
    tq1_0, as in the file   1.6608  +5.2 %    1.6417  +4.0 %    1.6797  +6.0 %
    five trits per byte     1.5934  +1.0 %    1.5796  +0.1 %    1.6000  +1.0 %
    presence and signs      1.5762  -0.1 %    1.5760  -0.1 %    1.5943  +0.6 %
    low and high bits       1.8526 +17.4 %    1.8545 +17.5 %    1.8542 +17.0 %
    one code per byte       2.0106 +27.4 %    1.6473  +4.4 %    2.0117 +26.9 %

i2_s, which `convert` writes by default, is within 2 % of the entropy as it is. So members are the GGUF files
themselves, which every tar unpacks, and there is no representation and no entropy coder of our own for a last percent.
"""
WINDOW_LOG = 27
"""128 MiB, the most that `tar --zstd -x` accepts without an option. GGUFs of one model with different layouts share
their embedding if it lies so near: those of the demo as i2_s and t158 take 3.06 MB instead of 3.92. At the 2B shape it
does not: they take 1841 MB, and 1337 with a window of 2 GiB, which every reader would have to hold in memory."""
JOB_SIZE = 16 << 20
"""Bytes that one thread compresses. It is fixed, and there is always at least one worker: so the bytes do not depend on
the number of threads."""
MOST_THREADS = 64
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
LONGEST_EXTENSION = 16 << 10
"""Bytes of the records that hold a long path or a large size."""
KINDS = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"5": "a folder", b"6": "a pipe",
    b"L": "a GNU long name", b"K": "a GNU long link", b"S": "a sparse file", b"g": "global pax records",
}  # fmt: skip
"""What else the type of a tar header can be."""


def header_of(entry: Entry) -> bytes:
    """The tar header of a member: ustar, with pax records for what ustar cannot say."""
    info = tarfile.TarInfo(entry.path)
    info.size = entry.nbytes
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def padding_of(nbytes: int) -> bytes:
    """The zeros after the bytes of a member."""
    return bytes(-nbytes % BLOCK)


def archive_size(entries: Iterable[Entry]) -> int:
    """Bytes of a tar archive with these members."""
    return sum(len(header_of(entry)) + entry.nbytes + len(padding_of(entry.nbytes)) for entry in entries) + len(END)


def all_entries(manifest: Manifest) -> list[Entry]:
    """Every member of a bundle in order; the manifest comes first, so that a reader knows what may follow."""
    return [Entry(NAME, len(manifest.encoded()), ""), *manifest.files.values()]


def new_compressor(threads: int, nbytes: int = -1) -> Any:
    """A zstd compressor of one frame. threads: 0 is one per core. nbytes: of what will be compressed, if known."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        window_log=WINDOW_LOG,
        enable_ldm=True,
        threads=max(1, min(threads or os.cpu_count() or 1, MOST_THREADS)),
        job_size=JOB_SIZE,
        write_checksum=True,
        write_content_size=nbytes >= 0,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=nbytes)


class Frame:
    """The one Zstandard frame of a bundle, as a file to read: `read(n)` returns its bytes as they are stored.

    It walks the frame's blocks, so that it ends where the frame does. Raises Unreadable for a file that is not one
    whole frame with a declared size, or whose reader would need more than the window of a bundle.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = open_input(path)
        self.nbytes = os.fstat(self._stream.fileno()).st_size
        self._left = 0
        self._last = False
        self._head = self._stream.read(18)
        try:
            if self._head[: len(zstandard.FRAME_HEADER)] != zstandard.FRAME_HEADER:
                raise zstandard.ZstdError("it does not begin with a Zstandard frame")
            parameters = zstandard.get_frame_parameters(self._head)
            header = zstandard.frame_header_size(self._head)
        except zstandard.ZstdError as error:
            hint = f"tritpack bundle create writes bundles, NAME{SUFFIX}"
            raise Unreadable(f"is not a bundle: {error}", path=path, hint=hint) from error
        self.content_size: int = parameters.content_size
        if self.content_size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
            raise Unreadable("does not declare its size, as every bundle does", path=path)
        # The two bits of the descriptor that mean nothing are zero.
        if parameters.window_size > 1 << WINDOW_LOG or parameters.dict_id or self._head[4] & 0x1C != 0x04:
            raise Unreadable("is compressed in another way than bundles are: window, dictionary or checksum", path=path)
        self._stream.seek(header)
        self._head = self._head[:header]

    def read(self, count: int = -1) -> bytes:
        if self._head:
            data, self._head = self._head, b""
            return data
        if not self._left and not self._last:
            return self._block_header()
        data = self._stream.read(min(count if count > 0 else self._left, self._left))
        if self._left and not data:
            raise Unreadable(f"ends after {self.nbytes} bytes, in the middle of its data", path=self.path)
        self._left -= len(data)
        return data

    def _block_header(self) -> bytes:
        data = self._stream.read(3)
        if len(data) < 3:
            raise Unreadable(f"ends after {self.nbytes} bytes, in the middle of its data", path=self.path)
        word = int.from_bytes(data, "little")
        self._last, is_run = bool(word & 1), word >> 1 & 3 == 1
        self._left = 1 if is_run else word >> 3
        self._left += 4 if self._last else 0  # the checksum
        return data

    def expect_end(self) -> None:
        """Raise Unreadable if bytes follow the frame."""
        if self._left or self._stream.read(1):
            raise Unreadable("has bytes after its end", path=self.path)

    def close(self) -> None:
        self._stream.close()


class Archive:
    """The uncompressed bytes of a bundle, from the first to the last. A context manager.

    Raises Unreadable, naming the file. After an error every further `take` raises it again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frame = Frame(path)
        self.content_size = self._frame.content_size
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
        self._reader = decompressor.stream_reader(self._frame)  # type: ignore[arg-type, unused-ignore]
        self._failed: TritpackError | None = None

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self._frame.close()

    def take(self, count: int) -> bytes:
        """The next `count` bytes; never fewer."""
        if self._failed is not None:
            raise self._failed
        try:
            data = self._reader.read(count)
            while len(data) < count and (more := self._reader.read(count - len(data))):
                data += more
            if len(data) < count:
                raise Unreadable("ends in the middle of its archive", path=self.path)
        except zstandard.ZstdError as error:
            self._failed = Unreadable(f"its compressed data are damaged: {error}", path=self.path)
            raise self._failed from error
        except TritpackError as error:
            self._failed = error
            raise
        return data

    def next_header(self) -> tuple[str, int] | None:
        """The path and size of the next member; None at the end of the archive. Raises Unreadable for a member that is
        not an ordinary file, and for a header that is not as tritpack writes it."""
        with locating(path=self.path):
            raw = block = self.take(BLOCK)
            if not block.strip(b"\0"):
                return None
            if block[156:157] == b"x":
                size = _parsed(block).size
                if size > LONGEST_EXTENSION:
                    raise Unreadable(f"has a tar header of {size} bytes, expected at most {LONGEST_EXTENSION}")
                records = self.take(size + len(padding_of(size)))
                block = self.take(BLOCK)
                raw += records + block
                path, nbytes = _extended(records[:size], _parsed(block))
            else:
                info = _parsed(block)
                path, nbytes = info.name, info.size
            if block[156:157] != b"0":
                kind = KINDS.get(block[156:157], f"a member of type {block[156:157]!r}")
                raise Unreadable(f"has {kind}, {path[:100]!r}, and bundles hold nothing but files")
            refuse_bad_path(path)
            if _written(path, nbytes) != raw:
                hint = "unpack it with another program, look at the files, and create it again"
                raise Unreadable(f"the tar header of {path[:100]!r} is not one that tritpack writes", hint=hint)
            return path, nbytes

    def expect_end(self) -> None:
        """Raise Unreadable unless the archive and the file end after the zeros that next_header saw."""
        with locating(path=self.path):
            if self.take(BLOCK).strip(b"\0"):
                raise Unreadable("its archive does not end with two blocks of zeros")
            try:
                more = self._reader.read(1)
            except zstandard.ZstdError as error:
                raise Unreadable(f"its compressed data are damaged: {error}") from error
            if more:
                raise Unreadable("has data after the end of its archive")
            self._frame.expect_end()


def _parsed(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        if info.size < 0:
            raise ValueError(f"its size is {info.size}")
        return info
    except UnicodeDecodeError as error:
        raise Unreadable(f"has a name that is not UTF-8: {error.object[:100]!r}") from error
    except (tarfile.HeaderError, ValueError) as error:
        raise Unreadable(f"has a damaged tar header: {error}") from error


def _extended(records: bytes, info: tarfile.TarInfo) -> tuple[str, int]:
    """Path and size, with the pax records `LENGTH KEY=VALUE\\n` before what the header itself says."""
    path, nbytes = info.name, info.size
    try:
        while records:
            length = int(records[: records.index(b" ")])
            if not 0 < length <= len(records):
                raise ValueError("a record of an impossible length")
            key, _, value = records[:length].partition(b" ")[2].removesuffix(b"\n").partition(b"=")
            if key == b"path":
                path = value.decode()
            elif key == b"size":
                nbytes = int(value)
                if nbytes < 0:
                    raise ValueError(f"its size is {nbytes}")
            else:
                raise Unreadable(f"has a pax record {key[:40]!r}, which tritpack does not write")
            records = records[length:]
    except UnicodeDecodeError as error:
        raise Unreadable(f"has a name that is not UTF-8: {error.object[:100]!r}") from error
    except ValueError as error:
        raise Unreadable(f"has damaged pax records: {error}") from error
    return path, nbytes


def _written(path: str, nbytes: int) -> bytes:
    try:
        return header_of(Entry(path, nbytes, ""))
    except (ValueError, OverflowError, UnicodeError):
        return b""
