"""Ways to break a packed file of a Qwen3.5 hybrid: the keys of its rotation, its value heads, gates and vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.converter.verify.breakages import Arrays, Edit, Metadata, arrays, metadata, ternary
from tests.make.hybrid import ROTATED, TERNARY
from tritpack.formats.hadamard import PREFIX
from tritpack.formats.ternary import TernaryTensor

assert ROTATED.rotation is not None
SIGNS = ROTATED.rotation.signs
"""By the width of an input."""


def signs_as(change: Callable[[dict[int, np.ndarray]], object]) -> Edit:
    """Other signs: change gets those of each width."""

    def edit(pairs: Metadata) -> None:
        signs = {width: values.copy() for width, values in SIGNS.items()}
        change(signs)
        pairs[f"{PREFIX}sign_widths"] = np.array(list(signs), np.int32)
        pairs[f"{PREFIX}sign_values"] = np.concatenate(list(signs.values())).astype(np.int32)

    return metadata(edit)


def cut(pairs: Metadata) -> None:
    """The values of the last width are gone, and the widths stand."""
    pairs[f"{PREFIX}sign_values"] = pairs[f"{PREFIX}sign_values"][: -max(SIGNS)]


def unsigned(pairs: Metadata) -> None:
    pairs[f"{PREFIX}sign_mode"] = "identity"
    for name in ("sign_widths", "sign_values"):
        pairs.pop(f"{PREFIX}{name}")


def unrotated(pairs: Metadata) -> None:
    for name in [name for name in pairs if name.startswith(PREFIX)]:
        pairs.pop(name)


def rows(order: np.ndarray, *names: str) -> Edit:
    return ternary(lambda tensor: tensor.with_rows(order), *names)


def grouped(name: str) -> np.ndarray:
    """The order that puts rows of a file back where transformers has them."""
    order = TERNARY.row_order(name)
    assert order is not None
    return np.argsort(order)


def columns(order: np.ndarray, name: str) -> Edit:
    return ternary(lambda tensor: tensor.with_columns(order), name)


def floats(name: str, change: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> Edit:
    def edit(tensors: Arrays) -> None:
        values = tensors[name].view(np.float32)
        values[:] = change(values.reshape(shape).copy()).reshape(-1)

    return arrays(edit)


def carrier_major(codes_: np.ndarray) -> np.ndarray:
    """What the format's codes are for who writes the five trits of a byte one after another."""
    places = np.concatenate([(np.arange(n * 16, n * 16 + 16)) for n in range(5)])  # digits 0 to 4 of bytes 0 to 15
    first = places.reshape(5, 16).T.reshape(-1)
    second = np.arange(80, 120).reshape(5, 8).T.reshape(-1)
    third = np.arange(120, 128).reshape(4, 2).T.reshape(-1)
    order = np.argsort(np.concatenate([first, second, third]))
    return codes_.reshape(len(codes_), -1, 128)[:, :, order].reshape(codes_.shape)


def halves(tensor: TernaryTensor) -> TernaryTensor:
    return tensor.with_rows(np.arange(tensor.shape[0]).reshape(TERNARY.heads, 2, -1).swapaxes(0, 1).reshape(-1))


def swapped(tensor: TernaryTensor) -> TernaryTensor:
    return tensor.with_rows(np.arange(tensor.shape[0]).reshape(TERNARY.heads, 2, -1)[:, ::-1].reshape(-1))


def one_scale(tensor: TernaryTensor) -> TernaryTensor:
    scales = tensor.scales.copy()
    scales[5, 1] *= 2
    return TernaryTensor(tensor.codes, scales)


def all_of(*edits: Edit) -> Edit:
    """Several mutations, one after another."""

    def edit(good: Path, bad: Path) -> Path:
        for number, step in enumerate(edits):
            good = step(good, bad.with_name(f"{number}.gguf"))
        return good.rename(bad)

    return edit


def names_without(name: str, gone: str) -> Edit:
    return metadata(lambda pairs: pairs.update({f"{PREFIX}{name}": [n for n in pairs[f"{PREFIX}{name}"] if n != gone]}))
