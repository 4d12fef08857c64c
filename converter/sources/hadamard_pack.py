"""The MLX pack of a rotated Qwen3.5 hybrid: its config.json, and the contract in hadamard.json.

A pack names Python of its own that is to run it (`requires_runtime`); that is never looked at. The contract stands in
three places: in hadamard.json, in `modules` of config.json, and in a tensor `signs` beside each rotated matrix. They
have to say the same. Source: mlx-lm 0.32.2 and mlx-vlm, `prism_hadamard_qwen35`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tritpack.converter.families.recognition import Recognition
from tritpack.converter.sources.checkpoint import HADAMARD, CheckpointFolder
from tritpack.formats.errors import Unreadable, Unsupported, locating
from tritpack.formats.hadamard import PREFIX, Rotation, rotation_of
from tritpack.formats.model_spec import HYBRID
from tritpack.formats.safetensors_reader import FLOATS

MODEL_TYPE = "prism_hadamard_qwen35"
BASE = "qwen3_5"
KNOWN: Mapping[str, tuple[Any, ...]] = {
    "schema_version": (1, 2),
    "base_model_type": (BASE,),
    "hadamard_config": (HADAMARD,),
    "tensor_namespace": ("mlx-vlm-qwen3_5", "mlx-lm-text"),
    "gdn_activation_layout": ("grouped",),
}
"""Keys of a pack's config.json, and the values that are read."""
ONLY_HERE = (*KNOWN, "requires_runtime", "modules")
"""Keys that other checkpoints do not have."""


def is_pack(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is that of a pack."""
    return config.get("model_type") == MODEL_TYPE or "hadamard_config" in config


def refuse_unmarked(source: CheckpointFolder) -> None:
    """Raise Unsupported for a checkpoint that has the files or tensors of a rotated pack, and another config.json."""
    signs = next((name for name in source.tensors if name.endswith(".signs")), None)
    if any(key.startswith(PREFIX) for key in source.hadamard) or signs:
        what = f"tensor {signs!r}" if signs else f"{HADAMARD} with keys {PREFIX}*"
        raise Unsupported(
            f"{what} says that the weights are in a rotated basis, but config.json does not: a file without the "
            "transform would talk nonsense",
            path=source.folder,
            hint=f"fetch config.json again: that of a pack has model_type {MODEL_TYPE} and hadamard_config",
        )


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config.json of the model in a pack, without the keys that only a pack has.

    Raises Unsupported for a pack of another kind, naming the key.
    """
    for key, values in KNOWN.items():
        if key not in config:
            raise Unreadable(f"config.json: {key} is missing, and the model is a pack with a rotated basis")
        if config[key] not in values or isinstance(config[key], bool):
            wanted = " or ".join(map(repr, values))
            raise Unsupported(f"config.json: {key} is {str(config[key])[:60]!r}, known is {wanted}")
    return {**{key: value for key, value in config.items() if key not in ONLY_HERE}, "model_type": BASE}


def pack_rotation(source: CheckpointFolder, recognition: Recognition) -> Rotation:
    """Return the rotation of a pack's tensors by their GGUF names, after comparing the three places that tell it.

    Raises Unreadable and Unsupported, naming the key or the tensor.
    """
    shapes = recognition.spec.tensor_shapes()
    targets = {recognition.source_name(target): target for target in shapes}
    pairs = dict(source.hadamard)
    for key in ("prism.hadamard.weight_names", "prism.hadamard.inverse_weight_names"):
        if isinstance(names := pairs.get(key), list):
            pairs[key] = [targets.get(name, name) if isinstance(name, str) else name for name in names]
    with locating(path=source.folder / HADAMARD):
        if not source.hadamard:
            hint = "it belongs to the repository, beside config.json"
            raise Unreadable("is missing or empty, and the model is a pack with a rotated basis", hint=hint)
        if (rotation := rotation_of(pairs, shapes, HYBRID)) is None:
            raise Unreadable("has no key prism.hadamard.*, and the model is a pack with a rotated basis")
        if not rotation.grouped_heads:
            raise Unsupported("metadata key prism.hadamard.gdn_v_grouped is not true, and a pack has grouped heads")
    _compare_modules(source, targets, rotation)
    _compare_signs(source, {name: (target, shapes[target][-1]) for name, target in targets.items()}, rotation)
    return rotation


def _compare_modules(source: CheckpointFolder, targets: Mapping[str, str], rotation: Rotation) -> None:
    """Raise Unreadable if `modules` of config.json does not say of each matrix what hadamard.json says."""
    blocks: dict[str, int] = {}
    listed = source.config.get("modules")
    for module in listed if isinstance(listed, list) else [None]:
        if not isinstance(module, Mapping) or not isinstance(path := module.get("path"), str):
            raise Unreadable("config.json: modules is not a list of objects with a path")
        target = targets.get(f"{path}.weight") or targets.get(f"language_model.{path}.weight")
        if target is None or target in blocks:
            problem = "names one twice" if target else "names a matrix that is not there"
            raise Unreadable(f"config.json: modules {problem}: {path[:80]!r}")
        blocks[target] = block = module.get("block", 0)
        if block not in (0, rotation.block) or isinstance(block, bool):
            found = f"config.json: modules has block {str(block)[:20]} for {path!r}"
            raise Unreadable(f"{found}, and {HADAMARD} has block_size {rotation.block}")
        if bool(module.get("embedding")) != (target in rotation.tables) and block:
            raise Unreadable(f"config.json: modules and {HADAMARD} disagree whether {path!r} is an embedding")
    for name, target in targets.items():
        if rotation.turns(target) != bool(blocks.get(target)):
            places = [HADAMARD, "modules of config.json"]
            one, other = places if rotation.turns(target) else places[::-1]
            raise Unreadable(f"is rotated according to {one} and not to {other}", tensor=name)


def _compare_signs(source: CheckpointFolder, targets: Mapping[str, tuple[str, int]], rotation: Rotation) -> None:
    """Raise Unreadable if the signs beside a matrix are not those of hadamard.json. targets: by name in the pack, the
    name in GGUF and the columns."""
    for name, (target, width) in targets.items():
        stem = name.removesuffix("weight")
        stored = source.tensors.get(f"{stem}signs")
        if not rotation.turns(target):
            if stored is not None:
                raise Unreadable(f"is there, and {HADAMARD} does not name its matrix", tensor=stored.name)
            continue
        if stored is None:
            if rotation.signs:
                raise Unreadable(f"is missing, and {HADAMARD} has signs", tensor=f"{stem}signs")
            continue
        expected = rotation.signs.get(width, np.ones(width, np.float32))
        fits = stored.shape == (width,) and stored.dtype in FLOATS
        if not fits or not np.array_equal(stored.rows_f32(0, 1)[0], expected):
            raise Unreadable(f"is not the signs that {HADAMARD} has for width {width}", tensor=stored.name)
        stored.release()
