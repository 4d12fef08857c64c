"""The checkpoint whose answers transformers computed: codes, scales, ids, chat and logits, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from converter.families import families
from converter.verify.logits import position_errors
from tests.conftest import run


def test_ms_2b4t_packed(shared: Path, tmp_path: Path) -> None:
    folder, target = shared / "checkpoints" / "ms_2b4t_packed", tmp_path / "m.gguf"
    assert run("convert", folder, "-o", target, "--outtype", "i2_s").exit_code == 0
    truth = json.loads((folder / "truth.json").read_text())
    rows = {row["name"]: row for row in json.loads(run("inspect", target, "--stats", "--json").stdout)["tensors"]}
    source = {name: families()[0].source_name(name) for name in rows}
    packed = {source[name]: row for name, row in rows.items() if row["layout"] == "i2_s"}
    assert set(packed) == set(truth)
    for name, expected in truth.items():
        row = packed[name]
        assert row["codes_sha256"] == expected["codes_sha256"] and row["shape"] == expected["shape"]
        assert row["scale"] == expected["scale"] and row["counts"][1] == expected["zeros"]

    fixture = json.loads((folder / "fixture.json").read_text())
    plain = json.loads(run("tokenize", target, "-p", fixture["prompt"], "--json").stdout)
    assert plain["ids"] == fixture["prompt_ids"]
    messages = [
        {"role": "system", "content": "You are a patient keeper."},
        {"role": "user", "content": "How many lanterns are lit?"},
        {"role": "assistant", "content": "Seven."},
        {"role": "user", "content": "Count again, please."},
    ]
    (tmp_path / "chat.json").write_text(json.dumps(messages))
    chat = json.loads(run("tokenize", target, "--chat", tmp_path / "chat.json", "--json").stdout)
    assert (chat["text"], chat["ids"]) == (fixture["chat_rendered"], fixture["chat_ids"])

    answers = load_file(folder / "reference.safetensors")
    for name, limit in (("safe_", 1e-5), ("", 2e-2)):
        tokens = ",".join(map(str, answers[f"{name}input_ids"].tolist()))
        assert run("logits", target, "--tokens", tokens, "-o", tmp_path / f"{name}l.npy").exit_code == 0
        assert position_errors(np.load(tmp_path / f"{name}l.npy"), answers[f"{name}logits"]).max() <= limit
