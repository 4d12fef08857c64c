"""What a runtime computes otherwise than the model that is exported to it: said before anything is written."""

from __future__ import annotations

from tritpack.converter.families.family import Family
from tritpack.formats.model_spec import ModelSpec

IN_VLLM = ("LlamaForCausalLM", "Qwen3ForCausalLM", "Gemma3ForCausalLM", "MiniCPMForCausalLM")
"""Classes of exported checkpoints that vLLM implements itself, by the list of models in its source."""


def differences(spec: ModelSpec, family: Family, to: str) -> list[str]:
    """Return one sentence for everything that the reader of an export should know of its runtime."""
    if to == "compressed-tensors":
        return [*_activations(spec, "vLLM and compressed-tensors"), *_vllm(family)]
    if to == "onnx":
        return [*_activations(spec, "the graphs"), *_graphs(spec)]
    return []


def _activations(spec: ModelSpec, runtime: str) -> list[str]:
    if not spec.int8_activations:
        return []
    return [
        f"the model rounds the inputs of its linears to int8 for each token, and {runtime} keep them as floats: "
        "codes and scales are the model's, results differ by that rounding"
    ]


def _vllm(family: Family) -> list[str]:
    name = family.transformers_class
    own = f"vLLM has a class {name}" if name in IN_VLLM else f"vLLM has no class {name} of its own (transformers has)"
    return [f"vLLM was not run here: {own}, and versions that take only 4 and 8 bits refuse these weights"]


def _graphs(spec: ModelSpec) -> list[str]:
    said = [
        "each graph is the matrix product of one linear and no more: norms, attention, activation and tables stay out"
    ]
    if spec.projection_norms:
        said.append("the norm in front of each projection is not in its graph either: apply it to the input")
    said.append("versions of ONNX Runtime that take only 4 and 8 bits refuse these graphs (1.32 was tried, on a CPU)")
    return said
