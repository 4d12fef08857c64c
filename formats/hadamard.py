"""Weights in a rotated basis: the keys `prism.hadamard.*`, and the transform that they name.

A matrix L that is stored so gives y = L H (s x): the input times signs, then a normalised Walsh-Hadamard transform of
each block of it. A table gives h = s (H z) for its row z. H_ij = (-1)^popcount(i & j) / sqrt(block), so H H = 1.
Source: PrismML's pull requests 119 to 121 and 205 to its fork of llama.cpp, and mlx-lm 0.32.2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tritpack.formats.arrays import F32
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile

PREFIX = "prism.hadamard."
RECORD_KEY = "tritpack.rotated"
"""A key that tritpack writes beside those. If another tool drops those, it still says that the weights are rotated."""
VERSION = 1
TRANSFORM = "normalized-sylvester-walsh-hadamard"
AXIS = "input-last-dimension"
SIGN_MODES = ("explicit", "identity")
REQUIRED = ("version", "block_size", "transform", "axis", "sign_mode", "weight_names")
OPTIONAL = ("sign_widths", "sign_values", "inverse_weight_names", "gdn_v_grouped")
LINEARS = (
    "attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv", "attn_gate", "ssm_out", "ffn_gate", "ffn_up", "ffn_down",
)  # fmt: skip
"""What in a layer may be rotated."""
HEAD, TABLE = "output.weight", "token_embd.weight"
ARCHITECTURES = ("qwen35",)
"""Whose graph has the transform."""
Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Rotation:
    """Which tensors of a model are stored in a rotated basis, and in which.

    block: the values that are transformed together. signs: float32 (width,) by the width of an input; empty if there
    are none (sign_mode `identity`). weights: names of matrices whose input is rotated. tables: names of matrices whose
    rows are rotated back. grouped_heads: the columns of ssm_out have value heads in transformers' order.
    """

    block: int
    signs: Mapping[int, F32]
    weights: frozenset[str]
    tables: frozenset[str]
    grouped_heads: bool = False

    def forward(self, x: F32) -> F32:
        """Return H (s x), float32 (..., width): what a rotated matrix is multiplied by."""
        return walsh_hadamard(x * self._signs_of(x), self.block)

    def inverse(self, z: F32) -> F32:
        """Return s (H z), float32 (..., width): what a row of a rotated table means."""
        plain: F32 = walsh_hadamard(z, self.block) * self._signs_of(z)
        return plain

    def turns(self, name: str) -> bool:
        """Return whether a tensor is stored in the rotated basis."""
        return name in self.weights or name in self.tables

    def to_metadata(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the keys of a GGUF file that describe this rotation. names: of its tensors, in file order."""
        ordered = list(names)
        pairs: dict[str, Any] = {
            "version": VERSION,
            "block_size": self.block,
            "transform": TRANSFORM,
            "axis": AXIS,
            "sign_mode": "explicit" if self.signs else "identity",
        }
        if self.signs:
            widths = sorted(self.signs)
            pairs["sign_widths"] = np.array(widths, np.int32)
            pairs["sign_values"] = np.concatenate([self.signs[width] for width in widths]).astype(np.int32)
        pairs["weight_names"] = [name for name in ordered if name in self.weights]
        if self.tables:
            pairs["inverse_weight_names"] = [name for name in ordered if name in self.tables]
        pairs["gdn_v_grouped"] = self.grouped_heads
        return {f"{PREFIX}{key}": value for key, value in pairs.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rotation) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        """Return all that makes two rotations one."""
        signs = tuple((width, self.signs[width].tobytes()) for width in sorted(self.signs))
        return self.block, signs, self.weights, self.tables, self.grouped_heads

    def _signs_of(self, x: F32) -> F32 | np.float32:
        return self.signs[x.shape[-1]] if self.signs else np.float32(1)

    def unnamed(self, ternary: Iterable[str]) -> list[str]:
        """Return the ternary matrices that are not rotated though others of their kind are: a sign of a broken file."""
        kinds = {_kind(name) for name in self.weights}
        plain = [name for name in ternary if name not in self.weights and name not in self.tables]
        return sorted(name for name in plain if _kind(name) in kinds or name == TABLE)

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        count = len(self.signs)
        widths = f"{count} width{'' if count == 1 else 's'}" if count else "no signs"
        table = " and the embedding" if self.tables else ""
        signed = "signed " if self.signs else ""
        return f"{signed}Walsh-Hadamard, block {self.block}, {widths}, {len(self.weights)} matrices{table}"


def walsh_hadamard(x: F32, block: int) -> F32:
    """Return the normalised transform of each block of the last axis, float32, in natural order.

    The order of operations is fixed: butterflies of neighbours first, then of blocks twice as long, each a sum and a
    difference; last of all one factor 1 / sqrt(block), which is exact for 4, 16, 64, 256, 1024 and 4096.
    """
    out = np.array(x, np.float32)
    width = 1
    while width < block:
        pairs = out.reshape(-1, 2, width)
        out = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1)
        width *= 2
    return (out * np.float32(1 / math.sqrt(block))).reshape(x.shape)


def rotation_of(metadata: Mapping[str, Any], shapes: Shapes, architecture: str | None) -> Rotation | None:
    """Return the rotation that a file's keys describe, checked against its tensors; None if it has none of them.

    shapes: (rows, cols) by GGUF name. Raises Unsupported for another contract than the one that is known, Unreadable
    for one that contradicts itself or the tensors, and for none where RECORD_KEY tells that there was one; each names
    the key.
    """
    pairs = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
    if not pairs and metadata.get(RECORD_KEY) is True:
        what = f"{RECORD_KEY} says that the weights are in a rotated basis, and without them the model talks nonsense"
        hint = "tritpack metadata fix FILE --source SOURCE copies them from a source that has them"
        raise Unreadable(f"the keys {PREFIX}* are missing: {what}", hint=hint)
    if not pairs:
        return None
    if architecture not in ARCHITECTURES:
        raise Unsupported(
            f"metadata key {PREFIX}{next(iter(pairs))} is there, but {architecture!r} has no rotation here"
        )
    _check_constants(pairs)
    block = pairs["block_size"]
    if not _is_int(block) or block < 2 or block & (block - 1):
        raise Unreadable(f"metadata key {PREFIX}block_size is {_shown(block)}, expected a power of two from 2")
    weights = _names(pairs, "weight_names", shapes, [HEAD, *LINEARS])
    tables = _names(pairs, "inverse_weight_names", shapes, [TABLE])
    signs = _signs(pairs)
    for name in (*weights, *tables):
        cols = shapes[name][-1]
        if cols % block:
            raise Unreadable(f"metadata key {PREFIX}block_size is {block}, which does not divide {cols}", tensor=name)
        if pairs["sign_mode"] == "explicit" and cols not in signs:
            raise Unreadable(f"metadata key {PREFIX}sign_widths has no signs for its width {cols}", tensor=name)
    grouped = pairs.get("gdn_v_grouped", False)
    if not isinstance(grouped, bool):
        raise Unreadable(f"metadata key {PREFIX}gdn_v_grouped is {_shown(grouped)}, expected true or false")
    return Rotation(block, signs, frozenset(weights), frozenset(tables), grouped)


def rotation_of_file(file: GgufFile) -> Rotation | None:
    """Return the rotation of a GGUF file: see rotation_of."""
    shapes = {name: info.shape for name, info in file.tensors.items()}
    return rotation_of(file.metadata, shapes, file.metadata.get("general.architecture"))


def _check_constants(pairs: Mapping[str, Any]) -> None:
    """Raise Unreadable for a key that is missing, Unsupported for one, or a value, that is not known."""
    if missing := [key for key in REQUIRED if key not in pairs]:
        raise Unreadable(f"metadata key {PREFIX}{missing[0]} is missing, and others of {PREFIX}* are there")
    if unknown := sorted(set(pairs) - {*REQUIRED, *OPTIONAL}):
        raise Unsupported(f"metadata key {PREFIX}{unknown[0]} is not known")
    known = {"version": (VERSION,), "transform": (TRANSFORM,), "axis": (AXIS,), "sign_mode": SIGN_MODES}
    for key, values in known.items():
        if isinstance(pairs[key], bool) or not isinstance(pairs[key], (int, float, str)) or pairs[key] not in values:
            wanted = " or ".join(map(str, values))
            raise Unsupported(f"metadata key {PREFIX}{key} is {_shown(pairs[key])}, known is {wanted}")


def _names(pairs: Mapping[str, Any], key: str, shapes: Shapes, roles: Sequence[str]) -> list[str]:
    """Return the names in a key, each of a matrix that is there and in one of the roles."""
    names = pairs.get(key, [])
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise Unreadable(f"metadata key {PREFIX}{key} is {_shown(names)}, expected names of tensors")
    listed = list(names)
    for name in listed:
        if len(shapes.get(name, ())) != 2:
            raise Unreadable(f"metadata key {PREFIX}{key} names {_shown(name)}, which is no matrix of the file")
        if name not in roles and _kind(name) not in roles:
            raise Unsupported(f"metadata key {PREFIX}{key} names {_shown(name)}, which no graph here rotates")
    if len(set(listed)) != len(listed):
        raise Unreadable(f"metadata key {PREFIX}{key} names a tensor twice")
    return listed


def _signs(pairs: Mapping[str, Any]) -> dict[int, F32]:
    """Return the signs by width."""
    if pairs["sign_mode"] == "identity":
        for key in ("sign_widths", "sign_values"):
            if not hasattr(listed := pairs.get(key, ()), "__len__") or len(listed):
                raise Unreadable(f"metadata key {PREFIX}{key} is there, but {PREFIX}sign_mode is identity")
        return {}
    widths, values = (_numbers(pairs, key) for key in ("sign_widths", "sign_values"))
    if (widths < 1).any() or len(set(widths.tolist())) != len(widths):
        raise Unreadable(f"metadata key {PREFIX}sign_widths is {widths.tolist()[:8]}, expected different widths")
    if widths.sum() != len(values):
        raise Unreadable(f"metadata key {PREFIX}sign_values has {len(values)} values, expected {widths.sum()}")
    if not (np.abs(values) == 1).all():
        raise Unreadable(f"metadata key {PREFIX}sign_values holds another value than 1 and -1")
    parts = np.split(values.astype(np.float32), np.cumsum(widths)[:-1].astype(np.int64))
    return dict(zip(map(int, widths), parts))


def _numbers(pairs: Mapping[str, Any], key: str) -> Any:
    """Return a key's numbers, float64 (n,): integers in GGUF, and whole floats in JSON too."""
    try:
        numbers = np.asarray(pairs.get(key, ()))
    except ValueError:  # lists of different lengths
        numbers = np.zeros(())
    if numbers.ndim != 1 or numbers.size == 0 or numbers.dtype.kind not in "iuf":
        raise Unreadable(f"metadata key {PREFIX}{key} is missing or not a list of numbers, expected integers")
    wide = numbers.astype(np.float64)
    if not (np.isfinite(wide) & (wide == np.rint(wide)) & (np.abs(wide) < 2**31)).all():
        raise Unreadable(f"metadata key {PREFIX}{key} holds a number that is not an integer")
    return wide


def _kind(name: str) -> str:
    """Return what a tensor is in its layer: `ffn_up` of `blk.3.ffn_up.weight`; other names as they are."""
    parts = name.split(".")
    is_layer = len(parts) == 4 and parts[0] == "blk" and parts[1].isdigit() and parts[3] == "weight"
    return parts[2] if is_layer else name


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return repr(value)[:60]
