"""The array types that annotations name: a dtype, and where it matters what the elements stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if not TYPE_CHECKING:  # annotations alone use them, and numpy takes longer to import than a header to read
    F32 = F64 = I8 = I32 = Bytes = Codes = Scales = Bits = Any
else:
    import numpy as np
    import numpy.typing as npt

    F32 = npt.NDArray[np.float32]
    F64 = npt.NDArray[np.float64]
    I8 = npt.NDArray[np.int8]
    I32 = npt.NDArray[np.int32]

    Bytes = npt.NDArray[np.uint8]
    """Stored bytes."""
    Codes = npt.NDArray[np.int8]
    """Ternary codes: -1, 0, +1."""
    Scales = npt.NDArray[np.float32]
    """Multipliers of codes."""
    Bits = npt.NDArray[np.unsignedinteger[Any]]
    """Bit patterns of floats: unsigned integers of the same width."""
