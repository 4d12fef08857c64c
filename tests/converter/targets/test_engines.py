"""The table of engines, and files that they wrote, run by us, against answers that they (and exact arithmetic) gave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import DEMO, REPOSITORY
from tritpack.converter.convert import convert
from tritpack.converter.targets import engines
from tritpack.converter.targets.engines import table
from tritpack.converter.verify.compare.outputs import position_errors
from tritpack.formats.errors import UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.names import LAYOUTS
from tritpack.runtime.model import Model

CASES = {
    "bitnetcpp_b158_i2_s": 3e-2,
    "ik_b158_iq2_bn_r4": 5e-2,
    "ik_b158_wide_iq1_bn": 4e-2,
    "llamacpp_bitnet_tq2_0": 4e-2,
    "llamacpp_llama_tq2_0": 4e-2,
    "llamacpp_llama_q2_0": 4e-2,
}
"""By case: how far the engine's own answer may be (relative rms): it rounds keys, values and more to float16, and all
but bitnet.cpp quantise activations otherwise than the model says."""


@pytest.mark.parametrize("name", engines.NAMES)
def test_every_engine_is_named_as_the_option_names_it(name: str) -> None:
    engine = engines.by_name(name)
    assert engine.name == name and set(engine.layouts or ()) <= set(LAYOUTS)


def test_every_file_of_an_engine_is_listed() -> None:
    folder = REPOSITORY / "converter" / "targets" / "engines"
    assert {path.stem for path in folder.glob("*.yaml")} == set(table.FILES)
    assert [row.target.name or row.name for row in table.rows() if row.target] == list(engines.NAMES)
    with pytest.raises(UsageError, match="--for vllm is unknown"):
        engines.by_name("vllm")


@pytest.mark.parametrize("name", engines.NAMES)
def test_files_are_aligned_to_cache_lines_where_the_engines_tools_can_do_with_that(name: str, tmp_path: Path) -> None:
    [layout, *_] = engines.by_name(name).layouts or ("i2_s",)
    options = {"outtype": layout, "target": name, "allow_wrong_engine": True}
    plan = convert(DEMO / "checkpoint", path := tmp_path / "x.gguf", **options).plan
    expected = 64 if name == "tritpack" else 32
    assert GgufFile(path).alignment == expected and path.stat().st_size == plan.output_bytes
    assert all(tensor.file_offset % expected == 0 for tensor in GgufFile(path).tensors.values())


@pytest.mark.parametrize("name", CASES)
def test_an_engines_file_runs_as_exact_int8_arithmetic_says(name: str, shared: Path) -> None:
    """Judged by position: one rounding flip moves one position by 5e-3 and says nothing about the others."""
    folder = shared / "golden" / "engines"
    cases = json.loads((folder / "golden.json").read_text())["cases"]
    case = next(case for case in cases if case["name"] == name)
    expected = np.load(folder / case["exact_int8"]["logits"])
    tokens = case["prompt_ids"] + case["greedy_ids"]
    with Model(folder / case["file"]) as model:
        found = model.logits(tokens)
        errors = position_errors(found, expected)
        assert np.median(errors) < 1e-5 and (errors < 1e-5).mean() >= 0.75
        model.reset()
        logits, written = model.eval(case["prompt_ids"]), []
        for _ in case["greedy_ids"]:
            written.append(int(logits.argmax()))
            logits = model.eval(written[-1:])
    assert written == case["greedy_ids"] == case["runs"][0]["greedy_ids"]
    theirs = np.load(folder / case["runs"][0]["logits"])
    assert np.sqrt(np.mean((found - theirs) ** 2) / np.mean(theirs**2)) < CASES[name]
