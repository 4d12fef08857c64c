"""Seven checkpoints whose answers others computed: codes, scales, ids, chat and outputs, through the command line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import run
from tritpack.converter.families.recognition import recognise
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.verify.compare.outputs import position_errors

NAMES = (
    "bitnet_embedding_qwen3", "bonsai_unpacked", "falcon_e_bfloat16", "hf1bit_llama3_8b", "ms_2b4t_packed",
    "onebitllm_large", "trilm_unpacked",
)  # fmt: skip
MESSAGES = [
    {"role": "system", "content": "You are a patient keeper."},
    {"role": "user", "content": "How many lanterns are lit?"},
    {"role": "assistant", "content": "Seven."},
    {"role": "user", "content": "Count again, please."},
]


@pytest.fixture(scope="module", params=NAMES)
def converted(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = shared / "checkpoints" / str(request.param)
    target = tmp_path_factory.mktemp("shared") / "m.gguf"
    result = run("convert", folder, "-o", target)
    assert result.exit_code == 0, result.output
    assert sum(line.startswith("recognised: ") for line in result.output.splitlines()) == 1
    return folder, target


def scales_of(row: dict[str, Any]) -> np.ndarray:
    """float32 (row_blocks, col_blocks) in transformers' row order."""
    given = row.get("scales_hf") or row.get("scales") or [[row["scale"]]]
    return np.array(given, np.float32)


def test_codes_and_scales(converted: tuple[Path, Path]) -> None:
    folder, target = converted
    truth = json.loads((folder / "truth.json").read_text())
    source = CheckpointFolder(folder)
    recognition = recognise(source.config, source.dtypes, pooling=source.pooling())
    rows = {row["name"]: row for row in json.loads(run("inspect", target, "--stats", "--json").stdout)["tensors"]}
    ternary = {recognition.source_name(name): row for name, row in rows.items() if "codes_sha256" in row}
    assert set(ternary) == set(truth)
    for name, expected in truth.items():
        row = ternary[name]
        assert row["shape"] == expected["shape"] and row["counts"][1] == expected["zeros"], name
        assert row.get("codes_sha256_hf", row["codes_sha256"]) == expected["codes_sha256"], name
        scales = scales_of(row)
        if expected["scale"] is None:
            blocks = expected["scale_shape"]
            full = np.repeat(scales, blocks[0] // len(scales), axis=0)
            assert full.shape == tuple(blocks), name
            assert hashlib.sha256(np.ascontiguousarray(full).tobytes()).hexdigest() == expected["scales_f32_sha256"], (
                f"{name} {expected}"
            )
            continue
        stored = np.float32(expected["scale"])
        exact = stored if expected["scale_multiplies"] else np.float32(1) / stored
        assert scales.shape == (1, 1), name
        if recognition.storage.name == "master_weights":  # torch's float32 mean depends on its thread count
            assert scales[0, 0] == pytest.approx(exact, rel=5e-7), name
        else:
            assert scales[0, 0] == exact, name


def test_ids_and_chat(converted: tuple[Path, Path], tmp_path: Path) -> None:
    folder, target = converted
    fixture = json.loads((folder / "fixture.json").read_text())
    for options, key in (([], "prompt_ids"), (["--no-special"], "prompt_ids_without_specials")):
        plain = run("tokenize", target, "-p", fixture["prompt"], "--json", *options)
        assert json.loads(plain.stdout)["ids"] == fixture[key], f"{options} {key}"
    if "chat_ids" in fixture:
        (tmp_path / "chat.json").write_text(json.dumps(MESSAGES))
        chat = json.loads(run("tokenize", target, "--chat", tmp_path / "chat.json", "--json").stdout)
        assert (chat["text"], chat["ids"]) == (fixture["chat_rendered"], fixture["chat_ids"])


def test_outputs_of_transformers(converted: tuple[Path, Path], tmp_path: Path) -> None:
    """1e-5 where no int8 code is near a rounding boundary; on the prompt a flip may be worth 1e-2."""
    folder, target = converted
    answers = load_file(folder / "reference.safetensors")
    command, key = ("embed", "embedding") if "embedding" in answers else ("logits", "logits")
    for name, limit in (("safe_", 1e-5), ("", 2e-2)):
        tokens = ",".join(map(str, answers[f"{name}input_ids"].tolist()))
        output = tmp_path / f"{name}out.npy"
        assert run(command, target, "--tokens", tokens, "-o", output).exit_code == 0, name
        found, want = np.atleast_2d(np.load(output)), np.atleast_2d(answers[f"{name}{key}"])
        assert found.dtype == np.float32 and found.shape == want.shape, name
        assert position_errors(found, want).max() <= limit, name
    if command == "embed":
        fixture = json.loads((folder / "fixture.json").read_text())
        assert run("embed", target, "-p", fixture["prompt"], "-o", tmp_path / "p.npy").exit_code == 0
        assert np.load(tmp_path / "p.npy").shape == answers["embedding"].shape
        assert position_errors(np.load(tmp_path / "p.npy")[None], answers["embedding"][None]).max() <= 2e-2
