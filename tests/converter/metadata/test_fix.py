"""metadata fix: each known fault is found, repaired where the right value is known, and reported."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_checkpoint, edited_gguf, split_gguf
from tests.make.families import Checkpoints
from tests.make.hybrid import ROTATED, write_ternary_hybrid
from tritpack.converter.convert import convert
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.metadata.fix import fix_metadata
from tritpack.converter.sources.source_tensors import CheckpointTensor
from tritpack.formats import model_metadata
from tritpack.formats.errors import CheckFailed, TritpackError, Unreadable, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.integrity import recorded_hashes
from tritpack.formats.layouts.catalog import LAYOUTS, REPAIRABLE
from tritpack.runtime.tokenizer import BITNET_TEMPLATE

ACTIVATION = "bitnet-b1.58.hidden_activation"
STUB = "{% for m in messages %}...{% endfor %}BITNETAssistant: "


def found(path: Path, **options: Any) -> dict[str, tuple[str, str]]:
    """By fault: status, and what was done. Reports and writes."""
    result = fix_metadata(path, **options)
    assert json.loads(json.dumps(result)) == result
    return {finding["fix"]: (finding["status"], finding["done"]) for finding in result["findings"]}


def stored(path: Path) -> dict[str, bytes]:
    file = GgufFile(path)
    return {name: file.bytes_of(tensor).tobytes() for name, tensor in file.tensors.items()}


def without(*keys: str) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: [metadata.pop(key) for key in keys] and None


def test_a_good_file_stays_as_it_is(tiny_gguf: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = Path(shutil.copy(tiny_gguf, tmp_path / "a.gguf"))
    for source in (None, tiny_checkpoint, tiny_gguf):
        assert found(path, source=source) == {}, source
    assert path.read_bytes() == tiny_gguf.read_bytes() and "no known fault" in run("metadata", "fix", path).stdout


def test_the_published_file_in_small(tiny_gguf: Path, tmp_path: Path) -> None:
    """Microsoft's GGUF of April 2025: an old name, no activation, no pre-tokenizer, a stub; nothing of ours."""
    file, old = GgufFile(tiny_gguf), "bitnet-25"
    ours = ("tritpack.", "general.source", "tokenizer.ggml.pre", "tokenizer.ggml.eot", ACTIVATION)
    pairs = {k.replace("bitnet-b1.58", old): v for k, v in file.metadata.items() if not k.startswith(ours)}
    pairs |= {"general.architecture": old, "tokenizer.chat_template": STUB, "general.file_type": 1}
    plans = [TensorPlan(name, t.shape, t.type_id, t.nbytes) for name, t in file.tensors.items()]
    path = tmp_path / "a.gguf"
    write_gguf(path, pairs, plans, ([file.bytes_of(tensor)] for tensor in file.tensors.values()))
    plan = fix_metadata(path, dry_run=True)
    assert GgufFile(path).metadata["general.architecture"] == old
    report = found(path)
    assert {name: status for name, (status, _) in report.items()} == {
        **dict.fromkeys(("architecture", "pre-tokenizer", "activation", "file type"), "fixed"),
        **dict.fromkeys(("chat template", "end tokens"), "fixed"),
        "order of i2_s": "unproved",
    }
    assert [finding["fix"] for finding in plan["findings"]] == list(report)
    after = GgufFile(path)
    for key in (
        "general.architecture",
        "tokenizer.ggml.pre",
        ACTIVATION,
        "general.file_type",
        "tokenizer.ggml.eot_token_id",
    ):
        assert after.metadata[key] == file.metadata[key], key
    assert after.metadata["tokenizer.chat_template"] == BITNET_TEMPLATE
    assert not any(key.startswith(old) for key in after.metadata)
    assert inspect(path)["problems"] == [] and list(found(path)) == ["order of i2_s"]


@pytest.mark.parametrize("has_pipeline", [True, False])
def test_the_pre_tokenizer(has_pipeline: bool, tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    def edit(metadata: dict[str, Any]) -> None:
        del metadata["tokenizer.ggml.pre"]
        metadata["tokenizer.ggml.tokens"] = [
            text.replace("eot_id", "end_id") for text in metadata["tokenizer.ggml.tokens"]
        ]
        if not has_pipeline:
            del metadata["tritpack.tokenizer.pipeline"]

    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=edit)
    status, why = found(path)["pre-tokenizer"]
    if has_pipeline:
        assert status == "fixed" and GgufFile(path).metadata["tokenizer.ggml.pre"] == "llama-bpe"
    else:
        assert status == "left" and "do not say how text is cut" in why
        shown = run("metadata", "fix", path)
        assert shown.exit_code == 1 and "left pre-tokenizer: tokenizer.ggml.pre is missing" in shown.stdout
        with pytest.raises(UsageError, match="another tokenizer: the first token that differs has id 4"):
            fix_metadata(path, source=tiny_checkpoint)


def test_a_source_corrects_a_wrong_pre_tokenizer(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    wrong = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=lambda m: m.update({"tokenizer.ggml.pre": "default"}))
    assert found(wrong) == {} and found(wrong, source=tiny_checkpoint)["pre-tokenizer"][0] == "fixed"
    assert GgufFile(wrong).metadata["tokenizer.ggml.pre"] == "llama-bpe"
    alias = edited_gguf(tiny_gguf, tmp_path / "b.gguf", metadata=lambda m: m.update({"tokenizer.ggml.pre": "llama-v3"}))
    assert found(alias, source=tiny_checkpoint) == {}


def test_the_activation(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    def edit(metadata: dict[str, Any]) -> None:
        del metadata[ACTIVATION]
        metadata["tokenizer.ggml.model"] = "llama"  # as in the files of 1bitLLM's models, which have SiLU

    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=edit)
    status, why = found(path)["activation"]
    assert status == "left" and "models of both functions were called bitnet-b1.58" in why
    assert exit_code_of(run("metadata", "fix", path)) == 1
    assert found(path, activation="silu")["activation"] == ("fixed", "set to 'silu': --activation says so")
    status, why = found(path, source=tiny_checkpoint)["activation"]  # one that is there may be right
    assert status == "left" and why == "that of the source is 'relu2', and nothing says which one is right"
    path = edited_gguf(tiny_gguf, tmp_path / "b.gguf", metadata=edit)
    assert found(path, source=tiny_checkpoint)["activation"] == ("fixed", "set to 'relu2': the source says so")
    assert found(path) == {} and GgufFile(path).metadata[ACTIVATION] == "relu2"
    with pytest.raises(UsageError, match="activation 'tanh' is unknown"):
        fix_metadata(path, activation="tanh")


def test_a_source_of_another_model_is_refused(tiny_gguf: Path, demo_gguf: Path, tmp_path: Path) -> None:
    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=without(ACTIVATION))
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is another model"):
        fix_metadata(path, source=demo_gguf)
    assert path.read_bytes() == before


def test_what_only_a_source_knows(tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    def edit(metadata: dict[str, Any]) -> None:
        for key in [key for key in metadata if "tokenizer." in key]:
            del metadata[key]

    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=edit)
    assert found(path)["tokenizer"][0] == "left" and inspect(path)["problems"] != []
    assert found(path, source=tiny_checkpoint)["tokenizer"][0] == "fixed" and found(path) == {}
    one, other = GgufFile(tiny_gguf), GgufFile(path)
    for key in one.metadata:
        assert one.metadata_types[key] == other.metadata_types[key], key
        assert str(one.metadata[key]) == str(other.metadata[key]), key
    no_end = edited_gguf(tiny_gguf, tmp_path / "b.gguf", metadata=without("tokenizer.ggml.eos_token_id"))
    assert found(no_end)["end tokens"][0] == "left"
    assert found(no_end, source=tiny_gguf)["end tokens"][0] == "fixed"
    template = edited_gguf(tiny_gguf, tmp_path / "c.gguf", metadata=without("tokenizer.chat_template"))
    assert found(template) == {} and found(template, source=tiny_checkpoint)["chat template"][0] == "fixed"


@pytest.mark.parametrize(("layout", "option", "old", "new"), [("tl2", "tl2_id", 39, 42), ("pq2_0", "pq2_id", 42, 142)])
def test_retired_type_ids(
    layout: str, option: str, old: int, new: int, tiny_gguf: Path, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    path = tmp_path / "a.gguf"
    convert(tiny_gguf if layout == "tl2" else checkpoints("bonsai_mlx").folder, path, outtype=layout, **{option: old})
    before = inspect(path, stats=True)
    ternary = [row for row in before["tensors"] if row["layout"] == layout]
    assert {row["type_id"] for row in ternary} == {old}
    assert found(path)["type ids"] == ("fixed", f"set to {new}")
    after = inspect(path, stats=True)
    assert {row["type_id"] for row in after["tensors"] if row["layout"] == layout} == {new} and after["damage"] == []
    for one, other in zip(before["tensors"], after["tensors"], strict=True):
        assert {**one, "type_id": 0, "file_offset": 0} == {**other, "type_id": 0, "file_offset": 0}, one["name"]


# -- tensors -----------------------------------------------------------------------------------------------------------


def reordered(order: str, rubbish: bool) -> Callable[[dict[str, np.ndarray]], None]:
    """Put the bytes of all linears into another order, as another build of bitnet.cpp writes them."""

    def edit(tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            ternary = LAYOUTS["i2_s"].unpack(tensors[name], *shape)
            tensors[name] = REPAIRABLE[order].pack(ternary) if order in REPAIRABLE else tensors[name]
            if rubbish:
                tensors[name][-28:] = 7

    return lambda tensors: edit(
        tensors, {name: _shape(name) for name in tensors if name.startswith("blk.") and "norm" not in name}
    )


def _shape(name: str) -> tuple[int, int]:
    """Of the linears of the tiny model."""
    kind = name.split(".")[2]
    rows = {"attn_k": 128, "attn_v": 128, "ffn_gate": 768, "ffn_up": 768}.get(kind, 256)
    return rows, 768 if kind == "ffn_down" else 256


@pytest.mark.parametrize("order", ["i2_s_arm", "i2_s_rows4"])
def test_the_order_of_arm(order: str, tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    bad = edited_gguf(tiny_gguf, tmp_path / "a.gguf", tensors=reordered(order, True), damaged=True)
    with pytest.raises(CheckFailed, match="its bytes are not those that the file records"):  # damage is not hidden
        fix_metadata(bad, read_as=order)
    bad = edited_gguf(
        tiny_gguf, tmp_path / "b.gguf", tensors=reordered(order, True), metadata=without("tritpack.version")
    )
    right = {row["name"]: row.get("codes_sha256") for row in inspect(tiny_gguf, stats=True)["tensors"]}
    for index, options in enumerate(({"read_as": order}, {"source": tiny_checkpoint}, {"source": tiny_gguf})):
        path = Path(shutil.copy(bad, tmp_path / f"{index}.gguf"))
        report = found(path, **options)
        assert report == {"order of i2_s": ("fixed", "put into that of i2_s")}, options
        result = inspect(path, stats=True)
        assert {row["name"]: row.get("codes_sha256") for row in result["tensors"]} == right, options
        assert stored(path) == stored(tiny_gguf), options
        assert GgufFile(path).metadata["tritpack.repair.read_as"] == order, options
    assert found(path, source=tiny_checkpoint) == {}


def test_a_right_file_is_not_put_into_another_order(tiny_gguf: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_gguf, tmp_path / "a.gguf"))
    with pytest.raises(UsageError, match=r"is in the order of i2_s: it has the codes that it recorded"):
        fix_metadata(path, read_as="i2_s_arm")
    assert path.read_bytes() == tiny_gguf.read_bytes()


def test_an_unproved_order_is_no_failure(tiny_gguf: Path, tmp_path: Path) -> None:
    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=without("tritpack.version"))
    before, shown = path.read_bytes(), run("metadata", "fix", path)
    assert shown.exit_code == 0 and "unproved order of i2_s: another tool wrote the 14 i2_s tensors" in shown.stdout
    assert "nothing to change" in shown.stdout and path.read_bytes() == before


@pytest.mark.parametrize("layout", ["i2_s", "t2"])
def test_a_source_with_other_codes_is_another_model(
    layout: str, tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    other = edited_gguf(tiny_gguf, tmp_path / "o.gguf", tensors=lambda t: t["blk.1.ffn_up.weight"].__setitem__(0, 0))
    path, keys = tmp_path / "a.gguf", without(ACTIVATION, "tokenizer.ggml.pre")
    convert(edited_gguf(other, tmp_path / "k.gguf", metadata=keys), path, outtype=layout)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is another model: the file has other codes in tensor 'blk"):
        fix_metadata(path, source=tiny_checkpoint, activation="relu2")
    assert path.read_bytes() == before
    assert found(path, source=other)["pre-tokenizer"][0] == "fixed"


def test_an_order_that_is_asked_for_and_a_source_must_agree(
    tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=without("tritpack.source.form"))
    with pytest.raises(UsageError, match="is another model: the file has other codes"):
        fix_metadata(path, source=tiny_checkpoint, read_as="i2_s_arm")


def test_a_source_that_is_not_ternary_proves_nothing(
    tiny_gguf: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointTensor, "ternary", lambda self: None)
    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=without(ACTIVATION))
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"cannot be compared with the file: its tensor .* is not ternary"):
        fix_metadata(path, source=tiny_checkpoint)
    assert path.read_bytes() == before


def test_rubbish_after_the_scales_and_the_record(tiny_gguf: Path, tmp_path: Path) -> None:
    path, good = tmp_path / "a.gguf", GgufFile(tiny_gguf)
    path.write_bytes(tiny_gguf.read_bytes())
    name = "blk.1.ffn_down.weight"
    info = good.tensors[name]
    data = bytearray(path.read_bytes())
    data[info.file_offset + info.nbytes - 1] = 9
    path.write_bytes(data)
    with pytest.raises(CheckFailed, match=name):
        fix_metadata(path)
    # A file whose record knows the rubbish, as a tool that hashes what it has written would make it.
    old = recorded_hashes(good)[name].sha256
    dirty = hashlib.sha256(GgufFile(path).bytes_of(info).tobytes()).hexdigest()
    path.write_bytes(path.read_bytes().replace(old.encode(), dirty.encode()))
    assert inspect(path, stats=True)["damage"] == []
    done = "set to zeros; no reader uses them, so that the file was not damaged"
    assert found(path) == {"rubbish after scales": ("fixed", done)}
    assert path.read_bytes() == tiny_gguf.read_bytes()


def test_what_cannot_be_put_in_order(tiny_gguf: Path, checkpoints: Checkpoints, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    convert(tiny_gguf, path, outtype="t2")
    with pytest.raises(UsageError, match="has no i2_s tensors to read as i2_s_arm"):
        fix_metadata(path, read_as="i2_s_arm")
    count = len(GgufFile(tiny_gguf).tensors)
    foreign = edited_gguf(tiny_gguf, tmp_path / "f.gguf", metadata=without("tritpack.source.form"))
    parts = split_gguf(foreign, tmp_path, [0, 5, count])
    with pytest.raises(UsageError, match="is a split file"):
        fix_metadata(parts[0], read_as="i2_s_arm")
    assert found(parts[0]) == {}
    with pytest.raises(Unreadable):
        fix_metadata(tmp_path / "none.gguf")
    adapter = edited_gguf(tiny_gguf, tmp_path / "l.gguf", metadata=lambda m: m.update({"general.type": "adapter"}))
    with pytest.raises(TritpackError, match="LoRA adapter"):
        fix_metadata(adapter)


def test_a_checkpoint_with_another_activation(tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    silu = edited_checkpoint(tiny_checkpoint, tmp_path / "silu", config=lambda c: c.update({"hidden_act": "silu"}))
    path = Path(shutil.copy(tiny_gguf, tmp_path / "a.gguf"))
    assert found(path, source=silu)["activation"][0] == "left" and path.read_bytes() == tiny_gguf.read_bytes()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokenizer.ggml.tokens", 5),
        ("tokenizer.ggml.tokens", np.arange(3, dtype=np.int32)),
        ("tokenizer.ggml.eos_token_id", np.arange(3, dtype=np.int32)),
        ("tokenizer.ggml.pre", ["a"]),
        (ACTIVATION, np.arange(3, dtype=np.int32)),
    ],
)
def test_a_key_of_the_wrong_type_is_damage(key: str, value: Any, tiny_gguf: Path, tmp_path: Path) -> None:
    bad = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=lambda pairs: pairs.update({key: value}))
    with pytest.raises(Unreadable, match=f"metadata key {key} is not "):
        fix_metadata(bad)


def test_sizes_that_are_not_one_number_are_no_known_shape(tiny_gguf: Path, tmp_path: Path) -> None:
    key = "bitnet-b1.58.embedding_length"

    def edit(metadata: dict[str, Any]) -> None:
        metadata |= {key: np.arange(3, dtype=np.int32), "tokenizer.ggml.model": "llama"}
        del metadata[ACTIVATION]

    assert found(edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=edit))["activation"][0] == "left"


def test_keys_under_both_names_of_the_architecture(tiny_gguf: Path, tmp_path: Path) -> None:
    def double(metadata: dict[str, Any]) -> None:
        old = {k.replace("b1.58.", "25."): v for k, v in metadata.items() if k.startswith("bitnet-b1.58.")}
        metadata |= {**old, "general.architecture": "bitnet-25"}

    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=double)
    assert found(path)["architecture"][0] == "fixed" and not any("bitnet-25" in key for key in GgufFile(path).metadata)
    both = edited_gguf(
        tiny_gguf, tmp_path / "b.gguf", metadata=lambda pairs: [double(pairs), pairs.update({ACTIVATION: "silu"})]
    )
    status, why = found(both)["architecture"]
    assert status == "left" and "nothing says which one is right" in why
    assert GgufFile(both).metadata[ACTIVATION] == "silu"


# -- the architecture, and what stays wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(without("general.architecture"), id="missing"),
        pytest.param(lambda pairs: pairs.update({"general.architecture": "llama"}), id="another"),
    ],
)
def test_the_architecture_is_that_of_the_keys(edit: Callable[..., None], tiny_gguf: Path, tmp_path: Path) -> None:
    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=edit)
    status, done = found(path)["architecture"]
    assert status == "fixed" and "'bitnet-b1.58'" in done
    assert GgufFile(path).metadata["general.architecture"] == "bitnet-b1.58" and found(path) == {}


def test_a_model_that_cannot_be_run_is_a_fault_that_stays(tiny_gguf: Path, tmp_path: Path) -> None:
    cases = {
        "architecture": lambda pairs: [pairs.pop(key) for key in ("general.architecture", "bitnet-b1.58.block_count")],
        "model": lambda pairs: pairs.update({"bitnet-b1.58.attention.head_count": 3}),
    }
    for fault, edit in cases.items():
        path = edited_gguf(tiny_gguf, tmp_path / f"{fault}.gguf", metadata=edit)
        shown = run("metadata", "fix", path)
        assert shown.exit_code == 1 and f"left {fault}: " in shown.stdout and "hint: " in shown.stdout, fault


def test_an_architecture_of_other_programs_is_unproved(tiny_gguf: Path, tmp_path: Path) -> None:
    def rename(pairs: dict[str, Any]) -> None:
        pairs |= {name.replace("bitnet-b1.58", "x"): pairs.pop(name) for name in [*pairs] if "b1.58." in name}
        pairs["general.architecture"] = "x"

    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=rename)
    assert found(path)["model"] == ("unproved", "whether its keys are right was not checked")


@pytest.mark.parametrize("is_ours", [False, True])
def test_the_keys_of_a_rotation(is_ours: bool, tmp_path: Path) -> None:
    good = vendor = write_ternary_hybrid(tmp_path / "vendor.gguf", ROTATED)
    if is_ours:
        convert(vendor, good := tmp_path / "ours.gguf", outtype="t2")
    result = run("metadata", "rm", good, "prism.hadamard.*", "-o", bare := tmp_path / "bare.gguf")
    assert result.exit_code == 0 and "talks nonsense" in result.stderr and inspect(bare)["rotation"] is None
    assert any("keys prism.hadamard.* are missing" in text for text in inspect(bare)["damage"]) == is_ours
    assert found(bare, dry_run=True).get("rotation", ("",))[0] == ("left" if is_ours else "")
    assert found(bare, source=vendor)["rotation"][0] == "fixed"
    assert model_metadata.from_gguf(GgufFile(bare)) == model_metadata.from_gguf(GgufFile(good))
    run("metadata", "set", bare, "prism.hadamard.block_size", "128")
    assert found(bare, source=vendor)["rotation"][0] == "fixed" and inspect(bare)["rotation"]
    rest = {"tokenizer": ("left", "the source has none either")}
    assert {name: why for name, why in found(bare, source=vendor).items() if name != "file type"} == rest
