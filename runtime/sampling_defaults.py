"""Sampling defaults that a file holds: its checkpoint's generation_config, under the keys that llama.cpp reads too."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tritpack.formats.errors import Unreadable
from tritpack.runtime.sampling import SamplingParams

KEYS = {
    "temp": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repeat_penalty": "general.sampling.penalty_repeat",
}
"""Options of `generate`, and the metadata key of each."""
OFF: dict[str, float] = {"temp": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
"""What each option is where neither the user nor the file says: together they are greedy."""

Range = tuple[Callable[[float], bool], str]
RANGES: dict[str, Range] = {
    "temp": (lambda value: value >= 0, "0 or more"),
    "top_k": (lambda value: value >= 0 and value == int(value), "a whole number, 0 or more"),
    "top_p": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "min_p": (lambda value: 0 <= value <= 1, "between 0 and 1"),
    "repeat_penalty": (lambda value: value > 0, "above 0"),
}
"""Which values of each option are possible, and that in words."""


def as_option(name: str, value: object) -> float | None:
    """Return the value of an option as Python's number, None if it is impossible.

    A float32 becomes the shortest number that rounds to it, so that a stored 0.6 is the 0.6 that a user types.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    number = float(value)
    if not math.isfinite(number) or not RANGES[name][0](number):
        return None
    return int(number) if name == "top_k" else float(str(np.float32(number)))


def file_sampling(metadata: Mapping[str, Any], path: str | os.PathLike[str] | None = None) -> dict[str, float]:
    """Return the sampling options that the metadata of a file give, by the names of the options of `generate`.

    They are empty unless the file has a temperature above 0. Raises Unreadable for an impossible value.
    """
    options = {}
    for name, key in KEYS.items():
        if key not in metadata:
            continue
        value = as_option(name, metadata[key])
        if value is None:
            raise Unreadable(
                f"metadata key {key} is {str(metadata[key])[:40]!r}, expected a number: {RANGES[name][1]}", path=path,
                hint=f"tritpack metadata rm FILE {key} takes it out",
            )  # fmt: skip
        options[name] = value
    return options if options.get("temp") else {}


def resolve(options: Mapping[str, Any], defaults: Mapping[str, float]) -> dict[str, Any]:
    """Return all sampling options: what is given, else the file's `defaults`, else off.

    A given temperature of 0 means greedy, so it leaves out the other defaults of the file too.
    """
    from_file = {} if options.get("temp") == 0 else defaults
    given = {name: value for name, value in options.items() if value is not None}
    return {**OFF, **from_file, **given}


def sampling_params(
    metadata: Mapping[str, Any], path: str | os.PathLike[str] | None = None, **options: Any
) -> SamplingParams:
    """Return how to sample with a file. options: temp, top_k, top_p, min_p, repeat_penalty and seed; None takes what
    the file says. Raises UsageError for an impossible option, Unreadable for an impossible value of the file."""
    values = resolve(options, file_sampling(metadata, path))
    return SamplingParams(
        values["temp"], values["top_k"], values["top_p"], values["min_p"], values["repeat_penalty"],
        values.get("seed", 0),
    )  # fmt: skip
