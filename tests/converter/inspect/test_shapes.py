"""--shape: the sizes of models that are not here, against facts that were published."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from tests.conftest import exit_code_of, run
from tritpack.converter.inspect.needs import NeedsOptions
from tritpack.converter.inspect.packed_needs import packed_needs
from tritpack.converter.inspect.shapes import SHAPES, inspect_shape
from tritpack.formats.errors import Unsupported
from tritpack.formats.names import PUBLISHED_SHAPES


def test_the_names_are_those_of_the_command() -> None:
    assert tuple(SHAPES) == PUBLISHED_SHAPES


@pytest.mark.parametrize(
    ("shape", "parameters"), [("bitnet-2b-4t", 2.41e9), ("8b", 8.03e9), ("70b", 70e9), ("100b", 100e9)]
)
def test_the_shapes_have_the_parameters_of_their_names(shape: str, parameters: float) -> None:
    assert inspect_shape(shape, bandwidth=40.0)["parameters"] == pytest.approx(parameters, rel=0.005)


def test_the_published_checkpoint_has_the_same_size() -> None:
    parameters = inspect_shape("bitnet-2b-4t", bandwidth=40.0)["parameters"]
    assert 0 < 4_825_679_400 - 2 * parameters < 100_000  # the published bf16 file, and its header
    needs = inspect_shape("bitnet-2b-4t", outtype="i2_s", bandwidth=40.0)["needs"]
    assert 0 < 1_187_801_280 - needs["nbytes"] < 9_000_000  # the published I2_S file, and its vocabulary


@pytest.mark.parametrize("outtype", ["i2_s", "tl2", "tq1_0", "t158"])
def test_100b_at_5_to_7_tokens_per_second(outtype: str) -> None:
    result = inspect_shape("100b", outtype=outtype, bandwidth=50.0)
    read = result["needs"]["bytes_per_token"]
    assert 1.6 < 8 * read / result["parameters"] < 2.1
    sums = re.findall(r"(\d) x ([\d.]+) GB = (\d+) GB/s", result["answers"]["claim"])
    assert [rate for rate, _, _ in sums] == ["5", "7"]
    for rate, gigabytes, product in sums:
        assert float(gigabytes) == pytest.approx(read / 1e9, rel=1e-3), rate
        assert int(product) == round(int(rate) * read / 1e9), rate
    assert f"With 50 GB/s it is {50e9 / read:.3g} at most." in result["answers"]["claim"]
    assert f"= {50e9 / read:.3g} tokens/s at most" in result["arithmetic"][1]


def test_a_layout_that_does_not_hold_a_tensor_is_refused() -> None:
    spec = dataclasses.replace(SHAPES["bitnet-2b-4t"].spec, intermediate_size=6900)
    with pytest.raises(Unsupported, match="tq2_0 cannot hold this 2560 x 6900 tensor") as caught:
        packed_needs(spec, "tq2_0", options=NeedsOptions(bandwidth=40.0))
    assert caught.value.tensor == "blk.0.ffn_down.weight"
    assert packed_needs(spec, options=NeedsOptions(bandwidth=40.0))["outtype"] == "t2"  # i2_s takes multiples of 128


def test_the_command() -> None:
    shown = run("inspect", "--shape", "100b", "--bandwidth", "47.5")
    assert shown.exit_code == 0 and "sums      bytes per token: 100 billion ternary weights in i2_s" in shown.stdout
    assert "claim" in shown.stdout and "claim" not in run("inspect", "--shape", "8b", "--bandwidth", "9").stdout
    found = json.loads(run("inspect", "--shape", "8b", "--bandwidth", "9", "--json").stdout)
    assert found["schema"] == "tritpack.inspect-shape/1" and found["needs"]["bandwidth"] == 9e9
    assert run("inspect", "--shape", "70b", "--bandwidth", "9", "--markdown").stdout.startswith("## 70b\n")
    for wrong in (
        ["--shape", "8b", "x.gguf"],
        ["x.gguf", "--outtype", "t2"],
        ["--shape", "9b"],
        ["--shape", "8b", "--engines"],
    ):
        assert exit_code_of(run("inspect", *wrong)) == 2, wrong
