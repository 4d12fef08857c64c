"""Every code and every scale of FILE equal to the source's, as the oracle's own reader understands it; norms bit for
bit; embedding and head after the rounding that their stored type implies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tritpack.converter.pipeline.in_order import threads_for
from tritpack.converter.verify.compare.tables import SAMPLE
from tritpack.converter.verify.compare.tensors import TensorComparison
from tritpack.converter.verify.context import Context
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.converter.verify.rungs.structure import accuse_source
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import TABLES

name = "weights"
blames: Blame = "file"
needs: frozenset[Need] = frozenset()
options: tuple[str, ...] = ()

BYTES_PER_WEIGHT = 12
"""Bytes that comparing one weight needs at most, which quantising master weights does."""


def run(context: Context) -> Rung:
    """Compare all tensors. Where most have other codes, and FILE records other weights, the source is the wrong one."""
    rung = check_weights(context.file, context.exact, context.options.everything)
    accused = {finding.tensor for finding in rung.findings}
    tables = {f"{name}.weight" for name in TABLES if f"{name}_rounding" in rung.figures}
    context.right_tables = frozenset(tables - accused)
    differing = {finding.tensor for finding in rung.findings if finding.kind is Kind.CODES_DIFFER}
    if context.record.other_weights and 2 * len(differing) > rung.figures["ternary_tensors"]:
        accuse_source(rung, context)
    return rung


def check_weights(file: GgufFile, oracle: Oracle, everything: bool = False) -> Rung:
    """Compare all tensors that have the right name and shape; the structure rung reports the others.

    everything: encode all rows of a table by the specification, and not a sample.
    """
    rung = Rung(name, blames, compares="codes and scales of FILE with those of SOURCE, exactly; norms bit for bit")
    rung.figures |= {"ternary_tensors": 0, "ternary_weights": 0}
    rows: list[dict[str, Any]] = []
    roundings: dict[str, float] = {}
    worst = vectors = decays = 0.0
    accused: set[str] = set()  # one finding per tensor is enough
    comparison = TensorComparison(file, oracle, everything)
    tasks = comparison.tasks()
    largest = max(((last - first) * info.cols for info, (first, last) in tasks), default=1)
    damage: dict[str, str] = {}
    with ThreadPoolExecutor(threads_for(BYTES_PER_WEIGHT * largest)) as pool:
        hashed = {info.name: pool.submit(comparison.damage, info) for info in file.tensors.values()}
        for (info, _), result in zip(tasks, pool.map(lambda task: comparison.run(*task), tasks)):
            if result.findings and info.name not in accused:
                accused.add(info.name)
                rung.findings += result.findings
            worst = max(worst, result.scale_rounding)
            vectors = max(vectors, result.vector_rounding)
            decays = max(decays, result.decay_rounding)
            rung.figures["ternary_tensors"] += result.weights > 0
            rung.figures["ternary_weights"] += result.weights
            if result.rounding is not None:
                roundings[info.name] = max(roundings.get(info.name, 0.0), result.rounding)
            if result.row is not None:
                rows.append(result.row)
            if result.damage is not None:
                damage[info.name] = result.damage
        damage |= {name: sentence for name, future in hashed.items() if (sentence := future.result())}
    _report_damage(rung, damage, accused)
    for table, loss in roundings.items():
        if not loss and table.removesuffix(".weight") not in TABLES:
            continue
        rung.figures[f"{table.removesuffix('.weight')}_rounding"] = loss
        if loss and table not in accused:
            layout = file.tensors[table].layout
            encoder = " by another encoder" if comparison.tables.foreign else ""
            rung.notes.append(f"{table} is stored as {layout}{encoder}, at most {loss:.3g} away from the source")
            if not everything and not comparison.tables.foreign and file.tensors[table].rows > SAMPLE:
                rung.notes.append(
                    f"the rows of {table} were encoded again in C, 1 in {SAMPLE} also by the specification, all with "
                    "--level full"
                )
    if worst:
        rung.figures["scale_rounding"] = worst
        rung.notes.append(
            f"scales were rounded to what their layout holds, with a relative change of at most {worst:.2g}"
        )
    if vectors:
        rung.notes.append(f"norms or other vectors are rounded as another tool rounds them, at most {vectors:.2g} away")
    if decays:
        rung.figures["decay_rounding"] = decays
        rung.notes.append(
            f"decays (ssm_a) differ by a relative {decays:.2g} at most: a checkpoint stores their logarithms, and not "
            "every float32 is the exponential of another"
        )
    if not rows and not rung.findings:
        rung.skipped = "no ternary tensor of the file has a counterpart in the source, so none was compared"
    rung.figures["bytes"] = sum(info.nbytes for info in {info.name: info for info, _ in tasks}.values())
    rung.series = {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}
    return rung


def _report_damage(rung: Rung, damage: dict[str, str], accused: set[str]) -> None:
    """Add a finding for each tensor that is not as the file records it, or a note where another finding accuses it."""
    for tensor, sentence in damage.items():
        if tensor not in accused:
            rung.add(Kind.INTEGRITY_DIFFERS, f"tensor {tensor!r}: {sentence}", tensor=tensor)
    if changed := [tensor for tensor in damage if tensor in accused]:
        rung.notes.append(
            f"{changed[0]}{f' and {len(changed) - 1} more' if len(changed) > 1 else ''}: not as the file was written, "
            f"by the hashes that it records"
        )
