"""inspect: any GGUF, told what it is."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.conftest import run
from tests.make.checkpoints import Tensors, edited_checkpoint, edited_gguf, read_safetensors
from tritpack.converter.convert import convert
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.integrity import CODES_KEY, KEYS, TENSORS_KEY
from tritpack.formats.model_metadata import QUANTIZATION_KEY
from tritpack.formats.ternary import TernaryTensor


def test_figures_of_our_own_file(tiny_checkpoint: Path, tiny_gguf: Path) -> None:
    result = inspect(tiny_gguf, stats=True)
    assert result["schema"] == "tritpack.inspect/1" and result["problems"] == []
    assert json.loads(json.dumps(result))["tensors"] == result["tensors"]
    row = next(row for row in result["tensors"] if row["name"] == "blk.1.ffn_down.weight")
    codes, scale = Oracle(tiny_checkpoint).linear("blk.1.ffn_down")
    assert row["shape"] == [256, 768] and row["nbytes"] == 256 * 768 // 4 + 32 and row["type_id"] == 36
    assert row["scale"] == scale
    assert row["codes_sha256"] == TernaryTensor(codes, scale).codes_sha256()
    assert [row["minus"], row["zero"], row["plus"]] == [float(np.mean(codes == c)) for c in (-1, 0, 1)]
    shares = np.array([row["minus"], row["zero"], row["plus"]])
    assert row["entropy_bits"] == pytest.approx(-(shares * np.log2(shares)).sum())
    info = GgufFile(tiny_gguf).tensors["blk.1.ffn_down.weight"]
    raw = tiny_gguf.read_bytes()[row["file_offset"] : row["file_offset"] + row["nbytes"]]
    assert raw == GgufFile(tiny_gguf).bytes_of(info).tobytes()


@pytest.mark.parametrize(
    "name",
    ["bitnetcpp_b158_i2_s", "llamacpp_llama_tq2_0", "llamacpp_llama_q2_0", "ik_b158_iq2_bn_r4", "ik_b158_wide_iq1_bn"],
)
def test_files_of_other_engines(shared: Path, name: str) -> None:
    result = inspect(shared / "golden" / "engines" / f"{name}.gguf", stats=True)
    layout = name.split("_", 2)[2].removeprefix("wide_")
    assert layout in result["layouts"]
    if layout == "i2_s":
        index = json.loads((shared / "golden" / "engines" / "golden.json").read_text())
        assert "hidden_activation is missing" in " ".join(result["problems"]) and index
        assert all("codes_sha256" in row for row in result["tensors"] if row["layout"] == "i2_s")


def test_damage_and_other_problems(tiny_gguf: Path, tmp_path: Path) -> None:
    def three(tensors: dict[str, np.ndarray]) -> None:
        tensors["blk.0.attn_q.weight"][5] = 0xFF

    def claims(metadata: dict) -> None:
        metadata["general.file_type"] = 1
        del metadata["tokenizer.ggml.pre"]

    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", tensors=three, metadata=claims)
    result = inspect(path, stats=True)
    [damage] = result["damage"]
    assert damage.startswith("tensor 'blk.0.attn_q.weight': code 3 at row 0, column 5")
    text = " ".join(result["problems"])
    assert "general.file_type is 1" in text and "tokenizer.ggml.pre is missing" in text and "code 3" in text
    assert inspect(path)["damage"] == []  # only --stats decodes
    shown = run("inspect", path, "--stats")
    assert shown.exit_code == 1 and "damage: tensor 'blk.0.attn_q.weight': code 3" in shown.stdout
    assert "problem: general.file_type is 1" in shown.stdout
    assert run("inspect", path).exit_code == 0


def test_bad_padding_is_damage(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    convert(tiny_checkpoint, path, outtype="t158")

    def rubbish(tensors: dict[str, np.ndarray]) -> None:
        tensors["blk.1.ffn_down.weight"][-1] = 7

    bad = edited_gguf(path, tmp_path / "b.gguf", tensors=rubbish)
    assert inspect(path, stats=True)["damage"] == []
    [damage] = inspect(bad, stats=True)["damage"]
    assert damage.startswith("tensor 'blk.1.ffn_down.weight': ") and run("inspect", bad, "--stats").exit_code == 1


@pytest.mark.parametrize("name", ["blk.1.ffn_down.weight", "token_embd.weight", "output_norm.weight"])
def test_a_changed_byte_is_found_by_the_recorded_hash(name: str, tiny_gguf: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[name][-1] ^= 1  # of a ternary tensor, a byte that readers ignore

    bad = edited_gguf(tiny_gguf, tmp_path / "b.gguf", tensors=change, damaged=True)
    result = inspect(bad, stats=True)
    [damage] = result["damage"]
    assert damage.startswith(f"tensor '{name}': its bytes are not those that the file records: their SHA-256 begins ")
    assert result["integrity"] == {"recorded": len(result["tensors"]), "checked": True, "differing": [name]}
    assert [row["name"] for row in result["tensors"] if not row["intact"]] == [name]
    shown = run("inspect", bad, "--stats")
    assert shown.exit_code == 1 and f"damage: tensor '{name}': its bytes" in shown.stdout
    tensors = len(result["tensors"])
    assert f"intact    No: 1 of {tensors} tensors was changed after the file was written. Get it again" in shown.stdout
    assert "runs in   Nothing runs it right: the file is damaged. An undamaged copy would be right in" in shown.stdout
    assert "Right in" not in shown.stdout and "...." not in shown.stdout
    many = run("inspect", _all_changed(tiny_gguf, tmp_path), "--stats").stdout
    assert f"No: {tensors} of {tensors} tensors were changed" in many and many.count("damage: ") == 6
    plain = run("inspect", bad)
    assert plain.exit_code == 0 and "within the file; hashes not checked (--stats)." in plain.stdout
    good = run("inspect", tiny_gguf, "--stats")
    assert good.exit_code == 0 and f"intact    Yes: all {len(result['tensors'])} tensors have" in good.stdout


def _all_changed(file: Path, folder: Path) -> Path:
    def change(tensors: dict[str, np.ndarray]) -> None:
        for data in tensors.values():
            data[-1] ^= 1

    return edited_gguf(file, folder / "all.gguf", tensors=change, damaged=True)


def test_records_that_differ_from_the_tensors(tiny_gguf: Path, tmp_path: Path) -> None:
    def other_codes(metadata: dict) -> None:
        metadata[CODES_KEY] = ["ab" * 32 if each else "" for each in metadata[CODES_KEY]]

    result = inspect(edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=other_codes), stats=True)
    assert len(result["damage"]) == sum("codes_sha256" in row for row in result["tensors"]) > 0
    assert "its codes are not those that the file records" in result["damage"][0] and "abababab" in result["damage"][0]

    def of_another(metadata: dict) -> None:
        metadata[TENSORS_KEY] = ["x", *metadata[TENSORS_KEY][1:]]

    [damage] = inspect(edited_gguf(tiny_gguf, tmp_path / "b.gguf", metadata=of_another), stats=True)["damage"]
    assert damage == f"tensor 'token_embd.weight': {TENSORS_KEY} does not name it"
    nonsense = edited_gguf(tiny_gguf, tmp_path / "c.gguf", metadata=lambda metadata: metadata.pop(CODES_KEY))
    assert CODES_KEY in inspect(nonsense)["damage"][0] and run("inspect", nonsense).exit_code == 1
    bare = edited_gguf(tiny_gguf, tmp_path / "d.gguf", metadata=lambda metadata: [metadata.pop(key) for key in KEYS])
    result = inspect(bare, stats=True)
    assert result["integrity"] is None and "No hashes are recorded" in result["answers"]["intact"]


def test_missing_tensors_are_damage(tiny_gguf: Path, tmp_path: Path) -> None:
    def lose(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if name.startswith("blk.1.")]:
            del tensors[name]

    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", tensors=lose)
    [damage] = inspect(path)["damage"]
    assert damage.startswith("11 tensors are missing: 'blk.1.attn_norm.weight', ") and damage.endswith(", ...")
    assert run("inspect", path, "--json").exit_code == 1
    part = edited_gguf(path, tmp_path / "b.gguf", metadata=lambda m: m.update({"split.count": 2}))
    assert inspect(part)["damage"] == []  # a part of a set does not have them all
    empty = edited_gguf(path, tmp_path / "c.gguf", tensors=lambda tensors: tensors.clear())
    assert "It holds no tensors." in run("inspect", empty).stdout


@pytest.mark.parametrize(("key", "known"), [(False, None), (True, True)], ids=["unknown", "stated"])
def test_activations_of_a_model_without_ternary_weights(
    key: bool, known: bool | None, tiny_gguf: Path, tmp_path: Path
) -> None:
    def lose(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if "_norm" not in name and name != "token_embd.weight"]:
            del tensors[name]

    def silent(metadata: dict[str, object]) -> None:
        if not key:
            del metadata[QUANTIZATION_KEY]

    result = inspect(edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=silent, tensors=lose))
    assert result["ternary_weights"] == 0 and result["model"]["int8_activations"] is known
    assert inspect(tiny_gguf)["model"]["int8_activations"] is True


@pytest.mark.parametrize("kind", list(gguf.GGMLQuantizationType), ids=lambda kind: kind.name)
def test_every_type_of_ggml_has_its_name(kind: gguf.GGMLQuantizationType, tmp_path: Path) -> None:
    path, (_, size) = tmp_path / "a.gguf", gguf.GGML_QUANT_SIZES[kind]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.ffn_up.weight", np.zeros((4, 2 * size), np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    result = inspect(path)
    assert result["layouts"] == {kind.name.lower(): 1} and "unknown" not in " ".join(result["problems"])
    ternary = kind.name in ("TQ1_0", "TQ2_0")
    assert (result["ternary_weights"] > 0) == ternary and (result["ternary_bits_per_weight"] is not None) == ternary
    assert ("No weights are ternary" in run("inspect", path).stdout) != ternary


def test_a_checkpoint_folder_is_shown_as_it_is(tiny_checkpoint: Path, tiny_gguf: Path) -> None:
    result, packed = inspect(tiny_checkpoint, stats=True), inspect(tiny_gguf, stats=True)
    assert result["kind"] == "checkpoint" and result["model_type"] == "bitnet" and result["problems"] == []
    assert result["weight_files"] == ["model.safetensors"] and result["layouts"]["u8"] == 14
    assert result["model"] == packed["model"] and result["ternary_weights"] == packed["ternary_weights"]
    names = {row["name"]: row["shape"] for row in result["tensors"]}
    stored = read_safetensors(tiny_checkpoint / "model.safetensors")
    assert names == {name: shape for name, (_, shape, _) in stored.items()}
    hashes = {row["gguf_name"]: row["codes_sha256"] for row in result["tensors"] if "codes_sha256" in row}
    assert hashes == {row["name"]: row["codes_sha256"] for row in packed["tensors"] if "codes_sha256" in row}
    shown = run("inspect", tiny_checkpoint).stdout
    assert "embeddings), a checkpoint, recognised as BitNet b1.58" in shown
    assert "GGUF" not in shown


def test_a_folder_that_cannot_be_converted_is_shown_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def other(config: dict) -> None:
        config["attention_bias"] = True

    refused = edited_checkpoint(tiny_checkpoint, tmp_path / "a", config=other)
    result = inspect(refused)
    assert result["damage"] == [] and result["problems"][0].startswith("cannot be converted: ")
    assert (
        "Advice" not in result["answers"]["what"] and "Nothing that tritpack can make" in result["answers"]["runs_in"]
    )
    assert "No weights are ternary" not in result["answers"]["what"] and result["engines"] == []
    lines = run("inspect", refused).stdout.splitlines()
    assert lines[1].startswith("problem: cannot be converted: ") and lines[2].startswith("what ")
    assert len(result["tensors"]) == len(inspect(tiny_checkpoint)["tensors"]) and result["recognised"] is None

    def lose(tensors: Tensors) -> None:
        del tensors["model.norm.weight"]

    damaged = edited_checkpoint(tiny_checkpoint, tmp_path / "b", tensors=lose)
    assert inspect(damaged)["damage"] == ["tensor 'model.norm.weight': is missing"]
    assert run("inspect", damaged).exit_code == 1
