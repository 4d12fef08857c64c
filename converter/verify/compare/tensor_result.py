"""The result of comparing one tensor, or some rows of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from tritpack.converter.verify.findings import Finding, Kind
from tritpack.formats.gguf_reader import TensorInfo


@dataclasses.dataclass
class TensorResult:
    """What comparing one tensor gave. row: of the table of ternary tensors, which reports plot."""

    findings: list[Finding] = dataclasses.field(default_factory=list)
    rounding: float | None = None
    """The largest change of a value of a float table by its type."""
    scale_rounding: float = 0.0
    """The largest change of a scale by its layout, relative to the scale."""
    vector_rounding: float = 0.0
    """The largest change of a value of a norm or another vector by another tool's arithmetic."""
    decay_rounding: float = 0.0
    """The largest change of a decay by a logarithm that was stored in between, relative to the decay."""
    weights: int = 0
    row: dict[str, Any] | None = None
    damage: str | None = None
    """In what way the tensor is not as the file records it, in words."""

    def add(self, kind: Kind, info: TensorInfo, sentence: str, **figures: Any) -> None:
        """Add a finding about a tensor, which the sentence need not name."""
        self.findings.append(Finding(kind, f"tensor {info.name!r}: {sentence}", info.name, figures))
