"""An engine that a file is written for: what `--for` chooses, and the check of a model against the engine table."""

from __future__ import annotations

import dataclasses

from tritpack.converter.targets.engines import verdict
from tritpack.converter.targets.engines.packed_model import Shapes, planned
from tritpack.converter.targets.engines.table import Row, Target, architecture_for
from tritpack.formats.errors import Unsupported
from tritpack.formats.model_spec import ModelSpec


@dataclasses.dataclass(frozen=True)
class Engine:
    """A row of the engine table that files are written for. target: how they are written."""

    row: Row
    target: Target

    @property
    def name(self) -> str:
        """The name that --for takes."""
        return self.target.name or self.row.name

    @property
    def layouts(self) -> tuple[str, ...] | None:
        """Those that it loads and runs, best first; None for all."""
        return self.target.layouts

    @property
    def command(self) -> str:
        """Continues a prompt with {file}, as its users type it."""
        return self.target.run

    @property
    def scales_apart(self) -> tuple[str, ...]:
        """Architectures in which it multiplies by a tensor NAME.scale."""
        return self.target.scales_apart

    @property
    def ternary_tables(self) -> bool:
        """Whether it runs an embedding or head in one of its layouts."""
        return self.target.ternary_tables

    @property
    def alignment(self) -> int:
        """Of the tensors in its files, in bytes."""
        return self.target.alignment

    def architecture(self, spec: ModelSpec) -> str:
        """Return the architecture to write: of BitNet's two graphs, the one that has the model's activation."""
        return architecture_for(self.target, spec.architecture, spec.activation)

    def check(self, spec: ModelSpec, layout: str, shapes: Shapes, *, allow_wrong: bool) -> list[str]:
        """Return what to warn of.

        Raises Unsupported for what the engine cannot load, and, unless allow_wrong, for what it would run wrong.
        """
        if self.layouts is None:
            return []
        if layout not in self.layouts:
            hint = f"--outtype can be: {', '.join(self.layouts)}"
            raise Unsupported(f"{self.name} does not run {layout}", hint=hint)
        model = planned(spec, self.architecture(spec), layout, shapes)
        wrong = [
            f"{self.name} will not run this model right: {deviation}"
            for deviation in verdict.deviations(self.row, model)
        ]
        if wrong and not allow_wrong:
            ways = "--allow-wrong-engine writes the file nevertheless; --for tritpack (the default) runs it right"
            lacking = verdict.lacking_graph(self.row, model.activation, model.architecture, it=self.name)
            raise Unsupported(wrong[0], hint=f"{lacking}, whatever the layout; {ways}" if lacking else ways)
        return [*wrong, *verdict.notes_on(self.row, model)]
