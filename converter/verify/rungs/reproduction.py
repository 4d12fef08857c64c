"""reproduction: SOURCE is converted once more, with what FILE records of its conversion, and must give the same bytes.

Only `verify --reproduce` runs it. FILE has to be a conversion of ours; it fails for one of another version, unless the
bytes are the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tritpack.converter.convert import RunOptions, run_conversion
from tritpack.converter.options import ConvertOptions
from tritpack.converter.sources.origin import recorded_origin
from tritpack.converter.targets.layout_choice import ROUNDING_KEY
from tritpack.converter.verify.context import Context
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.converter.version import VERSION
from tritpack.formats.files import sha256_file
from tritpack.formats.gguf_header import ALIGNMENT_KEY
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.layouts.catalog import TILING_KEY, type_of
from tritpack.formats.model_spec import TABLES
from tritpack.formats.names import FLOAT_TYPES

name = "reproduction"
blames: Blame = "file"
needs: frozenset[Need] = frozenset()
options: tuple[str, ...] = ()


def run(context: Context) -> Rung:
    """Convert SOURCE again and compare the files byte by byte."""
    rung = Rung(name, blames, compares="FILE with a new conversion of SOURCE, byte by byte")
    file = context.file
    if "tritpack.version" not in file.metadata:
        rung.skipped = "FILE does not record that tritpack wrote it"
        return rung
    if len(file.files) > 1:
        rung.skipped = "FILE is split, and does not record where it was cut; `tritpack merge` makes one file of it"
        return rung
    with tempfile.TemporaryDirectory(prefix=".tritpack-", dir=file.path.parent) as folder:
        again = Path(folder) / "again.gguf"
        run_conversion(context.source_path, again, [recorded_options(file, context.options.quantize)], RunOptions())
        mine, theirs = sha256_file(file.path), sha256_file(again)
        rung.figures = {"sha256": mine, "sha256_again": theirs}
        if mine != theirs:
            kind, where = _first_difference(file, GgufFile(again))
            rung.add(kind, f"a new conversion gives other bytes: {where}{_other_version(file)}")
    return rung


def recorded_options(file: GgufFile, quantize: str | None) -> ConvertOptions:
    """Return the options that a file was converted with, as far as they decide on its bytes."""
    metadata = file.metadata
    ids = {info.layout: info.type_id for info in file.tensors.values()}
    tables = {file.tensors[f"{table}.weight"].layout for table in TABLES if f"{table}.weight" in file.tensors}
    return ConvertOptions(
        outtype=str(metadata.get("tritpack.layout", "auto")),
        # Tables of two types, or ternary ones, are what `auto` has made of the source's.
        embedding_type=tables.pop() if len(tables) == 1 and tables <= {*FLOAT_TYPES} else "auto",
        target=str(metadata.get("tritpack.target", "tritpack")),
        name=str(metadata.get("general.name", "")) or None,
        quantize=quantize,
        allow_scale_rounding=ROUNDING_KEY in metadata,
        allow_wrong_engine="tritpack.warnings" in metadata,
        tiling=list(metadata.get(TILING_KEY, ())),
        tl2_id=ids.get("tl2", type_of("tl2").type_id),
        pq2_id=ids.get("pq2_0", type_of("pq2_0").type_id),
        origin=recorded_origin(metadata),
    )


def _first_difference(file: GgufFile, again: GgufFile) -> tuple[Kind, str]:
    """Return what differs first: a key, a tensor, or bytes that belong to neither."""
    for key in sorted({*file.metadata, *again.metadata} - {ALIGNMENT_KEY}):
        mine, theirs = file.metadata.get(key), again.metadata.get(key)
        if repr(mine) != repr(theirs):
            return Kind.KEY_DIFFERS, f"the metadata key {key} is {str(mine)[:60]!r} here and {str(theirs)[:60]!r} there"
    for tensor, info in again.tensors.items():
        mine_info = file.tensors.get(tensor)
        if mine_info is None or (mine_info.layout, mine_info.shape) != (info.layout, info.shape):
            return Kind.TYPE_DIFFERS, f"tensor {tensor!r} has another type or shape"
        if file.bytes_of(mine_info).tobytes() != again.bytes_of(info).tobytes():
            return Kind.CODES_DIFFER, f"tensor {tensor!r} differs"
    if file.alignment != again.alignment:
        places = f"tensors are aligned to {file.alignment} bytes here and to {again.alignment} there"
        return Kind.KEY_DIFFERS, f"{places}; all their bytes and all other keys are the same"
    return Kind.KEY_DIFFERS, "keys are in another order, or padding differs"


def _other_version(file: GgufFile) -> str:
    written = file.metadata["tritpack.version"]
    return "" if written == VERSION else f" (FILE is from version {written}, this is {VERSION})"
