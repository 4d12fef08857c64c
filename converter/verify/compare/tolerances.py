"""How far outputs may be from the oracle's: every limit of `verify`, with its reason.

The figures are those of README.md here, "Why two right programs differ".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tritpack.formats.names import BLOCK_FLOATS

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

TEXT_LIMITS = {"relative_rms": 5e-3, "worst_position": 2e-2, "kl": 1e-4}
"""What the figures of ordinary text may be, where int8 codes may flip."""
MIN_TOP1 = 0.99
MIN_POSITIONS = 500
"""Of fewer positions the share of equal top tokens says little, and text is not judged."""
MAX_LOGITS = 1 << 26
"""Logits of the text that are held at once, for each side: 256 MiB. Without --level full it bounds the text too."""

LARGEST_SCALE_ROUNDING = 1e-2
"""Relative change of a scale, for --allow-scale-rounding. Logits change by about as much, and beyond this they are
those of another model. Rounding to float16 changes a scale by 5e-4 at most. A larger change does not fail the file,
since its user asked for it, but the verdict says so."""

BLOCK_FLOAT_HEAD = (1e-4, 3e-4)
"""Limits for the worst position where no flip is possible, and over text with near-ties followed. Heads of these types
take activations as 16-bit integers, which alone makes some 1e-5."""
EXACT_HEAD = (1e-5, 1e-4)
"""The same for heads that take float32 activations; the second is float32 noise over hundreds of positions of a deep
model."""


RECURRENT = (5e-5, 3e-4)
"""The same for Gated DeltaNet layers, whose gated norm amplifies small outputs: two programs in float32 are up to
1.4e-5 from one in float64, and a wrong reading is 5e-2 away."""


def tolerances(model: Model) -> tuple[float, float]:
    """Limits for the worst position: where no flip is possible, and over text with near-ties followed."""
    if model.spec.is_embedding_model:
        return EXACT_HEAD
    if model.spec.delta_net:
        return RECURRENT
    head = model.file.tensors["token_embd.weight" if model.spec.tied else "output.weight"]
    return BLOCK_FLOAT_HEAD if head.layout in BLOCK_FLOATS else EXACT_HEAD
