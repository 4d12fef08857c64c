"""From a packed file back to a checkpoint: read again by us, by transformers, and by MLX's formula."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import DEMO, exit_code_of, run
from tests.make.checkpoints import edited_checkpoint, edited_gguf, read_safetensors
from tests.make.families import FAMILIES, Checkpoints
from tests.make.storage import values_of
from tritpack.converter.convert import convert
from tritpack.converter.export.export import export
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.storage import TRANSFORMERS
from tritpack.converter.storage.catalog import STORAGES
from tritpack.converter.verify.ladder import verify
from tritpack.formats.errors import Unsupported, UsageError, WriteFailed
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.model import Model


def weights(path: Path) -> dict[str, tuple[str, list[float]]]:
    file = GgufFile(path)
    decoded = {name: file.ternary(info) for name, info in file.tensors.items()}
    return {name: (t.codes_sha256(), t.scales.ravel().tolist()) for name, t in decoded.items() if t is not None}


def tokenizer_of(path: Path) -> dict[str, str]:
    metadata = GgufFile(path).metadata
    return {key: str(list(value) if hasattr(value, "__len__") and not isinstance(value, str) else value)
            for key, value in metadata.items() if "tokenizer" in key}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_comes_back(name: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Checkpoint -> GGUF -> checkpoint -> GGUF: the same codes, scales, floats, hyperparameters and tokenizer."""
    made = checkpoints(name)
    convert(made.folder, first := tmp_path / "first.gguf", quantize=made.family.quantize)
    result = export(first, folder := tmp_path / "folder")
    convert(folder, second := tmp_path / "second.gguf")
    before, after = weights(first), weights(second)
    assert before.keys() == after.keys() and {k: v[0] for k, v in before.items()} == {k: v[0] for k, v in after.items()}
    one, two = GgufFile(first), GgufFile(second)
    if result.storage == "master_weights":
        assert made.family.sentence or made.family.family.startswith("bitnet_embedding")
        for key in before:
            assert np.allclose(before[key][1], after[key][1], rtol=5e-7, atol=0), key
    else:
        assert before == after and result.scale_loss == 0
    for tensor in one.tensors.values():
        if one.ternary(tensor) is None:
            assert two.bytes_of(two.tensors[tensor.name]).tobytes() == one.bytes_of(tensor).tobytes(), tensor.name
    assert tokenizer_of(first) == tokenizer_of(second)
    with Model(first) as mine, Model(second) as theirs:
        same = mine.spec == theirs.spec
        assert same or mine.spec.architecture == "bitnet"  # its names are BitNetForCausalLM's afterwards


@pytest.mark.parametrize("route", [("t158", "tq2_0"), ("tl2", "iq1_bn"), ("q2_0", "t2"), ("tl1", "iq2_bn_r4")])
def test_a_packed_checkpoint_returns_from_any_journey(
    route: tuple[str, str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """The bytes of the safetensors file themselves."""
    source: Path = tiny_checkpoint
    for outtype in route:
        convert(source, path := tmp_path / f"{outtype}.gguf", outtype=outtype)
        source = path
    result = export(source, folder := tmp_path / "folder")
    assert (result.storage, result.dtype) == ("packed", "bfloat16")
    assert read_safetensors(folder / "model.safetensors") == read_safetensors(tiny_checkpoint / "model.safetensors")
    given, written = (json.loads((each / "config.json").read_text()) for each in (tiny_checkpoint, folder))
    kept = {key: value for key, value in given.items() if key in written and key not in ("eos_token_id", "head_dim")}
    assert {key: written[key] for key in kept} == kept
    assert verify(source, folder, level="weights")["weights"].verdict == "pass"


def test_dividing_scales_stay_dividing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def divide(config: dict[str, Any]) -> None:
        config["quantization_config"]["linear_class"] = "bitlinear"

    odd = edited_checkpoint(tiny_checkpoint, tmp_path / "odd", config=divide)
    convert(odd, path := tmp_path / "odd.gguf")
    export(path, folder := tmp_path / "folder")
    written = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert written == {"quant_method": "bitnet", "linear_class": "bitlinear"}
    assert read_safetensors(folder / "model.safetensors") == read_safetensors(odd / "model.safetensors")


def test_master_weights(tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(tiny_checkpoint, path := tmp_path / "m.gguf")
    with pytest.raises(Unsupported, match="master_weights bfloat16 rounds scales") as caught:
        export(path, tmp_path / "x", storage="master_weights", dtype="bfloat16")
    assert caught.value.hint is not None and "--dtype float32" in caught.value.hint
    result = export(path, folder := tmp_path / "f32", storage="master_weights")
    assert result.dtype == "float32" and result.scale_loss <= 5e-7
    rough = export(path, tmp_path / "bf16", storage="master_weights", dtype="bfloat16", allow_scale_rounding=True)
    assert 5e-7 < rough.scale_loss < 2.0**-8
    for each in (folder, tmp_path / "bf16"):
        convert(each, back := tmp_path / f"{each.name}.gguf")
        mine, theirs = weights(path), weights(back)
        assert {k: v[0] for k, v in mine.items()} == {k: v[0] for k, v in theirs.items()}, each
        # mean |w| is the scale again: the masters stand at +- scale / p
        tensor = CheckpointFolder(each).tensors["model.layers.0.self_attn.q_proj.weight"]
        masters = np.abs(tensor.rows_f32(0, tensor.rows))
        assert masters.mean(dtype=np.float64) == pytest.approx(mine["blk.0.attn_q.weight"][1][0], rel=2.0**-8), each
        assert len(np.unique(masters)) == 2, each


def test_mlx_by_its_formula(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """w = scale * q + bias, q two bits of a word, low first: exactly the values that went in."""
    made = checkpoints(next(name for name in FAMILIES if FAMILIES[name].storage == "ternary_floats"))
    convert(made.folder, path := tmp_path / "m.gguf", quantize=made.family.quantize)
    for group in (None, 32):
        result = export(path, folder := tmp_path / f"mlx{group}", to="mlx", group_size=group)
        config = json.loads((folder / "config.json").read_text())
        size = config["quantization"]["group_size"]
        assert result.storage == "mlx" and config["quantization"]["bits"] == 2 and size in (32, 64, 128), group
        tensors = read_safetensors(folder / "model.safetensors")
        for name, truth in made.truth.items():
            if f"{name.removesuffix('.weight')}.scales" not in tensors:
                continue
            _, shape, raw = tensors[name]
            words = np.frombuffer(raw, "<u4").reshape(shape)
            codes = (words[:, :, None] >> np.arange(0, 32, 2, dtype=np.uint32) & 3).reshape(shape[0], -1)
            scales, biases = (
                values_of(tensors[name.replace("weight", part)]).repeat(size, 1) for part in ("scales", "biases")
            )
            assert np.array_equal(scales * codes.astype(np.float32) + biases, truth.dequantize()), name
        assert verify(path, folder, level="weights")["weights"].verdict == "pass", group


# -- by other people's code --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["packed", "master_weights"])
def test_transformers_computes_the_same(storage: str, tmp_path: Path) -> None:
    reason = "transformers and torch (extra `oracles`) are not installed"
    torch = pytest.importorskip("torch", reason=reason)
    transformers = pytest.importorskip("transformers", reason=reason)
    pytest.importorskip("accelerate", reason=reason)
    convert(DEMO / "checkpoint", path := tmp_path / "demo.gguf", outtype="t158")
    export(path, folder := tmp_path / storage, storage=storage)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)("The king had three sons.").input_ids
    assert (
        tokens == transformers.AutoTokenizer.from_pretrained(DEMO / "checkpoint")("The king had three sons.").input_ids
    )
    alone = list(range(64))  # tokens by themselves: a rounding that falls the other way reaches no other token
    texts, singles = [], []
    for checkpoint in (DEMO / "checkpoint", folder):
        model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        model = torch.nn.Module.float(model).eval()
        with torch.no_grad():
            texts.append(model(torch.tensor([tokens])).logits[0].float().numpy())
            singles.append(model(torch.tensor(alone)[:, None]).logits[:, 0].float().numpy())
    if storage == "packed":
        assert np.array_equal(*texts)
    else:
        # torch takes absmean in float32, in an order that depends on the CPU. So the scales are some 1e-7 apart, which
        # is worth 1e-5 of the largest logit (3e-5 was seen), or 1e-3 and more where it flips an int8 code.
        errors = [np.abs(a - b).max(-1) / np.abs(a).max(-1) for a, b in (texts, singles)]
        assert np.median(errors[1]) < 1e-4, "most tokens flip no code"
        assert max(error.max() for error in errors) < 2e-2 and (texts[0].argmax(-1) == texts[1].argmax(-1)).all()


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_the_option_names_every_storage() -> None:
    """The names that --help shows, without an import of what they name."""
    of_others = ("mlx", "pack_quantized")
    assert tuple(dict.fromkeys(s.name for s in STORAGES.values() if s.name not in of_others)) == TRANSFORMERS
    recorded = ["packed", "online", "absmean", "exact", "mlx", "pack-quantized"]
    assert [storage.recorded for storage in STORAGES.values()] == recorded


def test_what_cannot_be_is_refused(tiny_checkpoint: Path, checkpoints: Checkpoints, tmp_path: Path) -> None:
    convert(tiny_checkpoint, path := tmp_path / "m.gguf")
    with pytest.raises(Unsupported, match="stored as ternary_floats are run with float activations"):
        export(path, tmp_path / "x", storage="ternary_floats")
    assert export(path, tmp_path / "wrong", storage="ternary_floats", allow_wrong_engine=True).warnings
    grouped = checkpoints(
        next(name for name in FAMILIES if any("group" in unit for unit in FAMILIES[name].granularity))
    )
    convert(grouped.folder, group := tmp_path / "g.gguf", quantize=grouped.family.quantize)
    with pytest.raises(Unsupported, match="stored as packed are run with int8 activations"):
        export(group, tmp_path / "x", storage="packed")
    with pytest.raises(Unsupported, match="scales, which linears stored as packed cannot hold"):
        export(group, tmp_path / "x", storage="packed", allow_wrong_engine=True)
    with pytest.raises(UsageError, match="is not empty"):
        export(path, tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        export(path, path)
    with pytest.raises(WriteFailed, match="does not exist"):
        export(path, tmp_path / "no" / "folder")
    for options in ({"to": "tensorrt"}, {"storage": "q4"}, {"dtype": "int8"}, {"to": "mlx", "storage": "packed"}):
        with pytest.raises(UsageError):
            export(path, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists() and not list(tmp_path.glob(".*"))


def test_force_replaces_only_the_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(tiny_checkpoint, path := tmp_path / "m.gguf")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert exit_code_of(run("export", path, "-o", folder)) == 2
    result = run("export", path, "-o", folder, "--force", "--json", "-q")
    document = json.loads(result.stdout)
    assert document["schema"] == "tritpack.export/1" and document["storage"] == "packed" and document["warnings"] == []
    assert (folder / "notes.txt").read_text() == "mine"
    assert document["nbytes"] == sum(p.stat().st_size for p in folder.iterdir() if p.name != "notes.txt")
    assert run("export", path, "-o", folder, "--force").stdout.rstrip().endswith("s")
    assert run("export", path, "-o", folder, "--force", "-q").output == ""


def test_warnings_say_what_to_do(tiny_gguf: Path, tmp_path: Path) -> None:
    def unknown(metadata: dict[str, Any]) -> None:
        metadata["tokenizer.ggml.token_type"] = types = metadata["tokenizer.ggml.token_type"].copy()
        types[np.flatnonzero(types == 3)[-1]] = 2  # a control token that is called unknown

    (tmp_path / ".folder.123.old").mkdir()
    warnings = export(edited_gguf(tiny_gguf, tmp_path / "m.gguf", metadata=unknown), tmp_path / "folder").warnings
    assert [w for w in warnings if w.endswith(".folder.123.old, with files that it was replacing: move them back, or "
                                              "delete it")]  # fmt: skip
    assert [w for w in warnings if "cannot say tokenizer.ggml.token_type as the source does" in w], warnings


def test_float_activations_are_not_lost_on_the_way_to_mlx(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints("bitnet_ternary_floats")
    convert(made.folder, path := tmp_path / "m.gguf")
    with pytest.raises(Unsupported, match="stored as packed are run with int8 activations"):
        export(path, tmp_path / "x", to="mlx")


def test_the_old_checkpoint_makes_room_and_comes_back(
    tiny_checkpoint: Path, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(tiny_checkpoint, path := tmp_path / "m.gguf")
    folder = edited_checkpoint(checkpoints("bonsai_untied_yarn").folder, tmp_path / "stale")
    (folder / "notes.txt").write_text("mine")
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    real = os.replace
    for stop in range(99):  # before each of the moves: of the old files aside, of the new ones in
        moves = itertools.count()

        def interrupted(source: Path, target: Path, moves: Iterator[int] = moves, stop: int = stop) -> None:
            if folder in (Path(source).parent, Path(target).parent) and next(moves) == stop:
                raise KeyboardInterrupt
            real(source, target)

        with monkeypatch.context() as broken:
            broken.setattr(os, "replace", interrupted)
            try:
                export(path, folder, force=True)
            except KeyboardInterrupt:
                assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before, stop
                assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")], stop
                continue
        break
    assert stop > 10  # that many were interrupted, and the last one was not
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]
    convert(folder, back := tmp_path / "back.gguf")
    assert weights(back) == weights(path) and (folder / "notes.txt").read_text() == "mine"
    assert not list(folder.glob("*.index.json"))


def test_names_that_are_no_folder(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(tiny_checkpoint, path := tmp_path / "m.gguf")
    for name in ("", "/"):
        with pytest.raises(UsageError, match="is not the name of a folder"):
            export(path, name, force=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(path, ".")
    assert (tmp_path / "here" / "config.json").is_file()
    with pytest.raises(UsageError, match="is the source itself"):
        export(tmp_path / "here", ".", force=True)
    with pytest.raises(UsageError, match="--group-size is not for --to hf"):
        export(path, tmp_path / "x", group_size=32)


def test_scales_below_the_floor_of_absmean(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def tiny(tensors: Any) -> None:
        raw = (np.array([1e-6], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        tensors["model.layers.0.self_attn.q_proj.weight_scale"] = ("BF16", [1], raw)

    odd = edited_checkpoint(tiny_checkpoint, tmp_path / "odd", tensors=tiny)
    with pytest.raises(Unsupported, match="below 1e-05, the smallest that absmean gives"):
        export(odd, tmp_path / "x", storage="master_weights")
    assert export(odd, tmp_path / "packed").storage == "packed"


def test_an_earlier_loss_is_said(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def divide(config: dict[str, Any]) -> None:
        config["quantization_config"]["linear_class"] = "bitlinear"

    odd = edited_checkpoint(tiny_checkpoint, tmp_path / "odd", config=divide)
    convert(odd, path := tmp_path / "m.gguf", outtype="iq1_bn", allow_scale_rounding=True)
    result = export(path, tmp_path / "x", dtype="float32")
    assert any("an earlier step has changed scales" in warning for warning in result.warnings)
