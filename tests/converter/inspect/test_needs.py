"""What a model needs: bytes, memory, and the bounds of speed and energy, against sums made here by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.conftest import exit_code_of, run
from tritpack.converter.convert import convert
from tritpack.converter.inspect.energy import energy
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.inspect.needs import NeedsOptions
from tritpack.converter.inspect.needs_text import needs_sentences
from tritpack.converter.inspect.packed_needs import packed_needs
from tritpack.converter.inspect.shapes import SHAPES
from tritpack.formats.errors import UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_metadata import from_gguf

FAST = NeedsOptions(bandwidth=40.0)


def test_needs_of_a_file(tiny_gguf: Path) -> None:
    needs = inspect(tiny_gguf, context=100, bandwidth=40.0)["needs"]
    tensors = sum(tensor.nbytes for tensor in GgufFile(tiny_gguf).tensors.values())
    assert needs["bytes_per_token"] == tensors and needs["nbytes"] == tiny_gguf.stat().st_size
    assert needs["cache_bytes"] == 100 * 2 * 2 * 2 * 64 * 4  # keys and values, layers, heads, values, float32
    assert needs["memory_bytes"] == needs["nbytes"] + needs["cache_bytes"]
    assert needs["bandwidth"] == 40e9 and needs["bandwidth_is"] == "given"
    assert needs["fits_cache"] and needs["tokens_per_second"] is None  # memory does not bound so small a model


@pytest.mark.parametrize(
    ("asked", "context", "why"),
    [
        (None, 1024, "the longest of the model"),
        (10, 10, "as asked"),
        (9999, 1024, "the longest of the model; 9,999 were asked for"),
        (1024, 1024, "the longest of the model"),
    ],
)
def test_the_context_and_what_decided_it(asked: int | None, context: int, why: str, tiny_gguf: Path) -> None:
    needs = inspect(tiny_gguf, context=asked, bandwidth=40.0)["needs"]
    assert (needs["context"], needs["context_is"]) == (context, why)


def test_a_long_context_is_cut_to_4_gib() -> None:
    needs = packed_needs(SHAPES["100b"].spec, options=FAST)
    assert needs["cache_bytes"] <= 4 << 30 < needs["cache_bytes"] * (needs["context"] + 1) / needs["context"]
    assert needs["context_is"] == "as many as 4 GiB of keys and values hold; the model allows 2,048"


@pytest.mark.parametrize("outtype", ["i2_s", "t2", "tq2_0", "t158"])
def test_sizes_without_a_file_are_those_of_the_file(outtype: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(tiny_checkpoint, tmp_path / "a.gguf", outtype=outtype, embedding_type="q8_0")
    file = GgufFile(tmp_path / "a.gguf")
    needs = packed_needs(from_gguf(file), outtype, "q8_0", options=FAST)
    assert needs["nbytes"] == sum(tensor.nbytes for tensor in file.tensors.values())


def test_a_head_of_its_own_spares_the_embedding() -> None:
    tied = SHAPES["bitnet-2b-4t"].spec
    untied = dataclasses.replace(tied, tied=False)
    table = 2 * tied.vocab_size * tied.hidden_size
    one, two = (packed_needs(spec, options=FAST) for spec in (tied, untied))
    assert two["nbytes"] - one["nbytes"] == table
    assert two["bytes_per_token"] - one["bytes_per_token"] == 2 * tied.hidden_size  # one row of it


def test_the_bound_of_speed() -> None:
    needs = packed_needs(SHAPES["bitnet-2b-4t"].spec, options=FAST)
    assert needs["tokens_per_second"] == 40e9 / needs["bytes_per_token"]
    assert needs["tokens_per_second_at_full_context"] == 40e9 / (needs["bytes_per_token"] + needs["cache_bytes"])


def test_the_speed_in_words() -> None:
    needs = packed_needs(SHAPES["bitnet-2b-4t"].spec, options=FAST)
    read = needs["bytes_per_token"]
    unknown = {**needs, "bandwidth": None, "tokens_per_second": None, "bandwidth_is": "not measured"}
    assert (
        f"at most = memory bandwidth / 1.18 GB; for example {50e9 / read:.3g} at 50 GB/s" in needs_sentences(unknown)[2]
    )
    small = needs_sentences({**needs, "fits_cache": True})[2]
    assert "the processor, not the 40 GB/s of memory, sets the speed; tritpack bench measures it" in small
    assert needs_sentences(needs)[0].startswith("Disk: about 1.18 GB once")


def test_energy_is_arithmetic_and_reading() -> None:
    found = energy(1000, 1200, 500, int8_activations=True)
    arithmetic = 1000 * 0.03e-12 + 200 * (1.1e-12 + 0.4e-12)
    assert found["arithmetic_joules_per_token"] == pytest.approx(arithmetic)
    assert found["joules_per_token"] == pytest.approx([arithmetic + 500 * nj * 1e-9 / 8 for nj in (1.3, 2.6)])
    fp16 = 1200 * 1.5e-12
    assert found["fp16_joules_per_token"] == pytest.approx([fp16 + 2400 * nj * 1e-9 / 8 for nj in (1.3, 2.6)])
    assert found["fp16_ratio"] == pytest.approx((fp16 + 2400 * 2.6e-9 / 8) / (arithmetic + 500 * 2.6e-9 / 8))
    floats = energy(1000, 1000, 0, int8_activations=False)
    assert floats["arithmetic_joules_per_token"] == pytest.approx(1000 * 0.4e-12)


@pytest.mark.parametrize("options", [{"context": 0}, {"bandwidth": 0.0}, {"bandwidth": float("nan")}], ids=str)
def test_impossible_options(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"is none$"):
        NeedsOptions(**options)  # type: ignore[arg-type]


def test_a_file_that_is_no_whole_model_needs_its_bytes(tiny_gguf: Path) -> None:
    from tests.make.checkpoints import edited_gguf

    path = edited_gguf(tiny_gguf, tiny_gguf.with_name("less.gguf"), tensors=lambda tensors: tensors.popitem())
    result = inspect(path, bandwidth=40.0)
    assert result["needs"] is None and "not a whole model" in result["answers"]["needs"]
    assert exit_code_of(run("inspect", path)) == 1


@pytest.mark.parametrize(
    "name",
    ["bonsai_unpacked", "bonsai_hybrid_unpacked", "bonsai_hybrid_vl_unpacked", "bonsai2_rotated_mlx", "trilm_unpacked",
     "hf1bit_llama3_8b"],
)  # fmt: skip
def test_a_folder_needs_what_its_file_will(name: str, shared: Path, tmp_path: Path) -> None:
    """The scales of groups and rows count, also where GGUF's order of heads tears groups."""
    convert(shared / "checkpoints" / name, path := tmp_path / "a.gguf")
    needs = inspect(shared / "checkpoints" / name, bandwidth=40.0)["needs"]
    assert needs["nbytes"] == pytest.approx(sum(t.nbytes for t in GgufFile(path).tensors.values()), rel=0.025)
