"""One output of a pass: its tensors go to their places in partial files, the headers come last."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tritpack.converter.options import ConvertOptions
from tritpack.converter.pipeline.shards import shards_of
from tritpack.converter.plan import Plan
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.source_model import with_hashes
from tritpack.formats.arrays import Bytes, Scales
from tritpack.formats.errors import WriteFailed
from tritpack.formats.gguf_reader import GgufFile, ReadOptions
from tritpack.formats.gguf_writer import TensorPlan
from tritpack.formats.integrity import TensorHashes, hash_pieces, to_metadata
from tritpack.formats.partial_file import PartialFile
from tritpack.formats.pieces import pieces
from tritpack.formats.split_writer import Shard, split_plan


def shards_to_write(plan: Plan, path: Path, options: ConvertOptions) -> list[Shard]:
    """Return the files that a plan becomes: `path`, or those of a split. Raises UsageError for limits too small."""
    tensors = [tensor.output for tensor in plan.tensors]
    return split_plan(
        path,
        plan.metadata,
        tensors,
        plan.types,
        max_bytes=options.split_max_bytes,
        max_tensors=options.split_max_tensors,
    )


class Output:
    """A context manager: the GGUF file of a plan, or the files of a split one, which have their names after `complete`.

    scales: ternary tensor -> its smallest scale that is not zero, and its largest. zero: those that are all zero.
    hashes: of every tensor that is finished. Raises what PartialFile raises.
    """

    def __init__(self, plan: Plan, shards: list[Shard], source: CheckpointFolder | GgufFile, *, force: bool) -> None:
        self.plan, self.shards, self.source = plan, shards, source
        self.scales: dict[str, tuple[float, float]] = {}
        self.zero: set[str] = set()
        self.hashes: dict[str, TensorHashes] = {}
        self._changed: set[str] = set()
        self._ternary = {tensor.output.name for tensor in plan.tensors if tensor.ternary}
        self._places: dict[str, tuple[PartialFile, int, TensorPlan]] = {}
        self._open = contextlib.ExitStack()
        self._partials: list[PartialFile] = []
        with contextlib.ExitStack() as undo:
            for shard in shards:
                partial = undo.enter_context(self._partial(shard, force))
                self._partials.append(partial)
                for tensor, start in zip(shard.tensors, shard.offsets()):
                    self._places[tensor.name] = partial, start, tensor
                for name, entry in partial.finished.items():
                    self._remember(name, entry)
            self._open = undo.pop_all()

    def _partial(self, shard: Shard, force: bool) -> PartialFile:
        known = shard.header(self.plan.types) + shards_of(self.source).fingerprint().encode()
        key = hashlib.sha256(known).hexdigest()
        return PartialFile(shard.path, shard.nbytes, force=force, key=key)

    def _remember(self, tensor: str, entry: Mapping[str, Any]) -> None:
        """Take note of what the journal of an earlier run says of a tensor."""
        if "scales" in entry:
            self.scales[tensor] = entry["scales"][0], entry["scales"][1]
        if entry.get("zero"):
            self.zero.add(tensor)
        if entry.get("changed"):
            self._changed.add(tensor)
        self.hashes[tensor] = TensorHashes(*entry["hashes"])

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    @property
    def path(self) -> Path:
        """The file, or the first one."""
        return self.shards[0].path

    # -- what jobs call ------------------------------------------------------------------------------------------------

    def write(self, tensor: str, offset: int, data: Bytes) -> None:
        """Write bytes of a tensor, from `offset` in it on, which is a multiple of 8."""
        partial, start, _ = self._places[tensor]
        partial.write_part(tensor, start, offset, data)

    def read(self, tensor: str, offset: int, nbytes: int) -> Bytes:
        """Return bytes of a tensor that were written."""
        partial, start, _ = self._places[tensor]
        return partial.read(start + offset, nbytes)

    def note(self, tensor: str, scales: Scales, *, zero: bool) -> None:
        """Take note of the scales of a ternary tensor, and whether it is all zero."""
        largest = float(scales.max())
        self.scales[tensor] = float(scales.min(initial=largest, where=scales > 0)), largest
        if zero:
            self.zero.add(tensor)

    def settle(self, tensor: str) -> None:
        """Take note that a tensor has got its other type, and that bytes of it were written twice."""
        self._changed.add(tensor)

    def finish(self, tensor: str) -> None:
        """Hash a tensor as it was written, and write into the journal that it is finished."""
        partial, start, plan = self._places[tensor]
        changed = tensor in self._changed
        self.hashes[tensor] = hashes = self._hashes(tensor)
        facts: dict[str, Any] = {"hashes": dataclasses.astuple(hashes)}
        if tensor in self.scales:
            facts |= {"scales": self.scales[tensor], "zero": tensor in self.zero}
        partial.finish(tensor, start, plan.nbytes, rewritten=changed, changed=changed, **facts)

    def _hashes(self, tensor: str) -> TensorHashes:
        partial, start, plan = self._places[tensor]
        layout = self.plan.choice.layout if tensor in self._ternary else None
        shape = (1, math.prod(plan.shape)) if layout is None else (math.prod(plan.shape[:-1]), plan.shape[-1])
        stored = pieces(lambda at, count: partial.read(start + at, count), plan.nbytes, layout, shape)
        return hash_pieces(stored, has_codes=layout is not None)

    def is_finished(self, tensor: str) -> bool:
        """Return whether an earlier run, which was killed, has finished a tensor."""
        return tensor in self._places[tensor][0].finished

    # -- the end -------------------------------------------------------------------------------------------------------

    def complete(self, hashes: Mapping[str, str]) -> None:
        """Write the headers and give the files their names, the first one last: so whoever finds it finds all of them.

        hashes: SHA-256 of the source's files of weights, by name.
        """
        self.plan = self.plan.settled(self._changed)
        self.plan.metadata.update(with_hashes(self.plan.metadata, self.source, hashes))
        self.plan.metadata.update(to_metadata({name: self.hashes[name] for name in self._places}))
        types = {tensor.output.name: tensor.output for tensor in self.plan.tensors}
        for index, (shard, partial) in enumerate(zip(self.shards, self._partials)):
            known = {**shard.metadata, **(self.plan.metadata if index == 0 else {})}
            final = dataclasses.replace(
                shard, metadata=known, tensors=tuple(types[tensor.name] for tensor in shard.tensors)
            )
            header = final.header(self.plan.types)
            if len(header) != len(shard.header(self.plan.types)):
                raise WriteFailed(
                    "its header has another size than was planned; this is a bug of tritpack", path=shard.path
                )
            partial.write(0, np.frombuffer(header, np.uint8))
            partial.seal(self._check)
        self.source.unchanged.check()
        if len(self._partials) > 1:
            self.path.unlink(missing_ok=True)  # an older set is not one any more
        for partial in reversed(self._partials):
            partial.place()

    def _check(self, path: Path) -> None:
        """Read the header of a finished file again. Raises WriteFailed if a tensor is not what was planned."""
        planned = {tensor.output.name: tensor for tensor in self.plan.tensors}
        written = GgufFile(path, ReadOptions(any_part=True)).tensors
        for name, info in written.items():
            tensor = planned.pop(name)
            if (info.layout, info.shape, info.nbytes) != (tensor.kind, tensor.output.shape, tensor.output.nbytes):
                raise WriteFailed(f"was not written as {tensor.kind}", path=path, tensor=name)
        if len(self.shards) == 1 and planned:
            raise WriteFailed("was not written", path=path, tensor=next(iter(planned)))
