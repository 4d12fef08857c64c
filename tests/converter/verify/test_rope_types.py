"""The oracle reads every rotary configuration that convert accepts, and reads the same model from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.make.families import Checkpoints
from tritpack.converter.options import ConvertOptions
from tritpack.converter.plan import make_plan
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.formats.errors import TritpackError, Unsupported

SHORT, LONG = [1 + 0.05 * i for i in range(16)], [1 + 0.5 * i for i in range(16)]
LONGROPE = {"short_factor": SHORT, "long_factor": LONG, "original_max_position_embeddings": 512}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4}

ROTARY: dict[str, Any] = {
    "null": None,
    "nothing": {},
    "a factor without a type": {"factor": 2.0},
    "a null type": {"rope_type": None, "type": "linear", "factor": 2.0},
    "null types": {"rope_type": None, "type": None},
    "linear": {"rope_type": "linear", "factor": 4},
    "linear by 1": {"type": "linear", "factor": 1},
    "llama3": {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": 512},
    "llama3 of null": {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": None},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    "yarn without a factor": {"type": "yarn", "factor": None, "original_max_position_embeddings": 512},
    "yarn with mscale": {"type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 0.7},
    "yarn with betas": {"type": "yarn", "factor": 4, "beta_fast": 16, "beta_slow": 2, "attention_factor": 1.2},
    "yarn with nulls": {"type": "yarn", "factor": 4, "beta_fast": None, "attention_factor": None, "truncate": None},
    "yarn from a context of 1": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 1},
    "longrope": {"rope_type": "longrope", **LONGROPE},
    "su": {"type": "su", **LONGROPE},
    "su with equal factors": {"type": "su", "short_factor": SHORT, "long_factor": SHORT},
    "longrope from a context of 1": {"type": "longrope", **LONGROPE, "original_max_position_embeddings": 1},
    "default with a base": {"rope_type": "default", "rope_theta": 12345.0},
    "default with a null base": {"rope_type": "default", "rope_theta": None},
    "mrope's sections": {"type": "default", "mrope_section": [2, 2, 2]},
}


def with_config(folder: Path, target: Path, **changes: Any) -> Path:
    shutil.copytree(folder, target)
    document = json.loads((target / "config.json").read_text())
    document.pop("rope_scaling", None)
    (target / "config.json").write_text(json.dumps({**document, **changes}))
    return target


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("name", ROTARY)
def test_what_convert_accepts(name: str, key: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    for number, more in enumerate(({}, {"original_max_position_embeddings": 256}, {"rope_theta": None})):
        changes = {key: ROTARY[name], **more}
        folder = with_config(checkpoints("falcon3").folder, tmp_path / str(number), **changes)
        spec = make_plan(CheckpointFolder(folder), ConvertOptions()).spec
        assert Oracle(folder).spec == spec, changes


@pytest.mark.parametrize("kind", ["dynamic", "mrope", "proportional", "ntk"])
def test_what_neither_accepts(kind: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = with_config(checkpoints("falcon3").folder, tmp_path / "c", rope_scaling={"type": kind, "factor": 2.0})
    for read in (lambda: make_plan(CheckpointFolder(folder), ConvertOptions()), lambda: Oracle(folder)):
        with pytest.raises(Unsupported, match=kind):
            read()


def test_parameters_by_kind_of_layer_are_gemmas_alone(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """convert read none of them, and so another model."""
    nested = {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {"rope_type": "default"}}
    folder = with_config(checkpoints("falcon3").folder, tmp_path / "c", rope_parameters=nested)
    for read in (lambda: make_plan(CheckpointFolder(folder), ConvertOptions()), lambda: Oracle(folder)):
        with pytest.raises(TritpackError, match="by kind of layer"):
            read()
