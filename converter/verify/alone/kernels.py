"""Every kernel of this CPU against the scalar one, on the file's own tensors."""

from __future__ import annotations

from tritpack.converter.verify.alone.context import AloneContext
from tritpack.converter.verify.rung import Rung
from tritpack.converter.verify.rungs.kernels import blames, check_kernels, name, needs

__all__ = ["blames", "name", "needs", "run"]


def run(context: AloneContext) -> Rung:
    """Run every kernel that this file's model would use."""
    return check_kernels(context.file, int8=context.spec.int8_activations, everything=context.everything)
