"""What of a Qwen3.5 hybrid only its tensors tell: ternary gates, norms that are factors already, and its rotation."""

from __future__ import annotations

import dataclasses

from tritpack.converter.families.recognition import Recognition
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.hadamard_pack import is_pack, pack_rotation
from tritpack.converter.storage.ternary_floats import recover
from tritpack.formats.delta_net import GATES
from tritpack.formats.errors import Unreadable
from tritpack.formats.safetensors_reader import FLOATS, StoredTensor


def completed(source: CheckpointFolder, recognition: Recognition) -> Recognition:
    """Return what was recognised with what the tensors add. Raises Unreadable, Unsupported."""
    net = recognition.spec.delta_net
    if net is None or True not in net.recurrent:
        return recognition
    first = f"blk.{net.recurrent.index(True)}."
    gates = [source.tensors.get(recognition.source_name(f"{first}{gate}.weight")) for gate in GATES]
    net = dataclasses.replace(net, ternary_gates=all(map(_is_ternary, gates)))
    spec = dataclasses.replace(recognition.spec, delta_net=net)
    convolution = source.tensors.get(recognition.source_name(f"{first}ssm_conv1d.weight"))
    ready = convolution is not None and _is_mlx_convolution(convolution)
    completed = dataclasses.replace(recognition, spec=spec, norms_are_factors=ready)
    if not is_pack(source.config):
        return completed
    if not ready and convolution is not None:
        channels, taps = spec.tensor_shapes()[f"{first}ssm_conv1d.weight"]
        found = f"has shape {list(convolution.shape)}, expected [{channels}, {taps}, 1] in a pack"
        raise Unreadable(found, tensor=convolution.name, hint="mlx-lm would add 1 to the norms of such a pack")
    rotation = pack_rotation(source, completed)
    why = f"{completed.why}; in a rotated basis ({rotation})"
    return dataclasses.replace(completed, spec=dataclasses.replace(spec, rotation=rotation), why=why)


def squeezed(stored: StoredTensor, shape: tuple[int, ...]) -> StoredTensor:
    """Return the taps of a convolution, (channels, 1, taps) or (channels, taps, 1), as a matrix; else as they are."""
    channels, taps = shape
    if stored.shape in ((channels, 1, taps), (channels, taps, 1)):
        return dataclasses.replace(stored, shape=shape)
    return stored


def _is_ternary(gate: StoredTensor | None) -> bool:
    """Return whether a gate is stored as codes, or as floats that are ternary."""
    if gate is None or len(gate.shape) != 2 or 0 in gate.shape:
        return False  # a shape that is wrong is refused by name later
    return gate.dtype not in FLOATS or recover(gate) is not None


def _is_mlx_convolution(taps: StoredTensor) -> bool:
    """Return whether it has MLX's order of axes: mlx-lm and mlx-vlm turn it when they add 1 to the norms."""
    return len(taps.shape) == 3 and taps.shape[-1] == 1 and taps.shape[1] != 1
