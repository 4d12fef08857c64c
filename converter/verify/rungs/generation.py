"""Greedy text: its tokens are the oracle's up to the first near-tie. They and the bits of the logits are the same with
every ISA of this CPU, and with one and two threads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from tritpack.converter.verify.compare.near_ties import follow_ties, searches
from tritpack.converter.verify.compare.outputs import position_errors
from tritpack.converter.verify.compare.tolerances import TEXT_LIMITS, tolerances
from tritpack.converter.verify.compare.vocabulary import CHAT
from tritpack.converter.verify.context import Context, errors_of_options
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.golden import Golden
from tritpack.converter.verify.oracle.judges import Judge
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.formats.arrays import F32
from tritpack.formats.errors import Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.chat import chat_ids
from tritpack.runtime.library import library
from tritpack.runtime.model import Model

name = "generation"
blames: Blame = "runtime"
needs: frozenset[Need] = frozenset({"model"})
options: tuple[str, ...] = ("golden", "prompt")

THREADS = (1, 2)
SLOW = ("scalar", "ssse3")
"""The kernels of these take seconds per token of a large model."""
SLOW_TOKENS = 2
"""What they generate by one. The first comes from the prompt, so from products of several vectors; the second from
those of one."""
CLOSE = 1e-4
"""Relative to the largest logit: two programs need not agree which of two tokens is likelier by less than this."""

TINY = float(np.finfo(np.float32).tiny)


def run(context: Context) -> Rung:
    """Generate from the beginning of the text, from prompts that were given or pinned, and from a chat."""
    prompts = {"text": context.text_tokens[:8]}
    with errors_of_options():
        golden = encode_golden(context.golden, context.model)
        prompts |= encode_prompts(context.options.prompt or (), context.model)
    return check_generation(context.model, context.oracle, context.judge, prompts, golden)


def encode_golden(golden: Sequence[Golden], model: Model) -> list[Golden]:
    """The same with prompts as the model's ids. Raises UsageError for prompts that it cannot take."""
    encoded = []
    for entry in golden:
        ids = entry.prompt if isinstance(entry.prompt, list) else model.tokenizer.encode(entry.prompt)
        if not ids or len(ids) + len(entry.greedy) > model.context_length:
            raise UsageError(f"--golden: {len(ids)} tokens and {len(entry.greedy)} after them do not fit the context")
        if outside := [i for i in ids if not 0 <= i < model.spec.vocab_size]:
            raise UsageError(f"--golden: token {outside[0]} lies outside the vocabulary of {model.spec.vocab_size}")
        encoded.append(Golden(ids, entry.greedy))
    return encoded


def encode_prompts(texts: Sequence[str], model: Model) -> dict[str, list[int]]:
    """Names and ids of prompts. Raises UsageError for those that the model cannot take."""
    prompts = {}
    for number, text in enumerate(texts):
        ids = model.tokenizer.encode(text)
        if not ids or len(ids) >= model.context_length:
            raise UsageError(f"--prompt: {len(ids)} tokens and those to generate do not fit the context")
        prompts[f"prompt {number}"] = ids
    return prompts


def check_generation(
    model: Model, oracle: Oracle, judge: Judge, prompts: dict[str, list[int]], golden: Sequence[Golden] = ()
) -> Rung:
    """prompts: ids by name; the ISAs are compared on `text`. A chat is added where the file has a template."""
    compares = f"greedy tokens of FILE with SOURCE by {judge.name}, and each ISA with the others"
    rung = Rung(name, blames, compares=compares)
    half = max(1, model.context_length // 2)
    prompts = {**prompts, "text": prompts["text"][:half]}
    if not model.spec.is_embedding_model:
        try:
            chat = chat_ids(model.tokenizer, CHAT)
        except Unsupported:  # a base model
            rung.notes.append("the file has no chat template, so no chat was generated")
        else:
            prompts["chat"] = chat[:half]
        _compare_tokens(rung, model, oracle, judge, prompts, golden)
    _compare_isas(rung, model, prompts["text"])
    return rung


# -- against the oracle ------------------------------------------------------------------------------------------------


def _compare_tokens(
    rung: Rung,
    model: Model,
    oracle: Oracle,
    judge: Judge,
    prompts: dict[str, list[int]],
    golden: Sequence[Golden],
) -> None:
    named = list(prompts.items()) + [
        (f"golden {index}", list(entry.prompt)) for index, entry in enumerate(golden) if isinstance(entry.prompt, list)
    ]
    pinned = [None] * len(prompts) + [entry.greedy for entry in golden]
    ours = [
        _greedy(model, ids, _count(model.file, len(ids), model.context_length) if want is None else len(want))[0]
        for (_, ids), want in zip(named, pinned)
    ]
    # One pass over everything: the judge predicts after each token that was generated.
    sequences = [[*ids, *tokens[:-1]] for (_, ids), tokens in zip(named, ours)]
    outputs = judge.outputs(sequences)
    table, equal = [], 0
    for (prompt, _), tokens, want, sequence, expected in zip(named, ours, pinned, sequences, outputs):
        before = len(rung.findings)
        tie = _first_near_tie(rung, prompt, model, oracle, sequence, tokens, expected)
        table.append({"prompt": prompt, "tokens": tokens, "first_near_tie": tie})
        equal += tie is None and len(rung.findings) == before
        if want is not None and tokens != want:
            at = next((i for i, (a, b) in enumerate(zip(tokens, want)) if a != b), 0)
            if tie is None or tie > at:
                sentence = f"{prompt}: greedy token {at} is {tokens[at]}, pinned is {want[at]}"
                rung.add(
                    Kind.PINNED_TOKEN_DIFFERS, sentence, prompt=prompt, index=at, token=tokens[at], pinned=want[at]
                )
            else:
                rung.notes.append(f"{prompt}: token {at} is not the pinned one, after a near-tie at token {tie}")
    rung.figures |= {"prompts": len(table), "prompts_equal": equal, "greedy": table}


def _first_near_tie(
    rung: Rung, prompt: str, model: Model, oracle: Oracle, sequence: list[int], tokens: list[int], expected: F32
) -> int | None:
    """The index of the first token that is not the judge's, if that is a near-tie; if it is not, add a finding.

    sequence: the prompt and all tokens but the last. expected: the judge's logits after each of them, (tokens, vocab).
    """
    first = len(sequence) - len(tokens)
    for index, token in enumerate(tokens):
        row = expected[first + index]
        best = int(row.argmax())
        if token == best:
            continue
        gap = float(row[best] - row[token]) / max(float(np.abs(row).max()), TINY)
        better = (
            f"{prompt}: greedy token {index}: FILE chooses id {token}, the oracle id {best}, whose logit is higher by "
            f"{gap:.1e} of the largest"
        )
        if gap <= CLOSE or _within_rounding(model, oracle, sequence[: first + index + 1], row):
            rung.notes.append(f"{better}: a near-tie, after which texts may differ")
            return index
        rung.add(Kind.TOKEN_DIFFERS, better, prompt=prompt, index=index, token=token, expected=best, gap=gap)
        return None
    return None


def _within_rounding(model: Model, oracle: Oracle, sequence: list[int], row: F32) -> bool:
    """Whether the judge's logits (row) after this sequence are as near to the runtime's as rounding leaves two
    programs. If their likeliest tokens differ then, these two lie within twice that distance of each other."""
    logits = model.logits(sequence)[-1]
    distance = float(np.abs(logits - row).max())
    if distance <= TEXT_LIMITS["worst_position"] * np.abs(row).max():
        return True
    # In deep models rounding explains more: as much as the reference differs, if it agrees once near-ties are followed.
    explained = float(np.abs(logits - oracle.outputs([sequence])[0][-1]).max())
    [(followed, want)], _ = follow_ties(model, oracle, [sequence])
    return distance <= 3 * explained and bool(position_errors(followed, want)[-1] <= tolerances(model)[1])


# -- every ISA ---------------------------------------------------------------------------------------------------------


def _compare_isas(rung: Rung, judged: Model, prompt: Sequence[int]) -> None:
    """Each ISA and thread count must give the tokens and the hashes of the logits (of an embedding model: the states)
    that the first one gives.

    Of a large model those of SLOW give SLOW_TOKENS with the most threads, and a note says so.
    """
    runs: dict[str, tuple[list[int], list[str]]] = {}
    kernels: set[str] = set()
    int8 = judged.spec.int8_activations
    # An ISA without kernels of its own would only repeat another one.
    isas = dict.fromkeys(kernel.isa for kernel in library().kernels() if kernel.available)
    slow = [isa for isa in SLOW if isa in isas and isa != library().best_isa() and not searches(judged.spec)]
    for isa in isas:
        for threads in THREADS[-1:] if isa in slow else THREADS:
            with Model(judged.file, threads=threads, isa=isa, int8_activations=int8) as model:
                if model.spec.is_embedding_model:
                    runs[f"{isa} x{threads}"] = [], [hashlib.sha256(model.hidden(prompt).tobytes()).hexdigest()]
                else:
                    count = _count(model.file, len(prompt), model.context_length)
                    count = min(count, SLOW_TOKENS) if isa in slow else count
                    runs[f"{isa} x{threads}"] = _greedy(model, prompt, count)
                kernels |= set(model.kernels())
    first, (tokens, digests) = max(runs.items(), key=lambda run: len(run[1][1]))  # the first of the longest
    if slow:
        rung.notes.append(
            f"the kernels of {' and '.join(slow)} take seconds per token of a model of this size, so they were run "
            f"with {THREADS[-1]} threads only, for the prompt and {SLOW_TOKENS} tokens"
        )
    for run_name, (other, other_digests) in runs.items():
        if other != tokens[: len(other)]:
            index = next(i for i, (a, b) in enumerate(zip(tokens, other)) if a != b)
            sentence = f"greedy token {index} is {other[index]} with {run_name} and {tokens[index]} with {first}"
            rung.add(Kind.ISA_DIFFERS, sentence, run=run_name, reference=first, index=index)
        elif other_digests[-1] != digests[len(other_digests) - 1]:
            sentence = f"the logits with {run_name} are not bit for bit those with {first}"
            rung.add(Kind.ISA_DIFFERS, sentence, run=run_name, reference=first)
    rung.figures |= {"runs": list(runs), "tokens": tokens, "logits_sha256": digests[-1], "kernels": sorted(kernels)}


def _count(file: GgufFile, prompt: int, context: int) -> int:
    """How many tokens to generate: a big model takes seconds per token on slow kernels."""
    return min(int(np.clip(2.5e9 // (file.size * 4), 3, 24)), context - prompt)


def _greedy(model: Model, prompt: Sequence[int], count: int) -> tuple[list[int], list[str]]:
    """`count` tokens, past stop tokens too, and the hash of the logits that the first 0, 1, .. were chosen by."""
    digest, tokens = hashlib.sha256(), []
    digests = [digest.hexdigest()]
    model.reset()
    logits = model.eval(prompt)
    for step in range(count):
        digest.update(logits.tobytes())
        digests.append(digest.hexdigest())
        tokens.append(int(logits.argmax()))
        if step < count - 1:
            logits = model.eval(tokens[-1:])
    return tokens, digests
