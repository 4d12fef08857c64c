"""A packed file and the changes to be written: other keys, other type ids, other bytes in some tensors."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from tritpack.converter.release.attestation_name import attestation_name
from tritpack.formats import integrity
from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import CheckFailed, UsageError, WriteFailed
from tritpack.formats.files import refuse_existing
from tritpack.formats.gguf_edit import IN_PLACE, REWRITTEN, change_in_place, how, write_changed
from tritpack.formats.gguf_header import ALIGNMENT_KEY, MAX_PAIRS, read_header
from tritpack.formats.gguf_reader import GgufFile, ReadOptions, TensorInfo
from tritpack.formats.gguf_writer import replaced_header
from tritpack.formats.layouts import catalog
from tritpack.formats.split_files import KEYS as SPLIT_KEYS
from tritpack.formats.suggestions import did_you_mean

FIXED_KEYS = {
    ALIGNMENT_KEY: "the places of the tensors depend on it: repack the file instead",
    **dict.fromkeys(SPLIT_KEYS, "the files of a split set find each other by it: tritpack merge makes one file"),
}
"""Keys that are not metadata alone, and what to do instead."""

Make = Callable[[], Bytes]


@dataclasses.dataclass(frozen=True)
class Change:
    """A key before and after: (type, value), or None where the key is not there."""

    key: str
    before: tuple[str, Any] | None
    after: tuple[str, Any] | None


class Draft:
    """A file, and the edits that `write` makes in it. metadata: the values as they will be. Raises Unreadable, also for
    a part of a split file that is not the first."""

    def __init__(self, path: str | Path) -> None:
        self.file = GgufFile(path)
        self.metadata: dict[str, Any] = dict(self.file.header.metadata)
        self._types = dict(self.file.header.metadata_types)
        self._encoded: dict[str, Any] = dict(self.file.header.encoded)
        self._type_ids: dict[str, int] = {}
        self._contents: dict[str, Make] = {}

    # -- edits ---------------------------------------------------------------------------------------------------------

    def type_of(self, key: str) -> str | None:
        """The type of a key as it will be, None if it is not there."""
        return self._types.get(key)

    def set(self, key: str, kind: str, value: Any) -> None:
        """Give a key a value, which `values.parse_value` has made for the type. Raises UsageError."""
        self._refuse_fixed(key)
        if key in integrity.KEYS:
            raise UsageError(f"{key} records what the tensors are, and is computed from them", path=self.file.path)
        if key not in self.metadata and len(self.metadata) >= MAX_PAIRS:
            raise UsageError(f"it has {len(self.metadata)} keys, and no more are read", path=self.file.path)
        self._put(key, kind, value)

    def remove(self, key: str) -> None:
        """Take a key out. Raises UsageError if it is not there, or must stay."""
        self._refuse_fixed(key)
        if key not in self.metadata:
            raise UsageError(f"has no metadata key {key}", path=self.file.path, hint=did_you_mean(key, self.metadata))
        for table in (self.metadata, self._types, self._encoded):
            del table[key]

    def rename(self, names: dict[str, str]) -> None:
        """Give keys other names, in their places."""
        self.metadata = {names.get(key, key): value for key, value in self.metadata.items()}
        self._types = {names.get(key, key): value for key, value in self._types.items()}
        self._encoded = {names.get(key, key): value for key, value in self._encoded.items()}

    def retype(self, tensor: TensorInfo, type_id: int) -> None:
        """Give a tensor another type id for the same layout."""
        self._refuse_split()
        self._type_ids[tensor.name] = type_id

    def refill(self, tensor: TensorInfo, make: Make) -> None:
        """Give a tensor other bytes, as many as it has. make: returns them, and is called once, while writing.

        Raises CheckFailed if the tensor is not what the file records: a new record would hide its damage.
        """
        self._refuse_split()
        recorded = integrity.recorded_hashes(self.file).get(tensor.name)
        if recorded and recorded.sha256 != _sha256(self.file.bytes_of(tensor)):
            hint = "the tensor is damaged: convert or download the file again"
            raise CheckFailed(
                "its bytes are not those that the file records", path=self.file.path, tensor=tensor.name, hint=hint
            )
        self._contents[tensor.name] = make

    @property
    def refilled(self) -> Collection[str]:
        """The names of the tensors that get other bytes."""
        return self._contents.keys()

    def changes(self) -> list[Change]:
        """The keys that differ, in order."""
        header = self.file.header
        rows = []
        for key in dict.fromkeys([*header.metadata, *self.metadata]):
            kept = key in self._encoded and self._encoded[key] is header.encoded.get(key)
            if kept or key in integrity.KEYS:
                continue
            before = (header.metadata_types[key], header.metadata[key]) if key in header.metadata else None
            after = (self._types[key], self.metadata[key]) if key in self.metadata else None
            rows.append(Change(key, before, after))
        return rows

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, output: Path | None = None, *, force: bool = False) -> str:
        """Write the file with its edits over itself, or as `output`. Returns how: see gguf_edit.

        Raises UsageError, WriteFailed, Unreadable, CheckFailed; the file is then as it was.
        """
        catalog.layouts_of(self.metadata)  # a record of tilings that makes no sense would make the file unreadable
        present = [key for key in integrity.KEYS if key in self.metadata]
        if 0 < len(present) < len(integrity.KEYS) and integrity.KEYS[0] in self.file.metadata:
            raise UsageError(f"the keys {', '.join(integrity.KEYS)} go together", path=self.file.path)
        path = self.file.path.resolve()
        if output is not None:
            refuse_existing(output, force=force, inputs=self.file.files)
        else:
            _refuse_unwritable(self.file.path)
            if (done := self.plan()) == IN_PLACE:
                change_in_place(path, self.file.header_bytes, self._header(), self.file.unchanged)
            if done != REWRITTEN:
                return done
        write_changed(
            path,
            output or path,
            self.file.header,
            self._header,
            patches=self._patches(),
            unchanged=self.file.unchanged,
            check=self._check,
            force=force or output is None,
        )
        return REWRITTEN

    def plan(self) -> str:
        """Return how `write` would write over the file itself, without doing it. Raises WriteFailed."""
        header = self._header()
        if read_header(memoryview(header)).metadata.keys() != self.metadata.keys():
            raise WriteFailed("its header would not be read as it was written", path=self.file.path)
        # What other type ids mean is seen in a whole file alone.
        return REWRITTEN if self._contents or self._type_ids else how(self.file.header_bytes, header)

    def warnings(self) -> list[str]:
        """What the edit makes untrue."""
        beside = attestation_name(self.file.path)
        if not beside.is_file():
            return []
        return [f"{beside} attests the bytes that the file had before: verify --attest makes a new one"]

    def _put(self, key: str, kind: str, value: Any) -> None:
        self.metadata[key], self._types[key], self._encoded[key] = value, kind, value

    def _refuse_fixed(self, key: str) -> None:
        if key in FIXED_KEYS:
            raise UsageError(f"{key} cannot be changed", path=self.file.path, hint=FIXED_KEYS[key])

    def _refuse_split(self) -> None:
        if len(self.file.files) > 1:
            what = "is a split file, and tensors are mended only in a file that holds all of them"
            raise UsageError(what, path=self.file.path, hint="tritpack merge makes one file of it; mend that one")

    def _header(self) -> bytes:
        with_types = {key: kind for key, kind in self._types.items() if not kind.startswith("arr")}
        return replaced_header(self.file.header, self._encoded, with_types, self._type_ids)

    def _patches(self) -> Iterator[tuple[int, Bytes]]:
        """Yield the tensors that have other bytes, and renew the hashes of those that the file records."""
        recorded = integrity.recorded_hashes(self.file)
        for name, make in self._contents.items():
            tensor = self.file.tensors[name]
            data = make()
            if data.size != tensor.nbytes:
                raise ValueError(f"tensor {name!r}: {data.size} bytes for {tensor.nbytes}")
            yield tensor.file_offset, data
            if name in recorded:
                recorded[name] = self._hashes(tensor, data, recorded[name])
            self.file.release(tensor)
        if self._contents and recorded:
            for key, value in integrity.to_metadata(recorded).items():
                self._put(key, "arr[str]", value)

    def _hashes(self, tensor: TensorInfo, data: Bytes, old: integrity.TensorHashes) -> integrity.TensorHashes:
        layout = catalog.layouts_of(self.metadata).get(tensor.layout)
        codes = layout.unpack(data, tensor.rows, tensor.cols).codes_sha256() if layout else old.codes_sha256
        return integrity.TensorHashes(_sha256(data), codes)

    def _check(self, partial: Path) -> None:
        """Read the new file. Raises WriteFailed unless it has the tensors of the old one, and the keys of the draft."""
        written = GgufFile(partial, ReadOptions(any_part=True))
        same = [(t.name, t.shape, t.layout, t.nbytes) for t in self.file.tensors.values() if not t.file_index]
        if [(t.name, t.shape, t.layout, t.nbytes) for t in written.tensors.values()] != same:
            raise WriteFailed("its tensors would be read otherwise than before", path=self.file.path)
        if list(written.header.metadata) != list(self.metadata):
            raise WriteFailed("its header would not be read as it was written", path=self.file.path)
        integrity.recorded_hashes(written)


def _refuse_unwritable(path: Path) -> None:
    """Raise UsageError for a file of the Hub client's cache, which is named after its hash; WriteFailed for a file that
    its mode protects, although another could take its name."""
    from tritpack.converter.sources.origin import snapshot_of  # its reader of READMEs takes time to import

    if snapshot_of(path)[0] is not None or path.resolve().parent.name == "blobs":
        hint = "write the changed file somewhere else with -o"
        raise UsageError("is in the cache of downloads, whose files are what their hashes say", path=path, hint=hint)
    if not os.access(path, os.W_OK):
        raise WriteFailed("cannot be written: it is read-only", path=path, hint="-o writes another file")


def _sha256(data: Bytes) -> str:
    return hashlib.sha256(data.data).hexdigest()
