"""Qwen3.5 hybrids back to checkpoints: the MLX pack, MLX's 2 bits and transformers' folder, read again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.make.checkpoints import edited_gguf, read_safetensors
from tests.make.storage import values_of
from tritpack.converter.convert import convert
from tritpack.converter.export.export import export
from tritpack.converter.verify.ladder import verify
from tritpack.formats.errors import Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_metadata import from_gguf
from tritpack.runtime.model import Model


def tensors_of(path: Path) -> dict[str, bytes]:
    file = GgufFile(path)
    return {name: file.bytes_of(info).tobytes() for name, info in file.tensors.items()}


def test_the_mlx_pack_comes_back(shared: Path, tmp_path: Path) -> None:
    """Pack -> GGUF -> pack: the same bytes. Only of a decay there is more than one logarithm, a last bit apart."""
    source = shared / "checkpoints" / "bonsai2_rotated_mlx"
    convert(source, tmp_path / "m.gguf", outtype="ptq1_0")
    export(tmp_path / "m.gguf", folder := tmp_path / "pack", to="mlx")
    before, after = (read_safetensors(path / "model.safetensors") for path in (source, folder))
    assert before.keys() == after.keys()
    for name, stored in before.items():
        if name.endswith("A_log"):
            assert np.abs(values_of(stored) - values_of(after[name])).max() < 1e-6, name
        else:
            assert stored == after[name], name
    documents = [json.loads((path / "hadamard.json").read_text()) for path in (source, folder)]
    for document in documents:
        document["prism.hadamard.weight_names"].sort()
    assert documents[0] == documents[1]
    configs = [json.loads((path / "config.json").read_text()) for path in (source, folder)]
    for config in configs:
        config["modules"].sort(key=lambda module: module["path"])
    assert all(configs[0][key] == configs[1][key] for key in configs[0] if key not in ("text_config", "eos_token_id"))
    text, written = (config["text_config"] for config in configs)
    assert all(text[key] == written[key] for key in text if key in written)
    convert(folder, tmp_path / "again.gguf", outtype="ptq1_0")
    assert tensors_of(tmp_path / "again.gguf") == tensors_of(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("name", "file", "to"),
    [
        ("bonsai2_rotated_gguf_rep3", "model.gguf", "mlx"), ("bonsai2_rotated_gguf", "model-PQ2_0.gguf", "mlx"),
        ("bonsai_hybrid_unpacked", "", "mlx"), ("bonsai_hybrid_unpacked", "", "hf"),
        ("bonsai_hybrid_vl_unpacked", "", "mlx"), ("bonsai_hybrid_vl_unpacked", "", "hf"),
    ],
)  # fmt: skip
def test_what_comes_back_is_the_same_model(shared: Path, tmp_path: Path, name: str, file: str, to: str) -> None:
    source = shared / "checkpoints" / name
    result = export(source / file, folder := tmp_path / "folder", to=to)
    convert(source / file, tmp_path / "one.gguf", outtype="t2")
    convert(folder, tmp_path / "two.gguf", outtype="t2")
    before, after = tensors_of(tmp_path / "one.gguf"), tensors_of(tmp_path / "two.gguf")
    different = [part for part in before if before[part] != after[part]]
    assert different == [part for part in different if part.endswith("ssm_a") and name == "bonsai2_rotated_gguf"]
    assert bool(different) == any("decays come back a last bit off" in text for text in result.warnings)
    if different:
        report = verify(tmp_path / "two.gguf", source / file, level="weights")
        assert report.verdict == "pass" and 0 < report["weights"].figures["decay_rounding"] < 1e-6
        assert "decays (ssm_a) differ by a relative" in report["weights"].notes[0]
    one, two = (from_gguf(GgufFile(tmp_path / f"{which}.gguf")) for which in ("one", "two"))
    assert one == two
    answers = load_file(source / "reference.safetensors")
    with Model(tmp_path / "two.gguf") as model:
        logits = model.logits(tokens=answers["input_ids"].reshape(-1).tolist())
    exact = answers["exact_logits"].reshape(logits.shape)
    assert np.abs(logits - exact).max() < 5e-5 * np.abs(exact).max()
    if to == "mlx":
        stored = read_safetensors(folder / "model.safetensors")
        [taps] = {tuple(entry[1][1:]) for name, entry in stored.items() if name.endswith("conv1d.weight")}
        assert taps == (4, 1), "what mlx-lm takes as the sign that 1 was added to the norms"


def test_groups_that_the_order_of_heads_tears_become_smaller(shared: Path, tmp_path: Path) -> None:
    """A file of PQ2_0 whose 64-wide heads are tiled: in transformers' order, half a group goes with each head."""
    source, plain = shared / "checkpoints" / "bonsai2_rotated_gguf" / "model-PQ2_0.gguf", tmp_path / "plain.gguf"
    edited_gguf(source, plain, metadata=lambda m: [m.pop(key) for key in list(m) if key.startswith("prism.")] and None)
    assert export(plain, tmp_path / "folder", to="mlx").scale_loss == 0
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["quantization"]["group_size"] == 64
    convert(tmp_path / "folder", tmp_path / "again.gguf", outtype="pq2_0")
    again, name = tensors_of(tmp_path / "again.gguf"), "blk.0.ssm_out.weight"
    assert again[name] == tensors_of(plain)[name]
    with pytest.raises(Unsupported, match="has 256 x 4 scales"):
        export(plain, tmp_path / "large", to="mlx", group_size=128)
    assert export(plain, tmp_path / "large", to="mlx", group_size=128, allow_scale_rounding=True).scale_loss > 0.1


def test_what_cannot_be_written(shared: Path, tmp_path: Path) -> None:
    rotated = shared / "checkpoints" / "bonsai2_rotated_gguf_rep3" / "model.gguf"
    with pytest.raises(Unsupported, match="which only an MLX pack can say"):
        export(rotated, tmp_path / "folder")
    with pytest.raises(Unsupported, match="does not rotate its input"):
        export(rotated, tmp_path / "folder", to="onnx")
    with pytest.raises(Unsupported, match="nothing here reads it back"):
        export(rotated, tmp_path / "folder", to="compressed-tensors")
    tiled = edited_gguf(
        rotated, tmp_path / "tiled.gguf", metadata=lambda m: m.update({"prism.hadamard.gdn_v_grouped": False})
    )
    with pytest.raises(Unsupported, match="rotated in GGUF's order of heads"):
        export(tiled, tmp_path / "folder", to="mlx")
    flags = np.array([True, False, True, False])
    assert dataclasses.replace(from_gguf(GgufFile(rotated)).delta_net, recurrent=tuple(flags.tolist())).interval == 2
    assert not (tmp_path / "folder").exists()
