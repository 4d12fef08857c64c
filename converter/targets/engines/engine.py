"""What is known of an engine, and the check of a model against it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from tritpack.formats.errors import Unsupported
from tritpack.formats.model_spec import IMPLIED_ACTIVATION, ModelSpec

BITNET = ("bitnet-b1.58", "bitnet")
"""The two architectures of BitNet's graph; the engines' differ in their activation function."""
Shapes = Mapping[str, tuple[int, ...]]
"""GGUF name -> (rows, cols) of each ternary tensor."""


def _nothing(*_: object) -> Iterator[str]:
    return iter(())


@dataclasses.dataclass(frozen=True)
class Engine:
    """An engine that a file may be written for.

    layouts: those that it loads and runs, best first; None for all.
    command: continues a prompt with {file}, as its users type it.
    deviations: (spec, layout, shapes) -> why it would run another model, one sentence each.
    notes: (spec, layout) -> what is right and should be known nevertheless.
        These sentences are recorded in files (`tritpack.warnings`), so rewording one changes the bytes of an output.
    renamed: architectures that it knows by another name.
    scales_apart: architectures in which it multiplies by a tensor NAME.scale.
    ternary_tables: whether it runs an embedding or head in one of its layouts.
    """

    name: str
    layouts: tuple[str, ...] | None
    command: str
    deviations: Callable[[ModelSpec, str, Shapes], Iterator[str]] = _nothing
    notes: Callable[[ModelSpec, str], Iterator[str]] = _nothing
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scales_apart: tuple[str, ...] = ()
    ternary_tables: bool = False

    def architecture(self, spec: ModelSpec) -> str:
        """Return the architecture to write: of BitNet's two graphs, the one that has the model's activation."""
        if self.layouts is None or spec.architecture not in BITNET:
            return spec.architecture
        architecture = "bitnet" if spec.activation == "silu" else "bitnet-b1.58"
        return self.renamed.get(architecture, architecture)

    def check(self, spec: ModelSpec, layout: str, shapes: Shapes, *, allow_wrong: bool) -> list[str]:
        """Return what to warn of.

        Raises Unsupported for what the engine cannot load, and, unless allow_wrong, for what it would run wrong.
        """
        if self.layouts is not None and layout not in self.layouts:
            hint = f"--outtype can be: {', '.join(self.layouts)}"
            raise Unsupported(f"{self.name} does not run {layout}", hint=hint)
        wrong = [
            f"{self.name} will not run this model right: {deviation}"
            for deviation in self._all_deviations(spec, layout, shapes)
        ]
        if wrong and not allow_wrong:
            hint = "--allow-wrong-engine writes the file nevertheless; --for tritpack (the default) runs it right"
            raise Unsupported(wrong[0], hint=hint)
        return [*wrong, *self.notes(spec, layout)]

    def _all_deviations(self, spec: ModelSpec, layout: str, shapes: Shapes) -> Iterator[str]:
        architecture = self.architecture(spec)
        computes = IMPLIED_ACTIVATION[architecture]
        if self.layouts is not None and computes != spec.activation:
            only = ", and it has no other graph for BitNet" if spec.architecture in BITNET else ""
            yield f"its {architecture} graph computes {computes}, the model has {spec.activation}{only}"
        yield from self.deviations(spec, layout, shapes)
