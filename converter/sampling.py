"""Sampling defaults of a checkpoint: from generation_config.json to GGUF keys, and back for `export`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritpack.formats.errors import Unreadable
from tritpack.runtime.sampling_defaults import KEYS, RANGES, as_option, file_sampling

NAMES = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
}
"""Options of `generate`, and what transformers calls each."""


def sampling_metadata(generation_config: Mapping[str, Any], notes: list[str] | None = None) -> dict[str, Any]:
    """Return the GGUF keys of a generation_config, which are none unless `do_sample` is true.

    A missing temperature is 1, as in transformers. notes: gets a sentence for each value that is left out.
    """
    if generation_config.get("do_sample") is not True:
        return {}
    metadata: dict[str, Any] = {}
    for option, name in NAMES.items():
        value = generation_config.get(name)
        if value is None:
            continue
        number = as_option(option, value)
        if number is None:
            if notes is not None:
                notes.append(
                    f"generation_config.json: {name} is {str(value)[:40]!r}, expected {RANGES[option][1]}; left out"
                )
            continue
        metadata[KEYS[option]] = number
    metadata.setdefault(KEYS["temp"], 1.0)
    return metadata


def generation_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling part of a generation_config.json, empty for a file without possible defaults."""
    try:
        options = file_sampling(metadata)
    except Unreadable:
        return {}
    return {"do_sample": True, **{NAMES[option]: value for option, value in options.items()}} if options else {}
