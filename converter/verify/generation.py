"""Rung 6: greedy text and its logits (of an embedding model: the hidden states) are the same bits with every ISA of
this CPU and with one and two threads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from converter.verify.rung import Rung
from formats.gguf_file import GgufFile
from runtime.library import library
from runtime.model import Model

THREADS = (1, 2)


def check_generation(file: GgufFile, prompt: Sequence[int]) -> Rung:
    """Every combination must give the tokens and the logits' hash of the first."""
    rung = Rung("generation")
    runs: dict[str, tuple[list[int], str]] = {}
    kernels: set[str] = set()
    # An ISA without kernels of its own (ssse3, say) would only run another one's again.
    for isa in dict.fromkeys(kernel.isa for kernel in library().kernels() if kernel.available):
        for threads in THREADS:
            with Model(file, threads=threads, isa=isa) as model:
                runs[f"{isa} x{threads}"] = _greedy(model, prompt)
                kernels |= set(model.kernels())
    first, (tokens, digest) = next(iter(runs.items()))
    for name, (other, other_digest) in runs.items():
        if other != tokens:
            index = next(i for i, (a, b) in enumerate(zip(tokens, other)) if a != b)
            rung.findings.append(f"greedy token {index} is {other[index]} with {name} and {tokens[index]} with {first}")
        elif other_digest != digest:
            rung.findings.append(f"the logits with {name} are not bit for bit those with {first}")
    rung.figures |= {"runs": list(runs), "tokens": tokens, "logits_sha256": digest, "kernels": sorted(kernels)}
    return rung


def _greedy(model: Model, prompt: Sequence[int]) -> tuple[list[int], str]:
    # A big model on the scalar kernels takes seconds a token: enough tokens to be telling, few enough to wait for.
    count = int(np.clip(2.5e9 // (model.file.size * 4), 3, 24))
    prompt = prompt[: max(1, model.context_length // 2)]
    if model.spec.is_embedding_model:
        return [], hashlib.sha256(model.hidden(prompt).tobytes()).hexdigest()
    count = min(count, model.context_length - len(prompt))
    digest, tokens = hashlib.sha256(), []
    model.reset()
    logits = model.eval(prompt)
    for _ in range(count):
        digest.update(logits.tobytes())
        tokens.append(int(logits.argmax()))
        logits = model.eval(tokens[-1:])
    return tokens, digest.hexdigest()
