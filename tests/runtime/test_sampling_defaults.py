"""runtime/sampling_defaults.py: what a file says about sampling, and who wins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tritpack.formats.errors import Unreadable, UsageError
from tritpack.runtime.sampling import SamplingParams
from tritpack.runtime.sampling_defaults import KEYS, file_sampling, sampling_params

FILE = {KEYS["temp"]: np.float32(0.6), KEYS["top_k"]: 20, KEYS["top_p"]: np.float32(0.9)}


def test_a_file_gives_defaults_and_the_caller_wins() -> None:
    assert file_sampling(FILE) == {"temp": 0.6, "top_k": 20, "top_p": 0.9}  # not 0.6000000238
    assert sampling_params(FILE) == SamplingParams(0.6, 20, 0.9)
    assert sampling_params(FILE, temp=1.5, top_k=0, seed=3) == SamplingParams(1.5, 0, 0.9, seed=3)
    assert sampling_params(FILE, temp=0.0) == SamplingParams()
    assert sampling_params(FILE, temp=0.0, repeat_penalty=1.1) == SamplingParams(repetition_penalty=1.1)


def test_without_a_temperature_a_file_stays_greedy() -> None:
    for metadata in ({}, {KEYS["top_k"]: 20}, {KEYS["temp"]: 0.0, KEYS["repeat_penalty"]: 1.2}):
        assert sampling_params(metadata) == SamplingParams(), metadata


@pytest.mark.parametrize("value", ["hot", -1.0, float("nan"), True, [0.5]], ids=str)
def test_an_impossible_value_of_a_file_is_named(value: Any) -> None:
    with pytest.raises(Unreadable, match=r"general\.sampling\.temp is .* expected a number: 0 or more") as caught:
        sampling_params({KEYS["temp"]: value}, "m.gguf")
    assert caught.value.path == "m.gguf" and "metadata rm" in (caught.value.hint or "")


def test_an_impossible_value_of_the_caller_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="top_p must be above 0"):
        sampling_params(FILE, top_p=0.0)
