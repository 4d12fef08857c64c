"""The scales that trained models have."""

from __future__ import annotations

from collections.abc import Mapping

LARGEST_TRAINED_SCALE = 5.0
"""Multipliers of trained models are a few hundredths to about 2.5; those of an inverted direction are 6 and more."""


def warn_of_scales(scales: Mapping[str, float]) -> str | None:
    """Return what to say of scales that no trained model has; None if there are none. scales: the largest of each
    ternary tensor, by name."""
    large = {name: most for name, most in scales.items() if most > LARGEST_TRAINED_SCALE}
    if not large:
        return None
    name = max(large, key=large.__getitem__)
    return (
        f"scales of {len(large)} of {len(scales)} ternary tensors are larger than in any trained model: up to "
        f"{large[name]:.4g} in {name!r}, where at most {LARGEST_TRAINED_SCALE:g} is usual. This is the typical sign of "
        "a weight_scale taken in the wrong direction"
    )
