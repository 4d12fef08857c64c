"""What a GGUF file of a Qwen3.5 hybrid holds beside the model, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import HYBRID, ModelSpec

DOUBTED = ("pq2_0", "ptq1_0")
"""Layouts of the vendor's files, which say nothing of a rotation by themselves."""
SOURCE_FORM = "tritpack.source.form"
PREDICTORS = "the layers that predict further tokens (MTP)"


def beyond_the_layers(file: GgufFile, spec: ModelSpec) -> list[str]:
    """Return the names of the tensors in the layers for further tokens, which `nextn_predict_layers` counts."""
    extra = file.metadata.get(f"{HYBRID}.nextn_predict_layers", 0) if spec.architecture == HYBRID else 0
    counted = min(extra, len(file.tensors)) if isinstance(extra, int) else 0
    prefixes = tuple(f"blk.{spec.layers + layer}." for layer in range(counted))
    return [name for name in file.tensors if name.startswith(prefixes)]


def left_out(file: GgufFile, spec: ModelSpec | None) -> dict[str, int]:
    """Return how many tensors of a file are not read, by what they are of."""
    count = 0 if spec is None else len(beyond_the_layers(file, spec))
    return {PREDICTORS: count} if count else {}


def left_out_words(parts: Mapping[str, int]) -> list[str]:
    """Return a sentence for each part of a bigger model that is left out. parts: its number of tensors by its name."""
    return [f"left out: {count} tensor{'' if count == 1 else 's'} of {part}" for part, count in parts.items()]


def generation_doubt(file: GgufFile, spec: ModelSpec | None) -> str | None:
    """Return what a hybrid without the keys of a rotation may be, in words; None for all other files.

    A file that was made from a checkpoint by us is what that was.
    """
    if spec is None or spec.delta_net is None or spec.rotation is not None or SOURCE_FORM in file.metadata:
        return None
    if not any(info.layout in DOUBTED for info in file.tensors.values()):
        return None
    gates = "; its ternary ssm_alpha and ssm_beta point to the first" if spec.delta_net.ternary_gates else ""
    return (
        "no key prism.hadamard.* is there: it is the first generation of Ternary-Bonsai (not rotated), or a broken "
        f"file (of llama-quantize, say) that talks nonsense{gates}; tritpack verify against a source tells which"
    )


def doubts(file: GgufFile, spec: ModelSpec) -> Iterator[str]:
    """Yield what may be wrong with a hybrid's rotation though nothing contradicts it."""
    if spec.architecture != HYBRID:
        return
    if spec.rotation is None:
        if (doubt := generation_doubt(file, spec)) is not None:
            yield doubt
        return
    ternary = [name for name, info in file.tensors.items() if file.layout_of(info) is not None]
    for name in spec.rotation.unnamed(ternary)[:1]:
        yield f"the keys prism.hadamard.* do not name {name}, which is ternary: it is taken as not rotated, as they say"
