"""The ctypes face: errors, sessions, traces; and the C graph, stage by stage, against numpy."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tritpack.formats import float_types
from tritpack.formats.errors import MissingRequirement, Unreadable, Unsupported, UsageError
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.model_spec import LINEARS, ModelSpec
from tritpack.formats.names import ISAS, ExitCode
from tritpack.formats.ternary import TernaryTensor
from tritpack.runtime.abi import ABI_VERSION, LAYOUT_IDS, NOT_RUN
from tritpack.runtime.library import CModel, CTensor, Library, available_isas, library, library_path
from tritpack.runtime.session import CSession, Span

F32 = npt.NDArray[np.float32]
SCALE = np.float32(0.03)
FEW = {"scalar": 4, "neon": 1 << 20}
"""Tokens up to which matvec is taken; 10 to 16 for all others."""
TOKENS = [5, 1, 44, 90, 3, 3, 17, 60, 2, 9, 11]


def small_spec(activation: str, sub_norms: bool) -> ModelSpec:
    return ModelSpec(
        architecture="bitnet-b1.58",
        vocab_size=96,
        hidden_size=256,
        intermediate_size=384,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=64,
        context_length=64,
        rope_theta=10000.0,
        norm_eps=1e-5,
        activation=activation,
        tied=not sub_norms,
        sub_norms=sub_norms,
    )


class Made:
    """A random model: what C is given, and the same as float32 arrays by GGUF name."""

    def __init__(self, spec: ModelSpec, embedding: str = "f16") -> None:
        rng = np.random.default_rng(11)
        self.spec = spec
        self.tensors: dict[str, CTensor] = {}
        self.values: dict[str, F32] = {}
        for name, shape in spec.tensor_shapes().items():
            rows, cols = shape if len(shape) == 2 else (1, shape[0])
            if name.split(".")[-2] in LINEARS:
                codes = rng.integers(0, 3, (rows, cols), np.uint8)
                fields = codes.reshape(-1, 4, 32)
                packed = fields[:, 0] << 6 | fields[:, 1] << 4 | fields[:, 2] << 2 | fields[:, 3]
                data = np.concatenate([packed.reshape(-1), np.array([SCALE]).view(np.uint8), np.zeros(28, np.uint8)])
                self.tensors[name] = CTensor(data, "i2_s", rows, cols)
                self.values[name] = codes.astype(np.float32) - 1
                continue
            layout = embedding if len(shape) == 2 else "f32"
            values = rng.standard_normal((rows, cols)).astype(np.float32) * np.float32(0.5)
            data = float_types.encode(layout, values)
            self.tensors[name] = CTensor(data, layout, rows, cols)
            self.values[name] = float_types.decode(layout, data, rows, cols)


@pytest.fixture(scope="module", params=[("relu2", True), ("silu", False)], ids=["relu2", "silu"])
def made(request: pytest.FixtureRequest) -> Made:
    return Made(small_spec(*request.param))


def test_missing_library(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match=r"libtritpack\.so is not there") as caught:
        Library(tmp_path / "libtritpack.so")
    assert caught.value.exit_code == ExitCode.MISSING
    assert "make lib" in (caught.value.hint or "")


def test_broken_library(tmp_path: Path) -> None:
    path = tmp_path / "libtritpack.so"
    path.write_bytes(b"not a library")
    with pytest.raises(MissingRequirement, match="cannot be loaded"):
        Library(path)


def test_abi_version_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritpack.runtime.library.ABI_VERSION", ABI_VERSION + 1)
    with pytest.raises(MissingRequirement, match="ABI version"):
        Library(library_path())


@pytest.mark.parametrize(
    ("table", "names", "entry"),
    [
        ("LAYOUT_IDS", ["f32", "bf16", *list(LAYOUT_IDS)[2:]], "layout 1 is f16, this tritpack needs bf16"),
        ("LAYOUT_IDS", [*LAYOUT_IDS, "q1_0"], f"layout {len(LAYOUT_IDS)} is absent, this tritpack needs q1_0"),
        ("ISAS", ISAS[:-1], f"instruction set {len(ISAS) - 1} is {ISAS[-1]}, this tritpack needs none"),
    ],
    ids=["other", "missing", "more"],
)
def test_names_are_compared(monkeypatch: pytest.MonkeyPatch, table: str, names: list[str], entry: str) -> None:
    monkeypatch.setattr(f"tritpack.runtime.library.{table}", dict.fromkeys(names, 0))
    with pytest.raises(MissingRequirement, match=entry):
        Library(library_path())


def test_isas() -> None:
    lib = library()
    assert [isa.name for isa in lib.isas()] == list(ISAS)
    assert available_isas()[0] == "scalar" and lib.best_isa() == available_isas()[-1]
    with pytest.raises(UsageError, match="unknown instruction set"):
        lib.isa_id("mmx")
    foreign = next(isa.name for isa in lib.isas() if not isa.available)
    with pytest.raises(MissingRequirement, match=foreign) as caught:
        lib.isa_id(foreign)
    assert caught.value.exit_code == ExitCode.MISSING
    assert ";" in lib.cpu()


def test_tensor_layouts_and_alignment() -> None:
    with pytest.raises(Unsupported, match="'tq9_9' cannot be run"):
        CTensor(np.zeros(4, np.uint8), "tq9_9", 1, 1)
    values = np.arange(8, dtype=np.float32)
    odd = np.frombuffer(b"\0" + values.tobytes(), np.uint8)[1:]
    assert np.array_equal(library().tensor_row(CTensor(odd, "f32", 1, 8), 0), values)
    with pytest.raises(Unreadable, match="size in bytes"):
        library().tensor_row(CTensor(odd, "f32", 1, 9), 0)
    with pytest.raises(UsageError):
        library().tensor_row(CTensor(odd, "f32", 1, 8), 1)
    for layout, rows, cols in (("f32", 3, 5), ("q8_0", 2, 96), ("q6_k", 2, 512), ("q4_k", 2, 512)):
        data = float_types.encode(layout, np.zeros((rows, cols), np.float32))
        assert library().nbytes(layout, rows, cols) == len(data), f"{layout} {rows} {cols}"
    assert library().nbytes("i2_s", 4, 256) == 4 * 64 + 32


def test_model_errors_name_the_tensor(made: Made) -> None:
    name = "blk.1.ffn_down.weight"
    good = made.tensors[name]
    with pytest.raises(Unreadable, match="layer 1 ffn_down"):
        CModel(made.spec, made.tensors | {name: CTensor(good.data, "i2_s", good.rows * 2, good.cols // 2)})
    with pytest.raises(Unreadable, match="layer 1 ffn_down"):
        CModel(made.spec, made.tensors | {name: CTensor(good.data[:-1], "i2_s", good.rows, good.cols)})
    half = CTensor(np.zeros(good.rows * good.cols * 2, np.uint8), "f16", good.rows, good.cols)
    with pytest.raises(Unsupported, match="layer 1 ffn_down"):
        CModel(made.spec, made.tensors | {name: half})


def test_session_errors_leave_it_usable(made: Made) -> None:
    with CModel(made.spec, made.tensors) as model, CSession(model, n_ctx=8) as session:
        first = session.eval([1, 2, 3])
        for tokens in ([], [96], [-1], [0] * 6, [2**40]):
            with pytest.raises(UsageError):
                session.eval(tokens)
        assert session.n_past == 3
        with pytest.raises(UsageError):
            session.rewind(4)
        session.rewind(0)
        assert session.eval([1, 2, 3], logits="none").shape == (0, 96)
        session.rewind(2)
        assert np.array_equal(session.eval([3]), first)
        with pytest.raises(UsageError):
            CSession(model, threads=0)
        with pytest.raises(UsageError):
            CSession(model, kv_type="q4")
    with pytest.raises(UsageError, match="closed"):
        session.eval([1])
    with pytest.raises(UsageError, match="closed"):
        CSession(model)


@pytest.mark.parametrize("kind", ["last", "all", "none", "hidden"])
def test_ctrl_c_between_batches_leaves_the_session_as_it_was(
    made: Made, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "tp_eval_hidden" if kind == "hidden" else "tp_eval"
    real, calls = getattr(library().c, name), 0

    def interrupted(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        status = int(real(*arguments))
        if calls == 2:
            signal.raise_signal(signal.SIGINT)
        return status

    with CModel(made.spec, made.tensors) as model, CSession(model, batch=3) as session:

        def run(tokens: list[int]) -> F32:
            return session.hidden(tokens) if kind == "hidden" else session.eval(tokens, logits=kind)

        first, want = run(TOKENS[:2]), run(TOKENS[2:])
        session.rewind(2)
        monkeypatch.setattr(library().c, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(TOKENS[2:])
        assert calls == 2 and session.n_past == 2
        assert np.array_equal(run(TOKENS[2:]), want) and calls == 5
        session.rewind(0)
        assert np.array_equal(run(TOKENS[:2]), first)


def test_sequences_share_a_session_and_keep_their_bits(made: Made) -> None:
    with CModel(made.spec, made.tensors) as model, CSession(model, n_ctx=16, batch=4) as session:
        want = {
            start: session.eval(TOKENS[start : start + 6], logits="all") for start in (0, 3) if not session.rewind(0)
        }
        session.rewind(0)
        other = session.new_sequence(8)
        session.eval_spans([Span(session.own, TOKENS[:2], 0), Span(other, TOKENS[3:8], 0)])
        got = session.eval_spans([Span(session.own, TOKENS[2:6], 4), Span(other, TOKENS[8:9])])
        assert np.array_equal(got[:4], want[0][2:]) and np.array_equal(got[4], want[3][5])
        state = other.save()
        other.rewind(1)
        assert (session.n_past, other.n_past) == (6, 1)
        third = session.new_sequence()
        third.copy_from(session.own, 5)
        assert np.array_equal(session.eval_spans([Span(third, TOKENS[5:6])])[0], want[0][5])
        third.load(6, state)
        third.rewind(5)
        assert np.array_equal(session.eval_spans([Span(third, TOKENS[8:9])])[0], want[3][5])
        with pytest.raises(Unreadable):
            third.load(5, state[:-1])
        for spans in ([Span(other, [1] * 8)], [Span(other, [1]), Span(third, [96])], [Span(other, [1])] * 2, []):
            with pytest.raises(UsageError):
                session.eval_spans(spans)
            assert (other.n_past, third.n_past) == (1, 6), f"{len(spans)} spans"
        other.close()
        with pytest.raises(UsageError, match="closed"):
            session.eval_spans([Span(other, [1])])
    with pytest.raises(UsageError, match="closed"):
        third.rewind(0)


def test_ctrl_c_leaves_all_sequences_as_they_were(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    real = library().c.tp_eval_spans

    def interrupted(*arguments: Any) -> int:
        status = int(real(*arguments))
        signal.raise_signal(signal.SIGINT)
        return status

    with CModel(made.spec, made.tensors) as model, CSession(model, n_ctx=16) as session:
        other = session.new_sequence()
        spans = [Span(session.own, TOKENS[:2]), Span(other, TOKENS[:3], 3)]
        monkeypatch.setattr(library().c, "tp_eval_spans", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.eval_spans(spans)
        assert (session.n_past, other.n_past) == (0, 0)


def test_closing_a_model_closes_its_sessions(made: Made) -> None:
    model = CModel(made.spec, made.tensors)
    session = CSession(model, threads=2)
    model.close()
    with pytest.raises(UsageError, match="closed"):
        session.eval([1])


@pytest.mark.parametrize("isa", ISAS)
def test_forced_isa_runs_and_gives_the_same_bits(made: Made, isa: str) -> None:
    if isa not in available_isas():
        pytest.skip(f"{isa} is not on this CPU")
    lib, tokens = library(), (TOKENS * 6)[:40]
    ladder = available_isas()[: available_isas().index(isa) + 1]
    with CModel(made.spec, made.tensors) as model:
        with CSession(model, isa="scalar") as session:
            want = session.eval(tokens, logits="all")
        for threads, batch in ((1, 256), (3, 20), (3, 6), (2, 1), (2, 2), (1, 4)):
            with CSession(model, isa=isa, threads=threads, batch=batch) as session:
                assert np.array_equal(session.eval(tokens, logits="all"), want), f"{threads} {batch}"
                session.rewind(4)
                session.eval(tokens[4:5])
                ran = {kernel.symbol: kernel for kernel in lib.kernels() if kernel.symbol in session.kernels()}
                assert all(kernel.isa in ladder for kernel in ran.values()), f"{threads} {batch}"
                many = batch > FEW.get(isa, 16)
                assert any(kernel.op == "matmul" for kernel in ran.values()) == many, f"{threads} {batch}"
                for op in ("matvec", "matmul") if many else ("matvec",):
                    best = [k.isa for k in lib.kernels() if k.op == op and k.layout == "i2_s" and k.isa in ladder]
                    assert f"{op}_i2_s_{max(best, key=ISAS.index)}" in ran, f"{threads} {batch} {op}"


def test_16_bit_cache_bit_by_bit(made: Made) -> None:
    """Attention over a 16-bit cache in numpy's float32, as attention16_f32_scalar.c says, and how far floats are."""
    spec, tokens = made.spec, (TOKENS * 6)[:60]
    seen: dict[tuple[int, str], npt.NDArray[Any]] = {}
    with CModel(spec, made.tensors) as model, CSession(model) as full, CSession(model, kv_type="i16") as sixteen:
        exact = full.eval(tokens, logits="all")
        with sixteen.traced(lambda point, layer, data: seen.__setitem__((layer, point), data)):
            traced = sixteen.eval(tokens, logits="all")
        sixteen.rewind(0)
        assert np.array_equal(sixteen.eval(tokens, logits="all"), traced)
        assert 0 < np.abs(traced - exact).max() < 0.1 * np.abs(exact).max()
        assert any(symbol.startswith("attention16_f32") for symbol in sixteen.kernels())
    n, group = len(tokens), spec.heads // spec.kv_heads
    scale = np.float32(spec.query_key_scale())
    for layer in range(spec.layers):
        q = seen[layer, "attn_q_rope"].reshape(n, spec.heads, -1)
        k = seen[layer, "attn_k_rope"].reshape(n, spec.kv_heads, -1)
        v = seen[layer, "attn_v"].reshape(n, spec.kv_heads, -1)
        got = seen[layer, "attn_out"].reshape(n, spec.heads, -1)
        for head in range(spec.heads):
            keys, values = k[:, head // group], v[:, head // group]
            for t in range(n):
                want = attention16(q[t, head], keys[: t + 1], values[: t + 1], scale)
                assert np.array_equal(got[t, head], want), f"{layer} {head} {t}"
            scores = q[:, head].astype(np.float64) @ keys.T.astype(np.float64) * scale
            scores[~np.tri(n, dtype=bool)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            floats = weights / weights.sum(-1, keepdims=True) @ values
            assert np.abs(got[:, head] - floats).max() < 1e-3 * np.abs(floats).max(), f"{layer} {head}"


def attention16(q: F32, keys: F32, values: F32, scale: np.float32) -> F32:
    """One head of one token: q (head_dim), keys and values (positions, head_dim)."""
    f = np.float32

    def lanes(x: F32) -> F32:
        """Sums of (rows, n) in the order of common.h."""
        x = np.pad(x, ((0, 0), (0, -x.shape[1] % 16))).reshape(len(x), -1, 16)
        total = np.zeros_like(x[:, 0])
        for i in range(x.shape[1]):
            total = total + x[:, i]
        for half in (8, 4, 2, 1):
            total = total[:, :half] + total[:, half : 2 * half]
        return total[:, 0]

    def integers(x: F32, step: F32) -> npt.NDArray[np.int64]:
        return np.rint(x * (f(1) / step)[:, None]).astype(np.int64)

    def key_step(x: F32) -> F32:
        return np.maximum(np.abs(x).max(1) / f(32767), np.sqrt(lanes(x * x)) / f(46000))

    def exp(x: F32) -> F32:
        """tp_exp of common.h for -87 < x <= 0."""
        m = x * f(1.44269504088896341) + f(12582912)
        n = m - f(12582912)
        r = (x - n * f(0.693359375)) - n * f(-2.12194440e-4)
        p = np.full_like(r, 1.9875691500e-4)
        for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            p = p * r + f(c)
        return ((p * (r * r) + r) + f(1)) * np.exp2(n)

    step_q, step_k, step_v = key_step(q[None]), key_step(keys), np.abs(values).max(1) / f(16383)
    dots = (integers(q[None], step_q) @ integers(keys, step_k).T)[0]
    scores = (dots.astype(np.float32) * step_k) * (step_q * scale)
    e = exp(scores - scores.max())
    whole, weights, out = integers(values, step_v), e * step_v, np.zeros_like(q)
    for begin in range(0, len(keys), 32):
        w = weights[begin : begin + 32]
        total = np.rint(w * (f(4095) / w.max())).astype(np.int64) @ whole[begin : begin + 32]
        out = out + total.astype(np.float32) * (w.max() * (f(1) / f(4095)))
    return out * (f(1) / lanes(e[None]))


def close(a: F32, b: F32, tolerance: float = 2e-6) -> bool:
    return bool(np.abs(a - b).max() <= tolerance * np.abs(b).max())


def test_graph_stage_by_stage(made: Made) -> None:
    """Each stage recomputed in numpy from what the trace says entered it: integers and linears exact, floats close."""
    spec, values = made.spec, made.values
    seen: dict[tuple[int, str], npt.NDArray[Any]] = {}
    with (
        CModel(spec, made.tensors) as model,
        CSession(model) as session,
        session.traced(lambda point, layer, data: seen.__setitem__((layer, point), data)),
    ):
        logits = session.eval(TOKENS, logits="all")
        with CSession(model) as untraced:  # which does more at once
            assert np.array_equal(untraced.eval(TOKENS, logits="all"), logits)

    def norm(name: str, x: F32) -> F32:
        weight = values[f"{name}.weight"][0]
        return (
            x
            / np.sqrt(np.mean(x.astype(np.float64) ** 2, -1, keepdims=True) + spec.norm_eps).astype(np.float32)
            * weight
        )

    def rotate(x: F32, heads: int) -> F32:
        angle = (np.arange(len(x), dtype=np.float32)[:, None] * spec.inverse_frequencies()).astype(np.float64)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = np.split(x.reshape(len(x), heads, spec.head_dim), 2, -1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).reshape(x.shape).astype(np.float32)

    x = seen[-1, "embd"]
    assert np.array_equal(x, values["token_embd.weight"][TOKENS])
    for layer in range(spec.layers):

        def at(point: str, layer: int = layer) -> npt.NDArray[Any]:
            return seen[layer, point]

        def quantized(point: str) -> None:
            h = at(point)
            s = np.float32(127) / np.maximum(np.abs(h).max(-1, keepdims=True), np.float32(1e-5))
            assert np.array_equal(at(f"{point}.scale"), s), point
            assert np.array_equal(at(f"{point}.q8"), np.clip(np.rint(h * s), -128, 127).astype(np.int8)), point

        def linear(name: str, point: str, layer: int = layer) -> F32:
            total = at(f"{point}.q8").astype(np.int64) @ values[f"blk.{layer}.{name}.weight"].astype(np.int64).T
            return (total.astype(np.float32) / at(f"{point}.scale")) * SCALE

        assert close(at("attn_in"), norm(f"blk.{layer}.attn_norm", x)), layer
        quantized("attn_in")
        for name in ("attn_q", "attn_k", "attn_v"):
            assert np.array_equal(at(name), linear(name, "attn_in")), f"{layer} {name}"
        assert close(at("attn_q_rope"), rotate(at("attn_q"), spec.heads)), layer
        assert close(at("attn_k_rope"), rotate(at("attn_k"), spec.kv_heads)), layer
        n, group = len(TOKENS), spec.heads // spec.kv_heads
        q = at("attn_q_rope").reshape(n, spec.heads, -1).astype(np.float64)
        k = np.repeat(at("attn_k_rope").reshape(n, spec.kv_heads, -1), group, 1).astype(np.float64)
        v = np.repeat(at("attn_v").reshape(n, spec.kv_heads, -1), group, 1).astype(np.float64)
        scores = np.einsum("thd,phd->htp", q, k) / np.sqrt(spec.head_dim)
        scores[:, ~np.tri(n, dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        assert close(at("attn_out"), np.einsum("htp,phd->thd", weights, v).reshape(n, -1).astype(np.float32), 1e-5), (
            layer
        )
        mixed = at("attn_out")
        assert close(at("attn_sub_norm"), norm(f"blk.{layer}.attn_sub_norm", mixed) if spec.sub_norms else mixed), layer
        quantized("attn_sub_norm")
        assert np.array_equal(at("attn_output"), linear("attn_output", "attn_sub_norm")), layer
        assert np.array_equal(at("attn_residual"), x + at("attn_output")), layer
        assert close(at("ffn_in"), norm(f"blk.{layer}.ffn_norm", at("attn_residual"))), layer
        quantized("ffn_in")
        for name in ("ffn_gate", "ffn_up"):
            assert np.array_equal(at(name), linear(name, "ffn_in")), f"{layer} {name}"
        gate = at("ffn_gate").astype(np.float64)
        act = np.maximum(gate, 0) ** 2 if spec.activation == "relu2" else gate / (1 + np.exp(-gate))
        assert close(at("ffn_mul"), (act * at("ffn_up")).astype(np.float32)), layer
        product = at("ffn_mul")
        assert close(at("ffn_down_in"), norm(f"blk.{layer}.ffn_sub_norm", product) if spec.sub_norms else product), (
            layer
        )
        quantized("ffn_down_in")
        assert np.array_equal(at("ffn_down"), linear("ffn_down", "ffn_down_in")), layer
        assert np.array_equal(at("layer_out"), at("attn_residual") + at("ffn_down")), layer
        x = at("layer_out")
    final = seen[-1, "final_norm"]
    assert close(final, norm("output_norm", x))
    head = values["token_embd.weight" if spec.tied else "output.weight"]
    assert close(logits, final @ head.T, 1e-5)


def test_hidden_states_and_trace_errors(made: Made) -> None:
    with CModel(made.spec, made.tensors) as model, CSession(model, batch=4) as session:
        logits = session.eval(TOKENS, logits="all")
        session.rewind(0)
        hidden = session.hidden(TOKENS)
        head = made.tensors["token_embd.weight" if made.spec.tied else "output.weight"]
        assert np.array_equal(library().head_product(head, hidden), logits)
        session.rewind(0)

        def fail(point: str, layer: int, data: npt.NDArray[Any]) -> None:
            raise KeyError(point)

        with pytest.raises(KeyError, match="embd"), session.traced(fail):
            session.eval(TOKENS)
        session.rewind(0)
        assert np.array_equal(session.eval(TOKENS)[0], logits[-1])


def test_a_default_context_fits_a_machine(tiny_gguf: Path) -> None:
    """A model of 131072 positions would reserve tens of GiB; what is asked for is given all the same."""
    from tritpack.runtime.model import Model
    from tritpack.runtime.token_bytes import DEFAULT_CACHE_BYTES, default_context

    with Model(tiny_gguf) as model:
        assert model.context_length == default_context(model.spec, "f32") == 1024
        long = dataclasses.replace(model.spec, layers=64, kv_heads=4, context_length=131072)
    position = 2 * 64 * 4 * 64
    assert default_context(long, "f32") == DEFAULT_CACHE_BYTES // (4 * position)
    steps = 2 * 64 * 4 * 4
    assert default_context(long, "i16") == DEFAULT_CACHE_BYTES // (2 * position + steps)


# -- one model in every layout -----------------------------------------------------------------------------------------


def in_layout(name: str, spec: ModelSpec, granularity: str = "tensor") -> dict[str, CTensor]:
    """A random model with its linears and tables in one layout, another scale beside each of them."""
    rng = np.random.default_rng(12)
    layout, tensors = LAYOUTS[name], {}
    for tensor_name, shape in spec.tensor_shapes().items():
        rows, cols = shape if len(shape) == 2 else (1, shape[0])
        if len(shape) == 1:
            values = rng.standard_normal((rows, cols)).astype(np.float32)
            tensors[tensor_name] = CTensor(float_types.encode("f32", values), "f32", rows, cols)
            continue
        codes = rng.integers(-1, 2, (rows, cols)).astype(np.int8)
        codes[7] = 0
        codes[9, :256] = 0
        scales = rng.integers(32, 64, (rows, cols // 64)).astype(np.float32) / 1024
        groups = layout.nearest_grid(rows, cols, (rows, cols // 64))
        blocks = {"tensor": (1, 1), "row": (rows, 1), "group": groups}[granularity]
        data = layout.pack(TernaryTensor(codes, np.ascontiguousarray(scales[: blocks[0], : blocks[1]])))
        tiling = layout.tiling_of(rows, cols)
        tensors[tensor_name] = CTensor(data, name, rows, cols, tiling=tiling, scale=np.float32(0.77))
    return tensors


def wide_spec(int8: bool) -> ModelSpec:
    """Rows of whole blocks for every layout."""
    return dataclasses.replace(
        small_spec("relu2", True), hidden_size=512, intermediate_size=768, heads=8, int8_activations=int8
    )


RUN = [name for name in LAYOUTS if name not in NOT_RUN]
SCALES_ALONG_ROWS = [name for name in RUN if LAYOUTS[name].nearest_grid(512, 512, (512, 8))[1] > 1]
SCALES_BETWEEN_CODES = [name for name in SCALES_ALONG_ROWS if LAYOUTS[name].half_scales]


@pytest.mark.parametrize("int8", [True, False], ids=["int8", "float"])
@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_the_same_model_in_every_layout_gives_the_same_bits(granularity: str, int8: bool) -> None:
    spec, want = wide_spec(int8), None
    for name in RUN:
        if granularity != "tensor" and LAYOUTS[name].nearest_grid(96, 512, (96, 1))[0] != 96:
            continue
        stored = "i2_s" if name == "t2" else name
        op = "matvec" if int8 else "dequantize"
        direct = any(kernel.op == op and kernel.layout == stored for kernel in library().kernels())
        kernel = f"{op}_{stored if direct else 'u8'}"
        with CModel(spec, in_layout(name, spec, granularity)) as model:
            for isa in available_isas():
                for threads, batch in ((1, 256), (2, 3)):
                    with CSession(model, isa=isa, threads=threads, batch=batch) as session:
                        logits = session.eval(TOKENS, logits="all")
                        want = logits if want is None else want
                        assert np.array_equal(logits.view(np.uint32), want.view(np.uint32)), (name, isa, threads)
                        session.rewind(4)
                        session.eval(TOKENS[4:5])
                        ran = session.kernels()
                assert any(symbol.startswith(kernel) for symbol in ran), f"{name} {isa}"
                assert direct or any(symbol.startswith(f"unpack_{name}_") for symbol in ran), f"{name} {isa}"


@pytest.mark.parametrize("name", SCALES_BETWEEN_CODES)
def test_stray_codes_under_a_scale_of_zero_count_as_zeros(name: str) -> None:
    """One of a row's scales is 0 over codes that are not: the tensor is unpacked and cleared, however many tokens."""
    spec, layout = wide_spec(True), LAYOUTS[name]
    clean, stray = in_layout(name, spec), in_layout(name, spec)
    for tensors, codes in ((clean, 0), (stray, 1)):
        for tensor in tensors.values():
            if tensor.layout != name:
                continue
            held = layout.unpack(tensor.data, tensor.rows, tensor.cols).codes
            held[3, :256] = codes
            blocks = layout.nearest_grid(tensor.rows, tensor.cols, (tensor.rows, tensor.cols // 64))
            scales = np.full(blocks, 0.5, np.float32)
            tensor.data[:] = layout.pack(TernaryTensor(held, scales))
            scales[3, : scales.shape[1] * 256 // tensor.cols] = 0
            layout.write_scales(tensor.data, TernaryTensor(np.zeros_like(held), scales))
    found = {}
    for kind, tensors in (("clean", clean), ("stray", stray)):
        with CModel(spec, tensors) as model:
            for batch in (1, 4, 256):
                with CSession(model, batch=batch) as session:
                    found[kind, batch] = session.eval(TOKENS, logits="all").tobytes()
                    if batch == 1:
                        direct = any(symbol.startswith(f"matvec_{name}_") for symbol in session.kernels())
                        assert direct == (kind == "clean"), f"{kind} {batch}"
    assert len(set(found.values())) == 1


@pytest.mark.parametrize("name", SCALES_ALONG_ROWS)
def test_scales_along_a_row_need_float_activations(name: str) -> None:
    with pytest.raises(Unsupported, match="layer 0 attn_q"):
        CModel(wide_spec(True), in_layout(name, wide_spec(True), "group"))
    spec = wide_spec(False)
    with CModel(spec, in_layout(name, spec, "group")) as model, CSession(model) as session:
        logits = session.eval(TOKENS)
    with CModel(spec, in_layout("t2", spec, "group")) as model, CSession(model) as session:
        same = LAYOUTS[name].nearest_grid(512, 512, (512, 8)) == (512, 8)
        assert np.array_equal(session.eval(TOKENS), logits) == same


def test_a_table_of_a_layout_that_is_not_run_is_refused(made: Made) -> None:
    spec = made.spec
    table = CTensor(
        np.zeros(spec.vocab_size * spec.hidden_size // 4, np.uint8), "i2_s", spec.vocab_size, spec.hidden_size
    )
    table.layout = "hf_u8"
    with pytest.raises(Unsupported, match="token_embd"):
        CModel(spec, made.tensors | {"token_embd.weight": table})
