"""Any layout to any other, from the packed file alone; files written for other engines; files that need to be told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SHARED, exit_code_of, run
from tests.make import stq1_0
from tests.make.checkpoints import edited_checkpoint, edited_gguf
from tests.make.families import Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.repack import repack
from tritpack.converter.targets.scale_rounding import fold, loss, rounded
from tritpack.converter.verify.ladder import verify
from tritpack.formats import names
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.layouts.catalog import LAYOUTS, REPAIRABLE
from tritpack.formats.layouts.tiling import Tiling, format_tilings
from tritpack.formats.ternary import TernaryTensor, scales_differ
from tritpack.runtime.model import Model

ENGINES = SHARED / "golden" / "engines"


def hashes(path: Path) -> dict[str, tuple[str, object]]:
    """By ternary tensor: the codes' hash, and the scales."""
    tensors = inspect(path, stats=True)["tensors"]
    return {t["name"]: (t["codes_sha256"], t.get("scale", t.get("scales"))) for t in tensors if "codes_sha256" in t}


@pytest.fixture(scope="module")
def half_gguf(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose scales every layout holds, float16 ones too; all shapes are multiples of 256."""
    path = tmp_path_factory.mktemp("half") / "half.gguf"
    convert(tiny_checkpoint, path)
    for info in GgufFile(path).tensors.values():
        if (ternary := GgufFile(path).ternary(info)) is not None:
            assert LAYOUTS["tq2_0"].inexact_scale(ternary.scales) is None
    return path


@pytest.mark.parametrize("first", names.LAYOUTS)
def test_to_any_layout_and_on_to_any_other(first: str, half_gguf: Path, tmp_path: Path) -> None:
    """The same codes, scales and metadata after every step, and byte for byte the first file after the way back."""
    one = tmp_path / "one.gguf"
    convert(half_gguf, one, outtype=first)
    expected, source = hashes(half_gguf), GgufFile(half_gguf)
    assert hashes(one) == expected and len(expected) == 14
    assert {t.layout for t in GgufFile(one).tensors.values() if t.name in expected} == {first}
    for index, second in enumerate(names.LAYOUTS):
        two, back = tmp_path / f"{index}.gguf", tmp_path / f"{index}.back.gguf"
        convert(one, two, outtype=second)
        assert hashes(two) == expected, second
        convert(two, back, outtype="i2_s")
        assert back.read_bytes() == half_gguf.read_bytes(), f"{index} {second}"
    kept = {key for key in source.metadata if not key.startswith(("tritpack.layout", "general.file_type"))}
    file = GgufFile(one)
    assert all(
        str(file.metadata[key]) == str(source.metadata[key]) for key in kept if key.startswith(("bitnet", "general"))
    )
    assert file.alignment == 64


@pytest.mark.parametrize("outtype", names.LAYOUTS)
def test_every_layout_is_proved_and_runs(outtype: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Against the checkpoint: structure, every code and scale, logits. Ends up with the same logits as I2_S."""
    path = tmp_path / "model.gguf"
    convert(tiny_checkpoint, path, outtype=outtype)
    report = verify(path, tiny_checkpoint, level="logits")
    assert report.verdict == "pass", [sentence for rung in report.rungs for sentence in rung.sentences]
    assert {rung.name for rung in report.rungs if not rung.skipped} >= {"structure", "weights", "logits"}


def test_embedding_types_are_an_independent_choice(half_gguf: Path, tmp_path: Path) -> None:
    for kind in ("f32", "f16", "bf16", "q8_0", "q6_k", "q4_k"):
        convert(half_gguf, path := tmp_path / f"{kind}.gguf", outtype="t158", embedding_type=kind)
        file = GgufFile(path)
        assert file.tensors["token_embd.weight"].layout == kind, kind
        assert file.tensors["blk.0.attn_q.weight"].layout == "t158", kind


# -- scales that do not fit --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dividing scales: 1 / 3 and the like are no float16."""
    folder = tmp_path_factory.mktemp("odd")

    def change(config: dict) -> None:
        config["quantization_config"]["linear_class"] = "bitlinear"

    return edited_checkpoint(tiny_checkpoint, folder / "odd", config=change)


def test_half_scales_are_refused_with_the_numbers(odd_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(
        Unsupported, match=r"tensor 'model\.layers.*tq2_0 cannot hold its .*float16, and [\d.]+ would become"
    ) as caught:
        convert(odd_checkpoint, tmp_path / "x.gguf", outtype="tq2_0")
    assert caught.value.hint is not None
    assert "i2_s" in caught.value.hint and "--allow-scale-rounding" in caught.value.hint
    assert "--for llama.cpp" in caught.value.hint
    assert not (tmp_path / "x.gguf").exists()


def test_rounding_is_recorded_and_verified_as_asked_for(odd_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "rounded.gguf"
    result = convert(odd_checkpoint, path, outtype="iq1_bn", allow_scale_rounding=True)
    recorded = GgufFile(path).metadata["tritpack.scale_rounding"]
    assert 0 < recorded < 2.0**-11 and recorded == pytest.approx(max(result.plan.choice.losses.values()))
    report = verify(path, odd_checkpoint, level="logits")
    assert report.verdict == "pass"
    assert report["weights"].figures["scale_rounding"] == pytest.approx(recorded)
    assert f"the model of its source (relative change of scales: up to {recorded:.2g})" in report.conclusion
    assert any("rounded" in note for note in report["weights"].notes)
    # A scale that is off by more than rounding is still a finding.
    bad = edited_gguf(path, tmp_path / "bad.gguf", tensors=lambda t: t["blk.0.attn_q.weight"].__setitem__(0, 7))
    report = verify(bad, odd_checkpoint, level="weights")
    assert report.verdict == "fail" and "scale" in report["weights"].sentences[0]
    # What loses nothing records nothing.
    convert(odd_checkpoint, tmp_path / "exact.gguf", outtype="iq2_bn", allow_scale_rounding=True)
    assert "tritpack.scale_rounding" not in GgufFile(tmp_path / "exact.gguf").metadata


def test_scales_that_are_too_fine_are_folded_on_request() -> None:
    codes = np.array([[1, -1, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0, 1]] * 16, np.int8).repeat(16, 1)
    scales = np.tile(np.array([[1.0, 2.0], [5.0, 3.0]], np.float32), (16, 1))
    tensor = TernaryTensor(codes, scales)
    # 32 weights of scale 1, 48 of 2, none of 5, 16 of 3 in each pair of rows
    mean = (32 * 1 + 48 * 2 + 16 * 3) / 96
    assert fold(tensor, (1, 1)).item() == pytest.approx(mean)
    assert fold(tensor, (32, 1))[:2, 0].tolist() == [pytest.approx(1.6), 3.0]
    assert fold(TernaryTensor(codes * 0, scales), (1, 1)).item() == 5.0
    held = rounded(tensor, LAYOUTS["i2_s"])
    assert held.scale_blocks == (1, 1) and loss(tensor, held) == pytest.approx(mean - 1)
    assert rounded(tensor, LAYOUTS["t2"]) is tensor and loss(tensor, tensor) == 0


def test_a_group_scaled_model_in_one_scale_a_tensor(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Folded on request: another model, whose logits are those of the folded scales; its ternary table stays exact."""
    made = checkpoints("bonsai_tied")
    with pytest.raises(Unsupported, match="one scale per tensor") as caught:
        convert(made.folder, tmp_path / "x.gguf", outtype="i2_s")
    assert caught.value.hint is not None and caught.value.hint.startswith("t2, t158 hold it exactly")
    convert(made.folder, path := tmp_path / "folded.gguf", outtype="i2_s", allow_scale_rounding=True)
    report = verify(path, made.folder, level="logits")
    assert report.verdict == "pass" and report["weights"].figures["scale_rounding"] > 0.01
    assert "holds the codes of its source, but other scales" in report.conclusion
    assert GgufFile(path).tensors["token_embd.weight"].layout in ("f16", "f32")


# -- for other engines -------------------------------------------------------------------------------------------------


def test_for_llama_cpp_keeps_odd_scales_in_tensors_of_their_own(odd_checkpoint: Path, tmp_path: Path) -> None:
    silu = edited_checkpoint(odd_checkpoint, tmp_path / "silu", config=lambda c: c.update(hidden_act="silu"))
    path = tmp_path / "apart.gguf"
    convert(silu, path, target="llama.cpp")
    file = GgufFile(path)
    assert file.metadata["general.architecture"] == "bitnet" and file.metadata["tritpack.target"] == "llama.cpp"
    info, beside = file.tensors["blk.0.attn_q.weight"], file.tensors["blk.0.attn_q.scale"]
    assert (info.layout, beside.layout, beside.shape) == ("tq2_0", "f32", (1,))
    assert file.outer_scale(info) != 1
    ternary = file.ternary(info)
    assert ternary is not None and ternary.scales.item() == float(file.outer_scale(info))
    assert verify(path, silu, level="logits").verdict == "pass"
    convert(path, tmp_path / "again.gguf", outtype="i2_s")
    assert hashes(tmp_path / "again.gguf") == hashes(path)
    assert not any(name.endswith(".scale") for name in GgufFile(tmp_path / "again.gguf").tensors)


def test_what_an_engine_would_run_wrong_is_refused(half_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="bitnet graph computes silu, the model has relu2") as caught:
        convert(half_gguf, tmp_path / "x.gguf", target="llama.cpp")
    assert caught.value.hint is not None and "--allow-wrong-engine" in caught.value.hint
    result = convert(half_gguf, path := tmp_path / "wrong.gguf", target="llama.cpp", allow_wrong_engine=True)
    metadata = GgufFile(path).metadata
    assert metadata["general.architecture"] == "bitnet" and metadata["bitnet.hidden_activation"] == "relu2"
    assert any("computes silu" in warning for warning in metadata["tritpack.warnings"])
    assert any("computes silu" in warning for warning in result.warnings)
    with pytest.raises(Unsupported, match=r"llama\.cpp does not run i2_s"):
        convert(half_gguf, tmp_path / "x.gguf", target="llama.cpp", outtype="i2_s")
    with pytest.raises(Unsupported, match=r"ik_llama\.cpp does not run i2_s"):
        convert(half_gguf, tmp_path / "x.gguf", target="ik_llama.cpp", outtype="i2_s")
    with pytest.raises(Unsupported, match="abort on rows shorter than 512"):
        convert(half_gguf, tmp_path / "x.gguf", target="ik_llama.cpp", outtype="iq2_bn")
    convert(half_gguf, path := tmp_path / "ik.gguf", target="ik_llama.cpp", outtype="iq2_bn_r4")
    assert GgufFile(path).metadata["general.architecture"] == "bitnet-b1.58"


@pytest.mark.parametrize(("outtype", "option", "ids"), [("tl2", "tl2_id", (42, 39)), ("pq2_0", "pq2_id", (142, 42))])
def test_type_ids_that_engines_have_changed(
    outtype: str, option: str, ids: tuple[int, int], half_gguf: Path, tmp_path: Path
) -> None:
    """Without the option it is the id that the engine has now, and the command says which."""
    for number, options in ((ids[0], {}), (ids[0], {option: ids[0]}), (ids[1], {option: ids[1]})):
        convert(half_gguf, path := tmp_path / f"{number}{len(options)}.gguf", outtype=outtype, **options)
        info = GgufFile(path).tensors["blk.0.attn_q.weight"]
        assert (info.type_id, info.layout) == (number, outtype) and hashes(path) == hashes(half_gguf), number
    flag = "--" + option.replace("_", "-")
    shown = run("repack", half_gguf, "-o", tmp_path / "a.gguf", "--outtype", outtype).stdout
    assert f"type id of {outtype}: {ids[0]}, " in shown and f"({flag} {ids[1]}: " in shown
    shown = run("repack", half_gguf, "-o", tmp_path / "b.gguf", "--outtype", outtype, flag, str(ids[1])).stdout
    assert f"type id of {outtype}: {ids[1]}, " in shown and f"({flag} {ids[0]}: " in shown
    result = json.loads(run("repack", half_gguf, "-o", tmp_path / "c.gguf", "--outtype", outtype, "--json").stdout)
    assert result["type_id"] == ids[0]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_tables_stay_ternary_for_an_engine_that_runs_them(tied: bool, checkpoints: Checkpoints, tmp_path: Path) -> None:
    source = checkpoints("bonsai_tied" if tied else "bonsai_untied_yarn").folder
    result = convert(source, path := tmp_path / "q2_0.gguf", outtype="q2_0", target="llama.cpp")
    names = ["token_embd.weight", *([] if tied else ["output.weight"])]
    file = GgufFile(path)
    assert [file.tensors[name].layout for name in names] == ["q2_0"] * len(names)
    assert not any("becomes" in warning for warning in result.warnings)
    convert(source, plain := tmp_path / "plain.gguf", outtype="q2_0")
    ours = GgufFile(plain)
    for name, info in file.tensors.items():
        assert bytes(file.bytes_of(info)) == bytes(ours.bytes_of(ours.tensors[name])), name


@pytest.mark.parametrize(
    ("outtype", "target", "why"),
    [
        ("i2_s", "tritpack", "i2_s does not hold it exactly"),
        ("i2_s", "bitnet.cpp", "bitnet.cpp is not known to run ternary tables"),
    ],
)
def test_a_ternary_table_becomes_floats_with_a_word(
    outtype: str, target: str, why: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    allowed = {"allow_scale_rounding": True, "allow_wrong_engine": True}
    result = convert(checkpoints("bonsai_tied").folder, path, outtype=outtype, target=target, **allowed)
    table = GgufFile(path).tensors["token_embd.weight"]
    [warning] = [warning for warning in result.warnings if "becomes" in warning]
    assert warning.startswith(f"token_embd.weight is ternary in the source and becomes {table.layout}: {why}; ")
    assert f"it takes {table.nbytes} bytes" in warning


@pytest.mark.parametrize("tl2_id", [39, 42])
def test_for_bitnet_cpp(tl2_id: int, half_gguf: Path, tmp_path: Path) -> None:
    convert(half_gguf, path := tmp_path / "tl2.gguf", target="bitnet.cpp", outtype="tl2", tl2_id=tl2_id)
    info = GgufFile(path).tensors["blk.0.attn_q.weight"]
    assert (info.type_id, info.layout) == (tl2_id, "tl2") and hashes(path) == hashes(half_gguf)


# -- files that need to be told ----------------------------------------------------------------------------------------


def without(path: Path, target: Path, key: str) -> Path:
    return edited_gguf(path, target, metadata=lambda m: m.pop(key))


def test_tiles_that_no_file_records(half_gguf: Path, tmp_path: Path) -> None:
    tilings = {(256, 256): Tiling(64, 192, 32), (768, 256): Tiling(96, 96, 32), (256, 768): Tiling(32, 96, 32)}
    convert(half_gguf, full := tmp_path / "full.gguf", outtype="tl2", tiling=format_tilings(tilings))
    words = GgufFile(full).metadata["tritpack.layout.tiling"]
    assert "256x256=64,192,32" in list(words) and "768x256=96,96,32" in list(words)
    bare = without(full, tmp_path / "bare.gguf", "tritpack.layout.tiling")
    with pytest.raises(Unreadable, match=r"does not say how its tensors of .* are tiled") as caught:
        convert(bare, tmp_path / "x.gguf")
    assert caught.value.hint is not None and "--kernel-config" in caught.value.hint
    report = verify(bare, half_gguf, level="weights")
    assert report.verdict == "fail" and "tiled" in report["weights"].sentences[0]
    all_tilings = {**tilings, (128, 256): LAYOUTS["tl2"].rule(128, 256)}  # type: ignore[attr-defined]
    repack(bare, path := tmp_path / "told.gguf", tiling=format_tilings(all_tilings))
    assert hashes(path) == hashes(half_gguf)
    repack(bare, path := tmp_path / "tried.gguf", reference=half_gguf)
    assert hashes(path) == hashes(half_gguf)
    listing = tmp_path / "listing.json"
    listing.write_text(json.dumps(inspect(half_gguf, stats=True)))
    repack(bare, path := tmp_path / "listed.gguf", reference=listing)
    assert hashes(path) == hashes(half_gguf)
    other = edited_gguf(
        half_gguf, tmp_path / "o.gguf", tensors=lambda t: [t[n].__setitem__(0, 0) for n in t if "attn_q.w" in n]
    )
    with pytest.raises(Unsupported, match=r"none of \d+ tilings reproduces the reference's codes"):
        repack(bare, tmp_path / "x.gguf", reference=other)
    listing.write_text("{}")
    for wrong in (tmp_path / "absent", full.parent, listing):
        with pytest.raises(Unreadable, match=r"neither a GGUF nor|cannot be read|is a folder"):
            repack(bare, tmp_path / "x.gguf", reference=wrong)


@pytest.mark.parametrize("order", REPAIRABLE)
def test_orders_that_broken_tools_have_written(order: str, half_gguf: Path, tmp_path: Path) -> None:
    file = GgufFile(half_gguf)

    def scramble(tensors: dict[str, np.ndarray]) -> None:
        for name, info in file.tensors.items():
            if (ternary := file.ternary(info)) is not None:
                tensors[name][:] = REPAIRABLE[order].pack(ternary)

    broken = edited_gguf(half_gguf, tmp_path / "broken.gguf", tensors=scramble)
    assert hashes(broken) != hashes(half_gguf)
    repack(broken, path := tmp_path / "mended.gguf", read_as=order)
    assert hashes(path) == hashes(half_gguf)
    assert GgufFile(path).metadata["tritpack.repair.read_as"] == order
    convert(half_gguf, other := tmp_path / "t2.gguf", outtype="t2")
    with pytest.raises(UsageError, match="has no i2_s tensors"):
        repack(other, tmp_path / "x.gguf", read_as=order)


def test_repair_is_on_request_and_recorded(half_gguf: Path, tmp_path: Path) -> None:
    broken = edited_gguf(
        half_gguf, tmp_path / "broken.gguf", tensors=lambda t: t["blk.1.ffn_up.weight"].__setitem__(5, 0xFF)
    )
    with pytest.raises(Unreadable, match=r"blk\.1\.ffn_up\.weight.*code 3 at row 0"):
        convert(broken, tmp_path / "x.gguf")
    repack(broken, path := tmp_path / "mended.gguf", repair=True)
    assert GgufFile(path).metadata["tritpack.repair.zeroed"] == 1
    mended = GgufFile(path).ternary(GgufFile(path).tensors["blk.1.ffn_up.weight"])
    assert mended is not None and not mended.codes[0, [5, 37, 69, 101]].any()


@pytest.mark.parametrize(
    "name",
    [
        "bitnetcpp_b158_i2_s", "ik_b158_iq2_bn_r4", "ik_b158_wide_iq1_bn", "llamacpp_bitnet_tq2_0",
        "llamacpp_llama_tq2_0", "llamacpp_llama_q2_0",
    ],
)  # fmt: skip
def test_files_of_the_engines_become_any_other(name: str, shared: Path, tmp_path: Path) -> None:
    source = ENGINES / f"{name}.gguf"
    expected = hashes(source)
    assert expected
    for outtype in ("i2_s", "t158", "tq1_0", "iq2_bn"):
        convert(source, path := tmp_path / f"{outtype}.gguf", outtype=outtype)
        assert hashes(path) == expected, outtype
        assert verify(path, source, level="weights")["weights"].verdict == "pass", outtype


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command(half_gguf: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    shown = json.loads(run("repack", half_gguf, "-o", out, "--outtype", "t158", "--dry-run", "--json").stdout)
    assert shown["schema"] == "tritpack.repack/1" and shown["outtype"] == "t158" and not out.exists()
    result = run("repack", half_gguf, "-o", out, "--outtype", "t158", "--embedding-type", "q6_k")
    assert result.exit_code == 0 and "t158, embedding q6_k" in result.stdout
    quiet = run("repack", out, "-o", tmp_path / "quiet.gguf", "-q")
    assert (quiet.exit_code, quiet.output) == (0, "") and (tmp_path / "quiet.gguf").is_file()
    assert out.stat().st_size < shown["output_bytes"]
    assert exit_code_of(run("repack", half_gguf, "-o", out)) == 2  # exists
    assert exit_code_of(run("repack", tiny_checkpoint, "-o", tmp_path / "x.gguf")) == 3
    missing = run("repack", tmp_path / "absent.gguf", "-o", tmp_path / "x.gguf")
    assert exit_code_of(missing) == 3 and "does not exist" in str(missing.exception)
    bad_tiles = run("repack", half_gguf, "-o", tmp_path / "x", "--outtype", "tl2", "--tiling", "256x256=96,96,32")
    assert exit_code_of(bad_tiles) == 4 and "default one" in str(getattr(bad_tiles.exception, "hint", ""))
    assert exit_code_of(run("repack", half_gguf, "-o", tmp_path / "x.gguf", "--for", "llama.cpp")) == 4
    assert exit_code_of(run("repack", half_gguf, "-o", tmp_path / "x.gguf", "--tiling", "1x1")) == 2
    tiled = run("repack", half_gguf, "-o", tmp_path / "tl.gguf", "--outtype", "tl1", "--tiling", "256x256=128,64,64")
    assert tiled.exit_code == 0
    assert "256x256=128,64,64" in list(GgufFile(tmp_path / "tl.gguf").metadata["tritpack.layout.tiling"])
    rounding = run("repack", out, "-o", tmp_path / "r.gguf", "--outtype", "tq2_0", "--allow-scale-rounding")
    assert rounding.exit_code == 0 and "scales changed" not in rounding.stdout


# -- what a hostile review found ---------------------------------------------------------------------------------------


def test_what_a_file_records_of_its_tiling_is_so(half_gguf: Path, tmp_path: Path) -> None:
    convert(half_gguf, tl := tmp_path / "tl.gguf", outtype="tl1")
    other = ["256x256=128,64,64"]
    repack(tl, path := tmp_path / "tl1.gguf", outtype="tl1", tiling=other)
    assert hashes(path) == hashes(half_gguf)
    assert other[0] in list(GgufFile(path).metadata["tritpack.layout.tiling"])
    for outtype in ("i2_s", "t2"):
        with pytest.raises(UsageError, match="are for tl1 and tl2"):
            repack(tl, tmp_path / "x.gguf", outtype=outtype, tiling=other)
    # What is said of a source that lacks the record is not said of the output.
    bare = without(tl, tmp_path / "bare.gguf", "tritpack.layout.tiling")
    rule = {shape: LAYOUTS["tl1"].rule(*shape) for shape in ((256, 256), (128, 256), (768, 256), (256, 768))}  # type: ignore[attr-defined]
    repack(bare, path := tmp_path / "two.gguf", outtype="tl2", tiling=format_tilings(rule), repair=True)
    assert hashes(path) == hashes(half_gguf)


def test_a_reference_has_to_agree_about_every_tensor(half_gguf: Path, tmp_path: Path) -> None:
    """An all-zero tensor looks the same in any order."""
    source = GgufFile(half_gguf)
    zero = LAYOUTS["i2_s"].pack(TernaryTensor.per_tensor(np.zeros((256, 256), np.int8), 1.0))
    zeroed = edited_gguf(
        half_gguf, tmp_path / "z.gguf", tensors=lambda t: t["blk.0.attn_q.weight"].__setitem__(slice(None), zero)
    )
    assert source.tensors["blk.0.attn_q.weight"].shape == (256, 256)
    tilings = {(256, 256): Tiling(64, 24, 32), (768, 256): Tiling(96, 96, 32)}
    convert(
        zeroed,
        full := tmp_path / "full.gguf",
        outtype="tl2",
        tiling=format_tilings({**tilings, (256, 256): Tiling(64, 192, 32)}),
    )
    bare = without(full, tmp_path / "bare.gguf", "tritpack.layout.tiling")
    repack(bare, path := tmp_path / "found.gguf", reference=zeroed)
    assert hashes(path) == hashes(zeroed)


@pytest.mark.parametrize(
    "words", ["nonsense", 7, ["1x2=" + "9" * 5000 + ",1,1"], ["64x64=0,1,1"], ["1x1=2,3,4", "1x1=2,3,5"]]
)
def test_hostile_records_of_tilings(words: object, half_gguf: Path, tmp_path: Path) -> None:
    bad = edited_gguf(half_gguf, tmp_path / "bad.gguf", metadata=lambda m: m.update({"tritpack.layout.tiling": words}))
    assert exit_code_of(run("inspect", bad)) == 3
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 200000)
    convert(half_gguf, tl := tmp_path / "tl.gguf", outtype="tl1")
    bare = without(tl, tmp_path / "bare.gguf", "tritpack.layout.tiling")
    assert exit_code_of(run("repack", bare, "-o", tmp_path / "x.gguf", "--reference", deep)) == 3


def test_scales_beside_a_tensor_that_make_no_sense(with_apart: Path, tmp_path: Path) -> None:
    def with_scale(name: str, value: float) -> Path:
        raw = np.array([value], "<f4").view(np.uint8)
        return edited_gguf(
            with_apart, tmp_path / name, tensors=lambda t: t["blk.0.attn_q.scale"].__setitem__(slice(None), raw)
        )

    for value in (np.nan, -1.0, np.inf):
        with pytest.raises(Unreadable, match=r"blk\.0\.attn_q\.scale.*expected a finite number"):
            convert(with_scale("bad.gguf", value), tmp_path / "x.gguf")
        (tmp_path / "bad.gguf").unlink()

    def blow_up(tensors: dict[str, np.ndarray]) -> None:
        tensors["blk.0.attn_q.weight"].reshape(-1, 66)[:, 64:] = np.array([2.0], "<f2").view(np.uint8)
        tensors["blk.0.attn_q.scale"][:] = np.array([3e38], "<f4").view(np.uint8)

    huge = edited_gguf(with_apart, tmp_path / "huge.gguf", tensors=blow_up)
    for use in (Model, lambda path: convert(path, tmp_path / "x.gguf")):
        with pytest.raises(Unreadable, match=r"attn_q.*is not a finite number"):
            use(huge)
    convert(with_scale("zero.gguf", 0.0), path := tmp_path / "z.gguf")
    file = GgufFile(path)
    ternary = file.ternary(file.tensors["blk.0.attn_q.weight"])
    assert ternary is not None and not ternary.codes.any()


@pytest.fixture(scope="module")
def with_apart(odd_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("apart")
    silu = edited_checkpoint(odd_checkpoint, folder / "silu", config=lambda c: c.update(hidden_act="silu"))
    convert(silu, path := folder / "apart.gguf", target="llama.cpp")
    return path


def test_rounded_scales_apart_are_found_out(with_apart: Path, odd_checkpoint: Path, tmp_path: Path) -> None:
    """A scale of its own is float32: no layout excuses its rounding."""

    def round_them(tensors: dict[str, np.ndarray]) -> None:
        for name, data in tensors.items():
            if name.endswith(".scale"):
                data.view("<f4")[:] = data.view("<f4").astype(np.float16)

    bad = edited_gguf(with_apart, tmp_path / "bad.gguf", tensors=round_them)
    report = verify(bad, with_apart, level="weights")
    assert report["weights"].verdict == "fail" and "its scale is" in report["weights"].sentences[0]


def test_a_loss_is_not_forgotten(odd_checkpoint: Path, tmp_path: Path) -> None:
    convert(odd_checkpoint, first := tmp_path / "1.gguf", outtype="iq1_bn", allow_scale_rounding=True)
    convert(first, second := tmp_path / "2.gguf", outtype="t158")
    recorded = [GgufFile(path).metadata["tritpack.scale_rounding"] for path in (first, second)]
    assert recorded[0] == recorded[1] > 0


@pytest.mark.parametrize("value", ["much", -1.0, float("nan"), ["a", "b"]])
def test_a_recorded_loss_that_is_none(value: object, half_gguf: Path, tmp_path: Path) -> None:
    bad = edited_gguf(half_gguf, tmp_path / "b.gguf", metadata=lambda m: m.update({"tritpack.scale_rounding": value}))
    for command in ("repack", "export"):
        assert exit_code_of(run(command, bad, "-o", tmp_path / "x")) == 3, command
    assert not (tmp_path / "x").exists()


def test_folding_that_no_file_admits_is_found_out(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints("bonsai_tied")
    convert(made.folder, path := tmp_path / "folded.gguf", outtype="i2_s", allow_scale_rounding=True)
    silent = without(path, tmp_path / "silent.gguf", "tritpack.scale_rounding")
    report = verify(silent, made.folder, level="weights")
    assert report["weights"].verdict == "fail" and "does not say so" in report["weights"].sentences[0]


def test_a_scale_that_would_vanish(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def tiny(tensors: dict) -> None:
        name = "model.layers.0.self_attn.q_proj.weight_scale"
        tensors[name] = ("BF16", [1], (np.array([1e-9], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes())

    odd = edited_checkpoint(tiny_checkpoint, tmp_path / "odd", tensors=tiny)
    for extra in ([], ["--dry-run"]):
        result = run("convert", odd, "-o", tmp_path / "x.gguf", "--outtype", "tq2_0", "--allow-scale-rounding", *extra)
        assert exit_code_of(result) == 4 and "q_proj" in str(result.exception), extra


def test_a_valid_tensor_whose_tiles_can_be_told_two_ways(tmp_path: Path) -> None:
    """Upper rows zero on the right, lower rows on the left: scales by columns are scales by rows as well."""
    codes = np.zeros((4, 256), np.int8)
    codes[:2, :128], codes[2:, 128:] = 1, -1
    tensor = TernaryTensor(codes, np.array([[0.5, 0.25]], np.float32))
    for name in ("q2_0", "pq2_0"):
        back = LAYOUTS[name].unpack(LAYOUTS[name].pack(tensor), 4, 256)
        assert not scales_differ(back, tensor)[0].any() and np.array_equal(back.dequantize(), tensor.dequantize()), name


def test_a_truncated_file_is_not_another_layout(half_gguf: Path, tmp_path: Path) -> None:
    convert(half_gguf, path := tmp_path / "q.gguf", outtype="q2_0")
    raw = path.read_bytes()
    (cut := tmp_path / "cut.gguf").write_bytes(raw[:-1024])
    with pytest.raises(Unreadable, match=r"q2_0.*needs"):
        GgufFile(cut)


def test_orders_whose_shapes_i2_s_does_not_have(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made = checkpoints("qwen3_packed")
    convert(made.folder, good := tmp_path / "good.gguf", outtype="t2")
    file = GgufFile(good)
    plans, data = [], []
    for name, info in file.tensors.items():
        ternary = file.ternary(info)
        raw = file.bytes_of(info) if ternary is None else REPAIRABLE["i2_s_rows4"].pack(ternary)
        plans.append(TensorPlan(name, info.shape, info.type_id if ternary is None else 36, raw.size))
        data.append([raw])
    write_gguf(tmp_path / "rows.gguf", dict(file.metadata), plans, data)
    with pytest.raises(Unreadable, match="multiple of 128"):
        convert(tmp_path / "rows.gguf", tmp_path / "x.gguf")
    repack(tmp_path / "rows.gguf", path := tmp_path / "m.gguf", outtype="t2", read_as="i2_s_rows4")
    assert hashes(path) == hashes(good)


def test_keys_of_others_keep_their_types(half_gguf: Path, tmp_path: Path) -> None:
    def add(metadata: dict) -> None:
        metadata |= {"general.quality": np.float64(0.1), "general.count": np.uint64(7)}

    source = edited_gguf(half_gguf, tmp_path / "s.gguf", metadata=add)
    convert(source, path := tmp_path / "m.gguf", outtype="t2")
    file = GgufFile(path)
    assert (file.metadata["general.quality"], file.metadata_types["general.quality"]) == (0.1, "f64")
    assert file.metadata_types["general.count"] == "u64"


def test_a_file_without_a_tokenizer(half_gguf: Path, tmp_path: Path) -> None:
    bare = edited_gguf(
        half_gguf, tmp_path / "bare.gguf", metadata=lambda m: [m.pop(key) for key in list(m) if "tokenizer" in key]
    )
    result = convert(bare, path := tmp_path / "m.gguf", outtype="t158")
    assert "the source has no tokenizer" in result.warnings and hashes(path) == hashes(half_gguf)
    assert not any("tokenizer" in key for key in GgufFile(path).metadata)


def test_prisms_old_files_have_another_ones_id(half_gguf: Path, tmp_path: Path) -> None:
    """Until mid 2026 groups of 128 went by id 42, which is llama.cpp's Q2_0 with groups of 64."""
    convert(half_gguf, new := tmp_path / "new.gguf", outtype="pq2_0")
    file = GgufFile(new)
    plans = [
        TensorPlan(name, info.shape, 42 if info.layout == "pq2_0" else info.type_id, info.nbytes)
        for name, info in file.tensors.items()
    ]
    write_gguf(tmp_path / "old.gguf", dict(file.metadata), plans, ([file.bytes_of(i)] for i in file.tensors.values()))
    old = GgufFile(tmp_path / "old.gguf")
    assert {info.layout for info in old.tensors.values() if info.type_id == 42} == {"pq2_0"}
    convert(tmp_path / "old.gguf", path := tmp_path / "q2_0.gguf", outtype="q2_0")
    assert {info.type_id for info in GgufFile(path).tensors.values() if info.layout == "q2_0"} == {42}
    assert hashes(path) == hashes(half_gguf) == hashes(tmp_path / "old.gguf")


@pytest.mark.parametrize(("type_id", "outtype"), [(42, "t158"), (43, "tq1_0"), (253, "q2_0")])
def test_stq1_0_is_read_and_becomes_other_layouts(tiny_gguf: Path, tmp_path: Path, type_id: int, outtype: str) -> None:
    truth = stq1_0.written(tiny_gguf, path := tmp_path / "stq.gguf", type_id)
    repack(path, made := tmp_path / "made.gguf", outtype=outtype)
    file = GgufFile(made)
    for name, tensor in truth.items():
        read = file.ternary(file.tensors[name])
        assert file.tensors[name].layout == outtype and read is not None, name
        assert np.array_equal(read.dequantize(), tensor.dequantize()), name


def test_stq1_0_is_neither_run_nor_written(tiny_gguf: Path, tmp_path: Path) -> None:
    stq1_0.written(tiny_gguf, path := tmp_path / "stq.gguf")
    with pytest.raises(Unsupported, match="is stored as stq1_0, which is read here and not run") as caught:
        Model(path)
    assert "tritpack repack" in (caught.value.hint or "")
    report = verify(path, level="full")
    assert report.verdict == "unsupported" and "reads stq1_0 and does not run it" in report.conclusion
    assert report["structure"].verdict == report["weights"].verdict == "pass"
    with pytest.raises(Unsupported, match="--outtype stq1_0 is not supported"):
        repack(path, tmp_path / "made.gguf", outtype="stq1_0")
