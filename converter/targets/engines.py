"""The engines that a file may be written for: which layouts they load, and what they would compute otherwise than the
model does. One entry an engine; each line was tried on the engine itself (formats/README.md, "Engines")."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from tritpack.formats.errors import Unsupported
from tritpack.formats.model_spec import IMPLIED_ACTIVATION, ModelSpec

BITNET = ("bitnet-b1.58", "bitnet")
Shapes = Mapping[str, tuple[int, ...]]
"""Of the ternary tensors, by GGUF name."""


@dataclasses.dataclass(frozen=True)
class Target:
    """An engine. layouts: those it loads and runs. deviations: why it would run another model than SPEC in LAYOUT, one
    sentence each. notes: what is right and should be known. renamed: the architectures it has under another name.
    scales_apart: those in which it multiplies by a tensor NAME.scale."""

    name: str
    layouts: tuple[str, ...] | None  # None: all
    deviations: Callable[[ModelSpec, str, Shapes], Iterator[str]]
    notes: Callable[[ModelSpec, str], Iterator[str]]
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scales_apart: tuple[str, ...] = ()

    def architecture(self, spec: ModelSpec) -> str:
        """What to call the model for this engine: of BitNet's two graphs the one with the model's activation."""
        if self.layouts is None or spec.architecture not in BITNET:
            return spec.architecture
        named = "bitnet" if spec.activation == "silu" else "bitnet-b1.58"
        return self.renamed.get(named, named)

    def check_layout(self, layout: str) -> None:
        """Raises Unsupported for a layout that the engine does not load."""
        if self.layouts is not None and layout not in self.layouts:
            raise Unsupported(
                f"{self.name} has no {layout} that it runs", hint=f"--outtype can be: {', '.join(self.layouts)}"
            )


def _nothing(*_: object) -> Iterator[str]:
    return iter(())


def _bitnetcpp(spec: ModelSpec, layout: str, shapes: Shapes) -> Iterator[str]:
    if spec.architecture not in (*BITNET, "llama", "qwen3", "gemma3"):
        yield f"it has no graph for {spec.architecture}"
    if not spec.int8_activations:
        yield "it quantises activations to int8, and this model keeps them float"
    if not spec.tied and spec.architecture in BITNET:
        yield "it ignores a separate output head in its BitNet graphs"


def _bitnetcpp_notes(spec: ModelSpec, layout: str) -> Iterator[str]:
    if layout in ("tl1", "tl2"):
        yield (
            f"bitnet.cpp runs {layout} only in a build that was generated for these shapes with the tiling in this "
            "file, and only one token at a time (-b 1): larger batches give nonsense"
        )
    if spec.architecture in ("qwen3", "gemma3"):
        yield f"bitnet.cpp runs {spec.architecture} with norms before its linears since July 2026 only"


def _llamacpp(spec: ModelSpec, layout: str, shapes: Shapes) -> Iterator[str]:
    if spec.projection_norms:
        yield "it has no norms before the linears"
    if spec.architecture in BITNET:
        if not spec.tied:
            yield "it ignores a separate output head in its BitNet graph"
        if spec.heads * spec.head_dim != spec.hidden_size:
            yield f"its BitNet graph needs {spec.hidden_size} outputs of attn_q, not {spec.heads * spec.head_dim}"


def _llamacpp_notes(spec: ModelSpec, layout: str) -> Iterator[str]:
    size = 32 if layout == "q2_0" else 256
    model = "one scale a token" if spec.int8_activations else "float"
    yield f"llama.cpp quantises activations in blocks of {size}, the model has {model}: logits differ by some 1e-2"


def _ik(spec: ModelSpec, layout: str, shapes: Shapes) -> Iterator[str]:
    if spec.projection_norms:
        yield "it has no norms before the linears"
    short = min(shape[1] for shape in shapes.values())
    if layout in ("iq1_bn", "iq2_bn") and short < 512:
        yield f"its {layout} kernels abort on rows shorter than 512, and some here have {short} (iq2_bn_r4 runs)"
    if not spec.tied and spec.architecture in BITNET and spec.activation == "silu":
        yield "it ignores a separate output head in its bitnet graph"


def _ik_notes(spec: ModelSpec, layout: str) -> Iterator[str]:
    model = "one" if spec.int8_activations else "none"
    yield f"ik_llama.cpp quantises activations with four scales a token, the model has {model}: logits differ by 1e-2"


TARGETS = {
    target.name: target
    for target in (
        Target("tritpack", None, _nothing, _nothing),
        Target("bitnet.cpp", ("i2_s", "tl1", "tl2"), _bitnetcpp, _bitnetcpp_notes),
        Target(
            "llama.cpp",
            ("tq2_0", "tq1_0", "q2_0"),
            _llamacpp,
            _llamacpp_notes,
            renamed={"bitnet-b1.58": "bitnet"},
            scales_apart=("bitnet", "llama", "qwen3"),
        ),
        # It loads I2_S without a word and computes nonsense.
        Target("ik_llama.cpp", ("iq2_bn_r4", "iq2_bn", "iq1_bn"), _ik, _ik_notes),
    )
}
"""By the name that --for takes."""


def _deviations(target: Target, spec: ModelSpec, layout: str, shapes: Shapes) -> Iterator[str]:
    architecture = target.architecture(spec)
    computes = IMPLIED_ACTIVATION[architecture]
    if target.layouts is not None and computes != spec.activation:
        only = ", and it has no other graph for BitNet" if spec.architecture in BITNET else ""
        yield f"its {architecture} graph computes {computes}, the model has {spec.activation}{only}"
    yield from target.deviations(spec, layout, shapes)


def check_target(target: Target, spec: ModelSpec, layout: str, shapes: Shapes, *, allow_wrong: bool) -> list[str]:
    """What to warn of. Raises Unsupported for what the engine cannot load, and for what it would run wrong unless
    allow_wrong."""
    target.check_layout(layout)
    wrong = [
        f"{target.name} will not run this model right: {each}" for each in _deviations(target, spec, layout, shapes)
    ]
    if wrong and not allow_wrong:
        hint = "--allow-wrong-engine writes the file all the same; --for tritpack (the default) runs it right"
        raise Unsupported(wrong[0], hint=hint)
    return [*wrong, *target.notes(spec, layout)]
