"""tritpack bench: its arithmetic and its outputs. What it measures is in no test."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.conftest import DEMO, exit_code_of, program, run
from tests.make.checkpoints import edited_gguf
from tritpack.runtime.bench import Limits, Row
from tritpack.runtime.library import library

CONTEXT = "bitnet-b1.58.context_length"


def row_of(test: str, samples: list[float], read: tuple[float, ...] = (4096.0,) * 4) -> Row:
    return Row(test, 1, samples, [Limits(limit, 2 * limit) for limit in read], 1000, 24, 500, None)


def test_a_decoded_token_reads_its_weights_and_its_cache() -> None:
    decoded = row_of("tg4", [1.0, 3.0, 2.0])
    assert decoded.tokens_per_second == 2 and decoded.deviation == pytest.approx(1)
    assert decoded.bytes_per_second == 2 * 1024 and decoded.share_of_limit == 0.5
    assert row_of("tg4", [1.0]).deviation == 0


def test_each_repetition_is_held_against_the_limits_around_it() -> None:
    """A machine that becomes half as fast changes the figure, and not its share."""
    row = row_of("tg4", [3.0, 2.0, 1.0], (4 * 1024, 4 * 1024, 4 * 1024 / 3, 4 * 1024 / 3))
    assert row.share_of_limit == pytest.approx(0.75)  # of 3/4, 2/(8/3), 1/(4/3)
    assert row.as_json()["read_limits"] == row.read_limits and len(row.read_limits) == 4


def test_a_prompt_is_held_against_the_products() -> None:
    assert row_of("pp4", [4.0]).share_of_limit == 4 * 500 / 8192
    assert Row("pp4", 1, [4.0], [Limits(1.0, None)] * 2, 1, 0, 1, None).share_of_limit is None


@pytest.mark.parametrize(
    ("dots_limit", "share", "bound"), [(8000.0, 1 / 4, "dots"), (80000.0, 1 / 8, "read"), (None, 1 / 8, "read")]
)
def test_a_batch_is_held_against_the_lower_limit(dots_limit: float | None, share: float, bound: str) -> None:
    row = Row("batch8", 1, [4.0], [Limits(4096.0, dots_limit)] * 2, 1000, 24, 500, None, 8)
    assert row.bytes_per_second == 4 / 8 * 1024 and row.bound == bound and row.share_of_limit == share


@pytest.mark.parametrize(
    ("test", "floats", "bound"), [("tg4", 1500.0, "floats"), ("tg4", 9e9, "read"), ("pp4", 9e9, "floats")]
)
def test_float_activations_are_held_against_the_lower_limit(test: str, floats: float, bound: str) -> None:
    row = Row(test, 1, [1.0], [Limits(4096.0, None, floats)] * 2, 1000, 24, 500, None)
    assert row.bound == bound and row.share_of_limit == (1024 / 4096 if bound == "read" else 500 / floats)
    shown = row.as_json()
    assert shown["floats_limit"] == floats and shown["dots_limit"] is None
    assert set(shown["shares"]) == ({"floats"} if row.is_prompt else {"read", "floats"})
    alone = Row(test, 1, [1.0], [Limits(None, None, floats)] * 2, 1000, 24, 500, None)
    assert alone.bound == "floats"


def test_rows_of_a_model(tiny_gguf: Path) -> None:
    options = ("bench", tiny_gguf, "-p", "16,0", "-n", "4", "-t", "1,2", "-r", "2", "-d", "8")
    result = json.loads(run(*options, "-o", "json").stdout)
    assert result["schema"] == "tritpack.bench/1" and result["file"] == str(tiny_gguf)
    assert [(r["test"], r["threads"]) for r in result["rows"]] == [
        (test, threads) for threads in (1, 2) for test in ("pp16 @ d8", "tg4 @ d8")
    ]
    for row in result["rows"]:
        assert len(row["samples"]) == 2 and min(row["samples"]) > 0, row
        assert row["tokens_per_second"] == pytest.approx(sum(row["samples"]) / 2), row
        # The tiny shape: 2 layers, 2 kv heads of 64, keys and values of 4 bytes; 8 cached tokens, 2.5 more on average.
        tokens = int(row["test"][2:].split()[0])
        assert row["cache_bytes_per_token"] == round((8 + (tokens + 1) / 2) * 2 * 2 * 2 * 64 * 4), row
    prompt, decoded = result["rows"][:2]
    weights = 2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 768 * 256)
    assert decoded["macs_per_second"] == pytest.approx(weights * decoded["tokens_per_second"])
    behind_last_cache = 256 * 256 + 3 * 768 * 256
    of_prompt = weights - behind_last_cache * 15 / 16
    assert prompt["macs_per_second"] == pytest.approx(of_prompt * prompt["tokens_per_second"])
    assert weights // 4 < decoded["file_bytes_per_token"] < result["file_bytes"]
    assert any(symbol.startswith("matvec_i2_s") for symbol in result["kernels"])
    assert set(result["first_token_seconds"]) == {"1", "2"}
    table = list(csv.reader(io.StringIO(run(*options, "-o", "csv").stdout)))
    assert table[0][:3] == ["test", "threads", "t/s"] and len(table) == 5
    assert result["kv_type"] == "f32"
    sixteen = json.loads(run(*options, "--kv-type", "i16", "--json").stdout)
    assert sixteen["kv_type"] == "i16" and any(symbol.startswith("attention16_f32") for symbol in sixteen["kernels"])
    assert sixteen["rows"][1]["cache_bytes_per_token"] == round((8 + 5 / 2) * 2 * 2 * 2 * (64 * 2 + 4))
    lines = run(*options, "--kv-type", "i16").stdout.splitlines()
    assert any(line.endswith("; i16 cache") for line in lines)
    assert lines[0].startswith("| test") and set(lines[1]) <= set("|-: ") and lines[2].startswith("| pp16 @ d8")


def test_sequences_share_the_weights_but_not_their_caches(tiny_gguf: Path) -> None:
    result = json.loads(run("bench", tiny_gguf, "--sequences", "1,3", "-d", "8", "-r", "2", "-t", "2", "--json").stdout)
    alone, three = result["rows"]
    assert [alone["test"], three["test"]] == ["seq1 @ d8", "seq3 @ d8"]
    cached = round((8 + 17 / 2) * 2 * 2 * 2 * 64 * 4)
    for row, sequences in ((alone, 1), (three, 3)):
        assert row["cache_bytes_per_token"] == cached, row
        bytes_per_token = row["file_bytes_per_token"] / sequences + cached
        assert row["bytes_per_second"] == pytest.approx(row["tokens_per_second"] * bytes_per_token), row


def test_a_file_of_some_size_is_read_for_the_limit() -> None:
    result = json.loads(run("bench", str(DEMO / "checkpoint"), "-p", "0", "-n", "2", "-r", "1", "--json").stdout)
    (row,) = result["rows"]
    assert row["read_limit"] > 1e8 and len(row["read_limits"]) == 2
    assert row["share_of_limit"] == pytest.approx(row["bytes_per_second"] / row["read_limit"])
    assert result["file"] == str(DEMO / "checkpoint")


def test_the_default_tests_fit_a_short_context(tiny_gguf: Path, tmp_path: Path) -> None:
    short = edited_gguf(tiny_gguf, tmp_path / "short.gguf", metadata=lambda m: m.update({CONTEXT: 32}))
    result = run("bench", short, "-r", "1", "-t", "1", "--json")
    assert "shorter than usual, to fit the model's context of 32 tokens" in result.stderr
    assert [row["test"] for row in json.loads(result.stdout)["rows"]] == ["pp32", "tg32"]
    assert exit_code_of(run("bench", short, "-p", "33")) == exit_code_of(run("bench", short, "-d", "32")) == 2


def test_isa_is_forced(tiny_gguf: Path) -> None:
    result = json.loads(run("bench", tiny_gguf, "-p", "8", "-n", "1", "-r", "1", "--isa", "scalar", "--json").stdout)
    assert all(symbol.endswith("_scalar") for symbol in result["kernels"])
    assert result["rows"][0]["dots_limit"] is None and result["machine"]["isa"] == "scalar"


def test_every_kernel_is_checked_and_timed() -> None:
    result = json.loads(run("bench", "--kernels", "-o", "json").stdout)
    by_symbol = {kernel["symbol"]: kernel for kernel in result["kernels"]}
    assert set(by_symbol) == {kernel.symbol for kernel in library().kernels()}
    for kernel in library().kernels():
        shown = by_symbol[kernel.symbol]
        speed = shown.get("bytes_per_second", shown.get("macs_per_second"))
        assert shown["state"] == ("ok" if kernel.available else "not on this CPU"), kernel.symbol
        timed = kernel.available and kernel.symbol not in ("dots_u8_scalar", "dots_f32_scalar")  # they only count
        assert (speed is not None) == timed, kernel.symbol


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "FILE is missing"),
        (("-p", "x"), "expected numbers"),
        (("-t", "0"), "0 threads"),
        (("-p", "0", "-n", "0"), "nothing to measure"),
        (("-p", "2000"), "positions"),
        (("--kernels",), "does not measure a model"),
    ],
)
def test_wrong_use_is_said_in_a_sentence(tiny_gguf: Path, arguments: tuple[str, ...], sentence: str) -> None:
    file = () if not arguments else (tiny_gguf,)
    result = program("bench", *file, *arguments)
    assert result.returncode == 2 and sentence in result.stderr and "Traceback" not in result.stderr
