"""The naming convention of GGUF files, compared with gguf-py's own code."""

from __future__ import annotations

import gguf
import pytest

from tritpack.converter.model_names import conventional_stem, name_parts, size_label, title

NAMES = {
    "bitnet-b1.58-2B-4T": 2_412_820_480,
    "bitnet_b1_58-large": 728_843_776,
    "bitnet_b1_58-3B": 3_320_000_000,
    "Llama3-8B-1.58-100B-tokens": 8_030_261_248,
    "Falcon3-10B-Instruct-1.58bit": 10_305_653_760,
    "Falcon-E-1B-Base": 1_660_000_000,
    "TriLM_3.9B_Unpacked": 3_990_000_000,
    "bitnet-embedding-0.6b": 596_000_000,
    "bitnet-embedding-270m": 268_000_000,
    "Ternary-Bonsai-1.7B-unpacked": 1_720_000_000,
    "Ternary-Bonsai-8B-mlx-2bit": 8_190_000_000,
    "BitCPM4-0.5B": 434_000_000,
    "BitCPM-CANN-3B": 3_100_000_000,
    "Mixtral-8x7B-Instruct-v0.1": 46_700_000_000,
    "bloom-7b1": 7_069_016_064,
    "Llama-2-7b-chat-hf": 6_738_415_616,
    "tiny-small-3B": 3_000_000_000,
    "v1.0-q4_0-model": 1_000_000,
    "a": 999,
    "Qwen2-57B-A14B-Instruct-fp16": 57_000_000_000,
    "iter-iter0003-7B": 7_000_000_000,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken_apart_as_gguf_py_does(name: str) -> None:
    for parameters in (NAMES[name], 0):
        _, _, base, finetune, version, size = gguf.Metadata.get_model_id_components(name, parameters)
        parts = name_parts(name, parameters)
        assert (parts.base, parts.size_label, parts.finetune, parts.version) == (base, size, finetune, version), (
            parameters
        )


@pytest.mark.parametrize("name", NAMES)
def test_files_are_named_as_gguf_py_does(name: str) -> None:
    parameters = NAMES[name]
    _, _, base, finetune, version, size = gguf.Metadata.get_model_id_components(name, parameters)
    size = size or gguf.size_label(parameters, parameters, 0, 0)
    assert size_label(name, parameters) == size
    assert conventional_stem(name, parameters) == gguf.naming_convention(name, base, finetune, version, size, None)
    assert title(name) == gguf.Metadata.id_to_title(name)


@pytest.mark.parametrize("parameters", [1, 999, 1000, 1001, 10**6, 10**6 + 1, 123456789, 10**9, 99 * 10**8, 2 * 10**12])
def test_a_number_of_parameters_is_written_as_gguf_py_does(parameters: int) -> None:
    assert size_label("model", parameters) == gguf.size_label(parameters, parameters, 0, 0)
