"""GGUF files: the mapped bytes, the metadata, and the tensors with the meaning that each type id has in this file.

A split set is one GGUF whose tensors lie in several files; who reads it names the first (see split_files.py).

gguf-py cannot take the type ids and sizes of ternary files: I2_S is n/4 + 32 bytes, which no block size describes. The
header is parsed in gguf_header.py; how the bytes of a tensor are decoded is the business of formats/layouts.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from tritpack.formats.arrays import Bytes, Scales
from tritpack.formats.errors import Unreadable, locating
from tritpack.formats.files import hash_of_parts, sha256_file
from tritpack.formats.gguf_header import ALIGNMENT_KEY, MIN_HEADER, Header, TensorRow, read_header
from tritpack.formats.huge_pages import let_go
from tritpack.formats.inputs import Unchanged, map_input
from tritpack.formats.layouts import catalog
from tritpack.formats.layouts.layout import HEAD_BYTES, Layout, bad_scale
from tritpack.formats.layouts.tiling import Tilings
from tritpack.formats.split_files import KEYS, Part, part_of
from tritpack.formats.ternary import TernaryTensor, coarsest_both


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How to read a file that does not say everything itself, or says it wrongly.

    read_as: one of names.READ_AS, the order of bytes in the tensors that the file calls i2_s. repair: read illegal
    codes and rubbish in padding as zeros instead of refusing them. tilings: of the TL1 and TL2 tensors whose tiling the
    file does not record. any_part: read one part of a split file for what it is, where the whole cannot be read. plain:
    arrays of numbers in the metadata are memoryviews, so that numpy need not be imported to look at a header.
    """

    read_as: str | None = None
    repair: bool = False
    tilings: Tilings = dataclasses.field(default_factory=dict)
    any_part: bool = False
    plain: bool = False


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """What the file says of one tensor.

    shape: [rows, columns], slowest dimension first, the reverse of GGUF's order; () for a scalar; a dimension
    may be 0. file_offset: from byte 0 of its file.
    nbytes: of the stored tensor, trailer included; for an unknown type, all bytes up to the next tensor. meaning: what
    the type id means here; None if it is unknown. file_index: which of GgufFile.files it lies in. other_meanings: other
    readings of the type id that have the size found too, and that no other tensor of the file rules out.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    file_offset: int
    nbytes: int
    meaning: catalog.TypeMeaning | None
    file_index: int = 0
    other_meanings: tuple[catalog.TypeMeaning, ...] = ()

    @property
    def cols(self) -> int:
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """The product of all dimensions but the last."""
        return math.prod(self.shape[:-1])

    @property
    def layout(self) -> str:
        """The name of its layout or float type, or `unknown(ID)`."""
        return self.meaning.name if self.meaning else f"unknown({self.type_id})"


class _MappedFile:
    """One file: its mapped bytes, its header, its tensors in order, and which part of a split file it is.

    index: see TensorInfo.file_index. The metadata of later files of a set say nothing more, as in llama.cpp, and are
    not kept.
    """

    def __init__(self, path: Path, index: int = 0, *, plain: bool = False) -> None:
        self.path: Final = path
        self._view: Final = map_input(path, smallest=MIN_HEADER, what="a GGUF header")
        self.size: Final = len(self._view)
        with locating(path=path):
            header = read_header(self._view, plain=plain)
            self.tensors: Final = _tensor_infos(header, self._view, index)
            self.part: Final = part_of(path, header.metadata, len(self.tensors))
        self.header: Final = (
            dataclasses.replace(header, metadata={}, metadata_types={}, encoded={}) if index else header
        )

    @functools.cached_property
    def mapped(self) -> Bytes:
        return np.frombuffer(self._view, np.uint8)

    @property
    def bytes_after_tensors(self) -> int:
        """How many bytes after the last tensor and its padding belong to no tensor."""
        end = max((tensor.file_offset + tensor.nbytes for tensor in self.tensors), default=self.size)
        unused = self.size - end
        return unused if unused >= self.header.alignment else 0

    def release(self, first: int, last: int) -> None:
        if last > first:
            let_go(self._view, first, last)


class GgufFile:
    """A GGUF file, mapped and checked. It does not change: to read it in another way, open it with other options.

    path: the file, or the first of a split set, whose others lie beside it; the set is read as the file that merging it
    would give, without the keys of the split.
    Opening reads the headers alone. metadata: values are bool, int, float and str; arrays are np.ndarray of numbers
    (but see ReadOptions.plain), Sequence[str], or a list of arrays. metadata_types: see gguf_header.Header. tensors: by
    name, in the file's order. layouts: what the names of ternary layouts mean in this file. options: how it is read.
    header: of `path`, as it stands there. size: in bytes, of all files. unchanged: tells whether a file has changed
    since.
    part: which part of a split file it is, where ReadOptions.any_part let it be read without the others; None for
    whatever is whole.

    Raises Unreadable, naming the file and what was found, for anything truncated, corrupt or hostile, and for a set
    that is not complete.
    """

    def __init__(self, path: str | Path, read: ReadOptions | None = None) -> None:
        self.path: Final = Path(path)
        self.options: Final = read or ReadOptions()
        self.unchanged: Final = Unchanged([self.path])
        first = _MappedFile(self.path, plain=self.options.plain)
        header = first.header
        with locating(path=self.path):
            self.layouts: Final[Mapping[str, Layout]] = MappingProxyType(_layouts(header.metadata, self.options))
        self._files: Final = [first]
        self.part: Final = None if first.part is None else self._add_others(first.part)
        self.tensors: Final[Mapping[str, TensorInfo]] = {t.name: t for file in self._files for t in file.tensors}
        hidden = KEYS if len(self._files) > 1 else ()
        self.header: Final = header
        self.version: Final = header.version
        self.metadata: Final = {key: value for key, value in header.metadata.items() if key not in hidden}
        self.metadata_types: Final = {key: kind for key, kind in header.metadata_types.items() if key not in hidden}
        self.alignment: Final = header.alignment
        self.data_offset: Final = header.data_offset
        self.size: Final = sum(file.size for file in self._files)

    def _add_others(self, part: Part) -> Part | None:
        """Open the other files of a set; return the part that this file is if they are not there."""
        try:
            others = list(_others(self._files[0], part, self.unchanged))
        except Unreadable as error:
            if not self.options.any_part:
                raise
            return part if part.number != 1 or part.missing else dataclasses.replace(part, problem=str(error))
        self._files.extend(others)
        return None

    def encoded_metadata(self) -> dict[str, Any]:
        """The metadata for a writer that keeps every byte of its values, which need not be UTF-8."""
        encoded = {key: self._files[0].header.encoded[key] for key in self.metadata}
        return encoded | {key: self.alignment for key in encoded if key == ALIGNMENT_KEY}

    @functools.cached_property
    def mapped(self) -> list[Bytes]:
        """The bytes of each file, uint8."""
        return [file.mapped for file in self._files]

    @property
    def header_bytes(self) -> Bytes:
        """The bytes before the tensors of `path`, uint8, as a view of the mapped file."""
        return self._files[0].mapped[: self.data_offset]

    @property
    def files(self) -> list[Path]:
        """The paths of all files that are read, in order."""
        return [file.path for file in self._files]

    @property
    def shown_files(self) -> list[str]:
        """What messages call these files."""
        return [str(path) for path in self.files]

    @functools.cached_property
    def file_hashes(self) -> dict[str, str]:
        """The SHA-256 of each file, by name, in order. Raises Unreadable."""
        return {path.name: sha256_file(path) for path in self.files}

    @property
    def sha256(self) -> str:
        """One hash for all files: see hash_of_parts."""
        return hash_of_parts([*self.file_hashes.values()])

    @property
    def bytes_after_tensors(self) -> int:
        """How many bytes at the ends of its files belong to no tensor."""
        return sum(file.bytes_after_tensors for file in self._files)

    def path_of(self, tensor: TensorInfo) -> Path:
        """The file that a tensor lies in."""
        return self._files[tensor.file_index].path

    def bytes_of(self, tensor: TensorInfo) -> Bytes:
        """The stored bytes of a tensor, uint8 (nbytes,), as a view of the mapped file."""
        return self._files[tensor.file_index].mapped[tensor.file_offset : tensor.file_offset + tensor.nbytes]

    def release(self, tensor: TensorInfo) -> None:
        """Let go of a tensor's pages. So resident memory is bounded by the largest tensor instead of the file."""
        self.release_bytes(tensor.file_index, tensor.file_offset, tensor.file_offset + tensor.nbytes)

    def release_bytes(self, file_index: int, first: int, last: int) -> None:
        """Let go of the pages under some bytes of one of the files."""
        self._files[file_index].release(first, last)

    def layout_of(self, tensor: TensorInfo) -> Layout | None:
        """The ternary layout of a tensor as this file means it; None if it has another type, or no elements."""
        return self.layouts.get(tensor.layout) if tensor.meaning and 0 not in tensor.shape else None

    def ternary(self, tensor: TensorInfo, data: Bytes | None = None) -> TernaryTensor | None:
        """Codes and scales of a tensor, with its outer scale multiplied in; None if it has no ternary layout. data: its
        bytes, if they are in memory already. Raises Unreadable, naming the file and the tensor, on whatever its layout
        refuses."""
        if (layout := self.layout_of(tensor)) is None:
            return None
        with locating(path=self.path_of(tensor), tensor=tensor.name):
            data = self.bytes_of(tensor) if data is None else data
            stored = layout.unpack(data, tensor.rows, tensor.cols, repair=self.options.repair)
            outer = self.outer_scale(tensor)
            if outer == 1:
                return stored
            scales = _multiplied(stored.scales, outer)
            return TernaryTensor(stored.codes if outer else np.zeros_like(stored.codes), scales)

    def scales(self, tensor: TensorInfo) -> Scales:
        """The scales of a ternary tensor as `ternary` gives them. Raises Unreadable if one is not a multiplier, and
        ValueError for floats."""
        if (layout := self.layout_of(tensor)) is None:
            raise ValueError(f"{tensor.name} is not ternary")
        with locating(path=self.path_of(tensor), tensor=tensor.name):
            scales = layout.read_scales(self.bytes_of(tensor), tensor.rows, tensor.cols)
            if reason := bad_scale(scales):
                raise Unreadable(f"{layout.name}: {reason}")
            return _multiplied(coarsest_both(scales), self.outer_scale(tensor))

    def check(self, tensor: TensorInfo, stored: Bytes | None = None) -> list[str]:
        """What makes a ternary tensor one that nobody should use; empty if nothing, and for other tensors. stored: its
        bytes, if they are in memory already."""
        if (layout := self.layout_of(tensor)) is None:
            return []
        try:
            stored = self.bytes_of(tensor) if stored is None else stored
            if not (problems := layout.check(stored, tensor.rows, tensor.cols)):
                _multiplied(layout.read_scales(stored, tensor.rows, tensor.cols), self.outer_scale(tensor))
        except Unreadable as error:
            return [error.message]
        return problems

    def outer_scale(self, tensor: TensorInfo) -> np.float32:
        """What the scales in a tensor's bytes are multiplied by: the one f32 in the tensor `NAME.scale`, which is
        llama.cpp's way to keep a scale that f16 does not hold; 1 where there is none. Raises Unreadable."""
        beside = self.tensors.get(tensor.name.removesuffix("weight") + "scale")
        if beside is None or not tensor.name.endswith(".weight"):
            return np.float32(1)
        if beside.layout != "f32" or beside.shape != (1,):
            raise Unreadable(f"{beside.name!r} beside it is {beside.layout} {list(beside.shape)}, expected one f32")
        scale = np.float32(self.bytes_of(beside).view("<f4")[0])
        if not (np.isfinite(scale) and scale >= 0):
            raise Unreadable(f"{beside.name!r} beside it is {scale}, expected a finite number >= 0")
        return scale


# -- steps of opening a file -------------------------------------------------------------------------------------------


def _layouts(metadata: Mapping[str, Any], read: ReadOptions) -> dict[str, Layout]:
    """What layout names mean in a file: its recorded tilings come before those of the options."""
    layouts = catalog.layouts_of(metadata, read.tilings)
    if read.read_as is not None:
        layouts["i2_s"] = catalog.REPAIRABLE[read.read_as]
    return layouts


def _others(first: _MappedFile, part: Part, unchanged: Unchanged) -> Iterator[_MappedFile]:
    """The other files of the set that `first` begins, each checked. Raises Unreadable where one is missing or foreign,
    and where all of them do not hold the tensors of the whole."""
    names = {tensor.name: part.name(1) for tensor in first.tensors}
    part.check_first(first.path)
    for number in range(2, part.count + 1):
        path = first.path.parent / part.name(number)
        unchanged.add(path)
        file = _MappedFile(path, number - 1)
        part.check_other(number, path, file.part)
        for tensor in file.tensors:
            if tensor.name in names:
                raise Unreadable(f"is in {names[tensor.name]} too", path=path, tensor=tensor.name)
            names[tensor.name] = path.name
        yield file
    part.check_total(first.path, len(names))


def _tensor_infos(header: Header, mapped: memoryview, file_index: int) -> list[TensorInfo]:
    """The tensors of a file, each with the meaning of its type id whose size fits the space that the tensor has.

    Where several do, it is the one that other tensors of that id have, since one file has one writer.
    """
    infos = list(_sized_tensor_infos(header, mapped, file_index))
    certain: dict[int, set[catalog.TypeMeaning | None]] = {}
    for info in infos:
        if not info.other_meanings:
            certain.setdefault(info.type_id, set()).add(info.meaning)
    return [_settled(info, certain.get(info.type_id, set())) if info.other_meanings else info for info in infos]


def _settled(info: TensorInfo, certain: set[catalog.TypeMeaning | None]) -> TensorInfo:
    """An ambiguous tensor with the one of its meanings that its file has elsewhere; itself if that decides nothing."""
    candidates = [meaning for meaning in (info.meaning, *info.other_meanings) if meaning and meaning in certain]
    if len(candidates) != 1:
        return info
    [meaning] = candidates
    size = meaning.nbytes(info.rows, info.cols, b"")  # of no ambiguous type do first bytes decide it
    assert size is not None
    return dataclasses.replace(info, meaning=meaning, nbytes=size, other_meanings=())


def _sized_tensor_infos(header: Header, mapped: memoryview, file_index: int) -> Iterable[TensorInfo]:
    """The tensors of a file, each with every meaning of its type id whose size fits the space that the tensor has."""
    starts = sorted({row.start for row in header.rows} | {len(mapped)})
    next_start = dict(zip(starts, starts[1:]))
    for row in header.rows:
        end = next_start.get(row.start, 0) if row.start < len(mapped) else 0
        room = max(end - row.start, 0)
        head = bytes(mapped[row.start : row.start + min(room, HEAD_BYTES)])
        with locating(tensor=row.name):
            try:
                info = tensor_info(row, room, header.alignment, head)
            except Unreadable as error:
                if (whole := _whole_size(header)) > len(mapped):
                    error.message += f"; the file has {len(mapped):,} of {whole:,} bytes"
                raise
        yield dataclasses.replace(info, file_index=file_index) if file_index else info


def _whole_size(header: Header) -> int:
    """Return the bytes that a file has with the last of its tensors and its padding, as far as shapes alone tell."""
    last = max(header.rows, key=lambda row: row.start)
    if 0 in last.shape:
        return last.start
    rows, cols = math.prod(last.shape[:-1]), last.shape[-1] if last.shape else 1
    sizes = (meaning.nbytes(rows, cols, b"") for meaning in catalog.meanings(last.type_id))
    nbytes = min((size for size in sizes if size is not None), default=0)
    return last.start + -(-nbytes // header.alignment) * header.alignment


def tensor_info(row: TensorRow, room: int, alignment: int, head: bytes) -> TensorInfo:
    """room: bytes from the tensor's start to the next tensor, or to the end of the file. head: the first of them."""
    rows, cols = math.prod(row.shape[:-1]), row.shape[-1] if row.shape else 1
    meanings = catalog.meanings(row.type_id)
    if not meanings:
        return TensorInfo(row.name, row.shape, row.type_id, row.start, room, None)
    if 0 in row.shape:
        return TensorInfo(row.name, row.shape, row.type_id, row.start, 0, meanings[0])
    if not (resolved := catalog.resolve(row.type_id, rows, cols, room, alignment, head)):
        sizes = [size for meaning in meanings if (size := meaning.nbytes(rows, cols, head)) is not None]
        needed = f"needs {min(sizes)} bytes" if sizes else "has no defined size for this shape and header"
        raise Unreadable(
            f"{meanings[0].name} of shape {list(row.shape)} {needed}, {room} are there",
            hint="the file is truncated or was written by a broken tool; download or convert it again",
        )
    [(meaning, nbytes), *others] = resolved
    other_meanings = tuple(other for other, _ in others)
    return TensorInfo(row.name, row.shape, row.type_id, row.start, nbytes, meaning, other_meanings=other_meanings)


def _multiplied(scales: Scales, outer: np.float32) -> Scales:
    """Scales times the outer scale of their tensor. Raises Unreadable if that is too large for float32."""
    with np.errstate(over="ignore"):
        product = np.asarray(scales * outer, np.float32)
    if not np.isfinite(product).all():
        raise Unreadable(f"its scale {scales.max():g} times that beside it, {outer:g}, is not a finite number")
    return product
