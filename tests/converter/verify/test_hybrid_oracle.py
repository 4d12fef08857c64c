"""The oracle of hybrids: its own reading of folders, packs and packed files against recorded codes; what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tritpack.converter.verify.oracle.hybrid import NAMES, HybridOracle, open_folder
from tritpack.converter.verify.oracle.hybrid_packed import HybridPacked, open_packed
from tritpack.formats.errors import TritpackError

FOLDERS = ("bonsai_hybrid_unpacked", "bonsai_hybrid_vl_unpacked", "bonsai2_rotated_mlx")
FILES = ("bonsai2_rotated_gguf/model-PQ2_0.gguf", "bonsai2_rotated_gguf_rep3/model.gguf")


@pytest.mark.parametrize("name", FOLDERS)
def test_codes_and_scales_of_folders(shared: Path, name: str) -> None:
    folder = shared / "checkpoints" / name
    oracle = open_folder(folder)
    assert isinstance(oracle, HybridOracle)
    truth = json.loads((folder / "truth.json").read_text())
    for part in [linear.removesuffix(".weight") for linear in oracle.spec.linear_names()] + ["token_embd", "output"]:
        coded = oracle.table_codes(part)
        assert coded is not None, part
        recorded = truth.pop(oracle._names[part])
        assert hashlib.sha256(coded[0].tobytes()).hexdigest() == recorded["codes_sha256"], part
        assert hashlib.sha256(coded[1].tobytes()).hexdigest() == recorded["scales_f32_sha256"], part
    assert not truth


@pytest.mark.parametrize("name", FILES)
def test_codes_of_files(shared: Path, name: str) -> None:
    """One has the names and the order of its tensors recorded, the other those of the checkpoint."""
    path = shared / "checkpoints" / name
    oracle = open_packed(path)
    assert isinstance(oracle, HybridPacked)
    truth = json.loads((path.parent / "truth.json").read_text())
    for linear in oracle.spec.linear_names():
        codes, _ = oracle.linear(linear.removesuffix(".weight"))
        _, layer, part = linear.split(".", 2)
        recorded = truth.get(linear) or truth[f"model.layers.{layer}.{NAMES[part]}"]
        if linear in truth and (order := oracle.spec.row_order(linear)) is not None:
            codes = np.ascontiguousarray(codes[order])
        assert hashlib.sha256(codes.tobytes()).hexdigest() == recorded["codes_sha256"], linear


def contract(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "hadamard.json", change)


def config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", change)


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = load_file(folder / "model.safetensors")
        change(values)
        save_file(values, folder / "model.safetensors")

    return edit


DOWN = "language_model.model.layers.1.mlp.down_proj"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (contract(lambda keys: keys.update({"prism.hadamard.version": 2})), "prism.hadamard.version is 2"),
        (contract(lambda keys: keys.pop("prism.hadamard.transform")), "prism.hadamard.transform is None"),
        (contract(lambda keys: keys["prism.hadamard.weight_names"].pop()), "modules has block 512 for it"),
        (contract(lambda keys: keys["prism.hadamard.sign_values"].pop()), "sign_values are not 1536 values"),
        (contract(lambda keys: keys["prism.hadamard.sign_values"].reverse()), "is not what prism.hadamard.sign_values"),
        (config(lambda keys: keys.update(hadamard_config="../hadamard.json")), "expected the name of a file beside it"),
        (config(lambda keys: keys.update(schema_version=3)), "another schema than 1 or 2"),
        (config(lambda keys: keys.update(quantization={"bits": 4})), "4 bits, so it is not ternary"),
        (config(lambda keys: keys["text_config"].update(num_hidden_layers=10**9)), "1000000000 layers cannot be in"),
        (config(lambda keys: keys["text_config"].pop("hidden_size")), "KeyError"),
        (tensors(lambda values: values.pop(f"{DOWN}.signs")), "does not have it"),
        (tensors(lambda values: values.pop(f"{DOWN}.scales")), f"{DOWN}.scales"),
        (tensors(lambda values: values.update({f"{DOWN}.biases": np.zeros((512, 3), "f2")})), "not groups of"),
        (tensors(lambda values: values.update({f"{DOWN}.biases": values[f"{DOWN}.scales"]})), "negated scales"),
        (tensors(lambda values: values[f"{DOWN}.weight"].fill(2**32 - 1)), "the code 3"),
        (lambda folder: (folder / "hadamard.json").unlink(), "hadamard.json"),
    ],
)  # fmt: skip
def test_packs_that_are_refused(shared: Path, tmp_path: Path, edit: Callable[[Path], None], said: str) -> None:
    folder = Path(shutil.copytree(shared / "checkpoints" / "bonsai2_rotated_mlx", tmp_path / "pack"))
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o755)
    edit(folder)
    with pytest.raises(TritpackError) as caught:
        open_folder(folder).linear("blk.1.ffn_down")
    assert said in str(caught.value)
