"""Whether every tensor has the hashes that the file records of it."""

from __future__ import annotations

from tritpack.converter.verify.alone.context import AloneContext
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.formats.errors import Unreadable
from tritpack.formats.integrity import difference, recorded_hashes

name = "integrity"
blames: Blame = "file"
needs: frozenset[Need] = frozenset()


def run(context: AloneContext) -> Rung:
    """Compare the hashes that the check `weights` has computed with those that the file records."""
    rung = Rung(name, blames, compares="SHA-256 of the bytes and codes of every tensor with what FILE records")
    try:
        recorded = recorded_hashes(context.file)
    except Unreadable:
        rung.skipped = "the record of hashes is invalid, as structure says"
        return rung
    if not recorded:
        rung.skipped = "the file records no hashes of its tensors, so damage that leaves possible values is not seen"
        return rung
    compared = [tensor for tensor in recorded if tensor in context.hashes]
    for tensor in compared:
        if (sentence := difference(recorded[tensor], context.hashes[tensor])) is not None:
            rung.add(Kind.INTEGRITY_DIFFERS, f"tensor {tensor!r}: {sentence}", tensor=tensor)
    rung.figures = {"tensors": len(compared), "recorded": len(recorded)}
    if left := len(recorded) - len(compared):
        rung.notes.append(f"{len(compared)} of {len(recorded)} tensors were compared; {left} could not be decoded")
    if not compared:
        rung.skipped = "none of the tensors of which the file records hashes could be decoded"
    return rung
