"""Rung 6: greedy text. The tokens are the oracle's up to the first near-tie, and the same, bits of the logits included,
with every ISA of this CPU and with one and two threads."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.comparison import position_errors
from tritpack.converter.verify.oracle.judges import Judge
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import PINNED, Rung
from tritpack.converter.verify.rungs.logits import LIMITS, follow_ties, tolerances
from tritpack.converter.verify.rungs.tokenizer import CHATS
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.chat import chat_ids
from tritpack.runtime.library import library
from tritpack.runtime.model import Model

F32 = npt.NDArray[np.float32]
THREADS = (1, 2)
CLOSE = 1e-4
"""Of the largest logit: no two programs need agree on which of two tokens is the likelier by less."""


@dataclasses.dataclass(frozen=True)
class Golden:
    """Greedy tokens that somebody pinned for a prompt, which is text or ids."""

    prompt: str | list[int]
    greedy: list[int]


def parse_golden(path: Path) -> list[Golden]:
    """A JSON list of {"prompt": text or "tokens": ids, "greedy": ids}. Raises Unreadable."""
    try:
        entries = json.loads(path.read_text("utf-8"))
        golden = [
            Golden(
                [int(i) for i in entry["tokens"]] if "tokens" in entry else str(entry["prompt"]),
                [int(i) for i in entry["greedy"]],
            )
            for entry in entries
        ]
        if not all(each.prompt and each.greedy for each in golden):
            raise ValueError("a prompt or its tokens are empty")
        return golden
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(
            f"{path}: is no list of golden tokens: {type(error).__name__} {error}",
            hint='expected [{"prompt": "Once", "greedy": [1, 2, 3]}, ...], or "tokens" in place of "prompt"',
        ) from error


def golden_of(pinned: Sequence[Golden], model: Model) -> list[Golden]:
    """Prompts as the model's ids. Raises UsageError for what it cannot take."""
    found = []
    for each in pinned:
        ids = each.prompt if isinstance(each.prompt, list) else model.tokenizer.encode(each.prompt)
        if not ids or len(ids) + len(each.greedy) > model.context_length:
            raise UsageError(f"--golden: {len(ids)} tokens and {len(each.greedy)} behind them do not fit the context")
        if outside := [i for i in ids if not 0 <= i < model.spec.vocab_size]:
            raise UsageError(f"--golden: token {outside[0]} lies outside the vocabulary of {model.spec.vocab_size}")
        found.append(Golden(ids, each.greedy))
    return found


def prompts_of(texts: Sequence[str], model: Model) -> dict[str, list[int]]:
    """Names and ids of prompts that were given as texts. Raises UsageError for what the model cannot take."""
    found = {}
    for number, text in enumerate(texts):
        ids = model.tokenizer.encode(text)
        if not ids or len(ids) >= model.context_length:
            raise UsageError(f"--prompt: {len(ids)} tokens and what is to follow do not fit the context")
        found[f"prompt {number}"] = ids
    return found


def check_generation(
    model: Model, oracle: Oracle, judge: Judge, prompts: dict[str, list[int]], golden: Sequence[Golden] = ()
) -> Rung:
    """prompts: ids by name, `text` (the first tokens of one) among them, with which the ISAs are compared; a chat comes
    to them where the file has a template."""
    rung = Rung(
        "generation", compares=f"greedy tokens of FILE with SOURCE by {judge.name}, and each ISA with the others"
    )
    half = max(1, model.context_length // 2)
    prompts = {**prompts, "text": prompts["text"][:half]}
    if not model.spec.is_embedding_model:
        try:
            chat = chat_ids(model.tokenizer, CHATS[0])
        except Unsupported:  # a base model
            rung.notes.append("the file has no chat template, so no chat was generated")
        else:
            prompts["chat"] = chat[:half]
        _compare_tokens(rung, model, oracle, judge, prompts, golden)
    _compare_isas(rung, model.file, prompts["text"])
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
        (f"golden {index}", list(each.prompt)) for index, each in enumerate(golden) if isinstance(each.prompt, list)
    ]
    pinned = [None] * len(prompts) + [each.greedy for each in golden]
    ours = [
        _greedy(model, ids, _count(model.file, len(ids), model.context_length) if want is None else len(want))[0]
        for (_, ids), want in zip(named, pinned)
    ]
    # One pass over everything: the oracle is asked what it says behind each token that was written.
    sequences = [[*ids, *tokens[:-1]] for (_, ids), tokens in zip(named, ours)]
    outputs = judge.outputs(sequences)
    table, equal = [], 0
    for (name, _), tokens, want, sequence, expected in zip(named, ours, pinned, sequences, outputs):
        before = len(rung.findings)
        tie = _first_difference(rung, name, model, oracle, sequence, tokens, expected)
        table.append({"prompt": name, "tokens": tokens, "first_near_tie": tie})
        equal += tie is None and len(rung.findings) == before
        if want is not None and tokens != want:
            at = next((i for i, (a, b) in enumerate(zip(tokens, want)) if a != b), 0)
            if tie is None or tie > at:
                rung.findings.append(f"{name}: greedy token {at} is {tokens[at]}, {PINNED} {want[at]}")
            else:
                rung.notes.append(f"{name}: token {at} is not the pinned one, behind a near-tie at token {tie}")
    rung.figures |= {"prompts": len(table), "prompts_equal": equal, "greedy": table}


def _first_difference(
    rung: Rung, name: str, model: Model, oracle: Oracle, sequence: list[int], tokens: list[int], expected: F32
) -> int | None:
    """The index of the first token that is not the judge's, if that is a near-tie; a finding if it is none.

    sequence: the prompt and all tokens but the last; expected: what the judge says behind each of it."""
    first = len(sequence) - len(tokens)
    for index, token in enumerate(tokens):
        row = expected[first + index]
        best = int(row.argmax())
        if token == best:
            continue
        gap, largest = float(row[best] - row[token]), float(np.abs(row).max())
        better = f"{name}: greedy token {index} is {token}, the oracle's {best} stands {gap / largest:.1e} higher"
        if gap <= CLOSE * largest or _within_rounding(model, oracle, sequence[: first + index + 1], row):
            rung.notes.append(f"{better}: a near-tie, after which texts may part")
            return index
        rung.findings.append(better)
        return None
    return None


def _within_rounding(model: Model, oracle: Oracle, sequence: list[int], row: F32) -> bool:
    """Whether the judge (row) is no further from the runtime behind this sequence than rounding brings two programs
    apart. If their likeliest tokens differ then, these lie within twice that of each other."""
    mine = model.logits(sequence)[-1]
    apart = float(np.abs(mine - row).max())
    if apart <= LIMITS["worst_position"] * np.abs(row).max():
        return True
    # Deep models are further apart: then as far as the reference is, which agrees once near-ties are followed.
    rounding = float(np.abs(mine - oracle.outputs([sequence])[0][-1]).max())
    [(found, want)], _ = follow_ties(model, oracle, [sequence])
    return apart <= 3 * rounding and bool(position_errors(found, want)[-1] <= tolerances(model)[1])


# -- every ISA ---------------------------------------------------------------------------------------------------------


def _compare_isas(rung: Rung, file: GgufFile, prompt: Sequence[int]) -> None:
    """Every combination must give the tokens and the logits' hash of the first (of an embedding model: the states')."""
    runs: dict[str, tuple[list[int], str]] = {}
    kernels: set[str] = set()
    # An ISA without kernels of its own would only run another one's again.
    for isa in dict.fromkeys(kernel.isa for kernel in library().kernels() if kernel.available):
        for threads in THREADS:
            with Model(file, threads=threads, isa=isa) as model:
                if model.spec.is_embedding_model:
                    runs[f"{isa} x{threads}"] = [], hashlib.sha256(model.hidden(prompt).tobytes()).hexdigest()
                else:
                    count = _count(file, len(prompt), model.context_length)
                    runs[f"{isa} x{threads}"] = _greedy(model, prompt, count)
                kernels |= set(model.kernels())
    first, (tokens, digest) = next(iter(runs.items()))
    for name, (other, other_digest) in runs.items():
        if other != tokens:
            index = next(i for i, (a, b) in enumerate(zip(tokens, other)) if a != b)
            rung.findings.append(f"greedy token {index} is {other[index]} with {name} and {tokens[index]} with {first}")
        elif other_digest != digest:
            rung.findings.append(f"the logits with {name} are not bit for bit those with {first}")
    figures: dict[str, Any] = {
        "runs": list(runs),
        "tokens": tokens,
        "logits_sha256": digest,
        "kernels": sorted(kernels),
    }
    rung.figures |= figures


def _count(file: GgufFile, prompt: int, context: int) -> int:
    # A big model on the scalar kernels takes seconds a token: enough tokens to be telling, few enough to wait for.
    return min(int(np.clip(2.5e9 // (file.size * 4), 3, 24)), context - prompt)


def _greedy(model: Model, prompt: Sequence[int], count: int) -> tuple[list[int], str]:
    """So many tokens, stop tokens or not, and the hash of the logits they were chosen by."""
    digest, tokens = hashlib.sha256(), []
    model.reset()
    logits = model.eval(prompt)
    for step in range(count):
        digest.update(logits.tobytes())
        tokens.append(int(logits.argmax()))
        if step < count - 1:
            logits = model.eval(tokens[-1:])
    return tokens, digest.hexdigest()
