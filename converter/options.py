"""The options of convert and repack, as one frozen value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tritpack.converter.sources.origin import Origin
from tritpack.converter.sources.repair import ReadRequest
from tritpack.formats.errors import UsageError
from tritpack.formats.layouts.catalog import type_of
from tritpack.formats.layouts.tiling import Tilings, parse_tilings, read_kernel_config
from tritpack.formats.names import FLOAT_QUANTIZERS, FLOAT_TYPES, PQ2_TYPE_IDS, TL2_TYPE_IDS


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """The options of `tritpack convert` and `tritpack repack` that decide what is written, with their defaults.

    outtype: layout of the ternary tensors. embedding_type: type of embedding and head. target: the engine that the file
    is for (--for). name: general.name. quantize: `absmean` takes a plain float checkpoint for master weights.
    allow_scale_rounding: change scales that the layout cannot hold. allow_wrong_engine: write for an engine that would
    run another model. tiling: `ROWSxCOLS=BM,BK,bm` for tl1 and tl2. kernel_config: the same from a file of bitnet.cpp.
    tl2_id, pq2_id: type ids of tl2 and pq2_0, of TL2_TYPE_IDS and PQ2_TYPE_IDS.
    split_max_bytes, split_max_tensors: the most that one file of a split output may have; None for no limit.
    reading: how to read a packed source that does not say everything itself. origin: repository and commit of a
    checkpoint whose folder does not tell them.
    """

    outtype: str = "auto"
    embedding_type: str = "auto"
    target: str = "tritpack"
    name: str | None = None
    quantize: str | None = None
    allow_scale_rounding: bool = False
    allow_wrong_engine: bool = False
    tiling: Sequence[str] = ()
    kernel_config: str | Path | None = None
    tl2_id: int = TL2_TYPE_IDS[0]
    pq2_id: int = PQ2_TYPE_IDS[0]
    split_max_bytes: int | None = None
    split_max_tensors: int | None = None
    reading: ReadRequest | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        try:
            (self.name or "").encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"--name {self.name!r} is not valid Unicode", hint="give UTF-8 text") from error
        if self.embedding_type not in ("auto", *FLOAT_TYPES):
            hint = f"choose one of: auto, {', '.join(FLOAT_TYPES)}"
            raise UsageError(f"--embedding-type {self.embedding_type} is unknown", hint=hint)
        if self.quantize not in (None, *FLOAT_QUANTIZERS):
            raise UsageError(f"--quantize {self.quantize} is unknown", hint=f"it can be: {', '.join(FLOAT_QUANTIZERS)}")
        for option, value, choices in (
            ("--tl2-id", self.tl2_id, TL2_TYPE_IDS), ("--pq2-id", self.pq2_id, PQ2_TYPE_IDS),
        ):  # fmt: skip
            if value not in choices:
                hint = f"choose one of: {', '.join(map(str, choices))}"
                raise UsageError(f"{option} {value} is unknown", hint=hint)

    @property
    def is_split(self) -> bool:
        """Whether the output may become several files."""
        return self.split_max_bytes is not None or self.split_max_tensors is not None

    def type_id(self, layout: str) -> int:
        """Return the GGUF type id to write for a layout."""
        return {"tl2": self.tl2_id, "pq2_0": self.pq2_id}.get(layout, type_of(layout).type_id)

    def tilings(self) -> Tilings:
        """Return the tilings by shape: see `read_tilings`."""
        return read_tilings(self.tiling, self.kernel_config)


DEFAULTS = ConvertOptions()


def read_tilings(tiling: Sequence[str], kernel_config: str | Path | None) -> Tilings:
    """Return the tilings of tl1 and tl2 by shape (rows, cols): those of kernel_config, and those of `tiling` over them.

    Raises UsageError and Unreadable.
    """
    configured = {} if kernel_config is None else read_kernel_config(kernel_config)
    return {**configured, **parse_tilings(tiling)}
