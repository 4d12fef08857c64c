"""Whether an engine computes the model in a file: our runtime and the user's own program on the same tokens.

Engines have habits: they round activations in blocks of their own, and keys, values and more to float16. That moves
logits by a few hundredths of their spread. Another activation function, order of bytes or pairing moves them by ten
times as much. So the engine is right if its distance is that of a habit; how far activations matter at all is measured
on this file, by leaving out their rounding. If it is not, our runtime makes each known mistake, and the one that the
engine's answers are nearest to is the likely reason.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tritpack.converter.verify.built_in_text import read_text
from tritpack.converter.verify.compare.tolerances import MAX_LOGITS
from tritpack.converter.verify.engine import command_line, mistakes, perplexity_tool, server
from tritpack.converter.verify.engine.answers import (
    HABIT,
    WIDE_MARGIN,
    Comparison,
    Run,
    as_answers,
    compare,
    notes,
    telling,
    too_few,
)
from tritpack.converter.verify.engine.command_line import Choice, begins
from tritpack.converter.verify.engine.program import Deadline, EngineFailed, Program, open_program
from tritpack.converter.verify.engine.report import FILE_WRONG, OTHER_MODEL, RIGHT, EngineReport
from tritpack.formats.arrays import F32
from tritpack.formats.errors import TritpackError, Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.integrity import recorded_hashes
from tritpack.runtime.machine import usable_cores
from tritpack.runtime.model import Model

PROMPT, GENERATED = 16, 12
"""Tokens of the text that are given, and tokens that our runtime generates after them."""
TIMEOUT = 300.0
NEARER = 0.5
"""A mistake explains an engine whose answers are at most this share as far from it as from the right model."""
DOUBT = 0.03
"""Distance from which an engine that seems right is held against the mistakes too."""
CLI_POSITIONS = 192
"""Positions of the text that a program is asked at that gives text alone."""
MARGIN_PER_HABIT, LEAST_MARGIN = 7.0, 0.04
"""A token is certain if it leads by five times what two logits may differ by habit, and by so much at least."""


def verify_engine(
    file: str | Path,
    engine: str | Path,
    *,
    engine_arg: Sequence[str] = (),
    engine_timeout: float = TIMEOUT,
    text: str | Path | None = None,
    threads: int | None = None,
) -> EngineReport:
    """Compare what an engine computes from a file with what our runtime computes from it.

    engine: the path of llama-server, llama-perplexity or llama-cli of any fork. engine_arg: options for it.
    engine_timeout: seconds for all of its answers. text: to take tokens from; a built-in one by default.
    Raises UsageError for a path that is no such program, EngineFailed (exit code 4) if the engine cannot run the file
    at all, Unreadable and Unsupported for a file that we cannot run.
    """
    gguf = GgufFile(file)
    if findings := damage(gguf):
        return EngineReport(str(file), FILE_WRONG, findings=tuple(findings))
    deadline = Deadline(engine_timeout)
    program = open_program(engine, deadline.left)
    with Model(gguf, threads=threads) as model:
        model.require_logits()
        asked = _Asked(model, program, engine_arg, read_text(text), deadline, threads)
        return asked.texts() if program.kind == "cli" else asked.logits()


def damage(file: GgufFile) -> list[str]:
    """Return what is wrong with a file by itself: tensors that no layout gives, and those that are not as recorded."""
    findings = []
    recorded = {}
    try:
        recorded = recorded_hashes(file)
    except Unreadable as error:
        findings.append(error.without_path)
    for tensor in file.tensors.values():
        if problems := file.check(tensor):
            findings.append(f"tensor {tensor.name!r}: {problems[0]}")
        elif tensor.name in recorded:
            digest = hashlib.sha256(file.bytes_of(tensor).data).hexdigest()
            if digest != recorded[tensor.name].sha256:
                findings.append(f"tensor {tensor.name!r}: its bytes are not those that the file records")
        file.release(tensor)
    return findings


class _Asked:
    """One comparison under way."""

    def __init__(
        self,
        model: Model,
        program: Program,
        arguments: Sequence[str],
        text: str,
        deadline: Deadline,
        threads: int | None,
    ) -> None:
        self.model, self.program, self.text, self.deadline, self.threads = model, program, text, deadline, threads
        options = {"-t": threads or usable_cores()}
        context = ["-c", str(min(model.spec.context_length, 512))] if program.kind != "perplexity" else []
        self.arguments = ["-m", str(model.file.path.resolve()), *program.options(options), *context, *arguments]

    # -- programs that give probabilities ------------------------------------------------------------------------------

    def logits(self) -> EngineReport:
        """Compare predictions."""
        if self.program.kind == "server":
            tokens = self._sequence()
            batches = sorted({2, PROMPT // 2, PROMPT, len(tokens) - 1, len(tokens)} & set(range(2, len(tokens) + 1)))
            runs = server.ask_server(
                self.program, self.arguments, tokens, batches, self.model.spec.vocab_size, self._pieces, self.deadline
            )
        else:
            tokens, runs = perplexity_tool.ask_perplexity_tool(
                self.program, self.arguments, self.text, self.model.spec.vocab_size, self.deadline
            )
            tokens = self._with_bos_if_nearer(tokens, runs)
        return self._conclude(tokens, runs)

    def _sequence(self) -> list[int]:
        """Return tokens of the text and those that our runtime generates after them."""
        model, limit = self.model, self.model.context_length
        try:
            tokens = model.tokenizer.encode(self.text[:2000])[: min(PROMPT, limit - 1)]
        except TritpackError:  # tokens are given by id, so any will do
            rng = np.random.default_rng(0)
            tokens = [int(token) for token in rng.integers(model.spec.vocab_size, size=min(PROMPT, limit - 1))]
        model.reset()
        logits = model.eval(tokens)
        for _ in range(min(GENERATED, limit - len(tokens))):
            tokens.append(int(logits.argmax()))
            logits = model.eval(tokens[-1:])
        return tokens

    def _pieces(self) -> dict[str, list[int]]:
        """Return the tokens with each text, as servers before December 2024 write it."""
        pieces: dict[str, list[int]] = {}
        for token in range(self.model.spec.vocab_size):
            raw = self.model.tokenizer.token_bytes(token)
            lone = len(raw) == 1 and raw[0] & 0x80
            pieces.setdefault(f"byte: \\x{raw[0]:02x}" if lone else raw.decode("utf-8", "replace"), []).append(token)
        return pieces

    def _with_bos_if_nearer(self, tokens: list[int], runs: Sequence[Run]) -> list[int]:
        """Return the tokens that llama-perplexity evaluated: it may have put BOS in the place of the first."""
        bos = self.model.file.metadata.get("tokenizer.ggml.bos_token_id")
        if any(not 0 <= token < self.model.spec.vocab_size for token in tokens):
            raise EngineFailed(f"{self.program.path.name} named a token that the file does not have")
        if not isinstance(bos, int) or not 0 <= bos < self.model.spec.vocab_size:
            return tokens
        answers = [answer for run in runs for answer in run.answers]
        choices = [tokens, [bos, *tokens[1:]]]
        return min(choices, key=lambda choice: compare(answers, self.model.logits(choice)).distance)

    def _conclude(self, tokens: Sequence[int], runs: Sequence[Run]) -> EngineReport:
        ours = self.model.logits(tokens)
        if not np.isfinite(ours).all():
            return EngineReport(str(self.model.file.path), FILE_WRONG, self.program, ("its logits are not numbers",))
        habit = self._habit(tokens, ours)
        compared = {run.way: compare(run.answers, ours) for run in runs if run.answers}
        failures = {run.way: run.failure for run in runs if run.failure}
        report = EngineReport(
            str(self.model.file.path), RIGHT, self.program, runs=compared, failures=failures, habit=habit,
            notes=tuple(notes(runs)),
        )  # fmt: skip
        if not compared:
            why = "; ".join(dict.fromkeys(failures.values())) or "no answer has probabilities"
            raise EngineFailed(f"{self.program.path.name} gave no predictions: {why}")
        wrong = [run for run in runs if run.answers and not compared[run.way].same_model(habit)]
        doubtful = wrong or [run for run in runs if run.answers and compared[run.way].distance > DOUBT]
        distances = self._mistakes(tokens, doubtful[0]) if doubtful else {}
        explained = _explaining(distances, compared[doubtful[0].way], habit if wrong else 0.0) if doubtful else ()
        report = dataclasses.replace(report, mistakes=distances)
        if not wrong and not explained and (why := too_few(runs, compared)):
            raise EngineFailed(f"{self.program.path.name} gave not enough predictions: {why}")
        if not wrong and not failures and not explained:
            if not any(telling(run.answers) for run in runs):
                raise Unsupported("its predictions are so certain that the probabilities of others tell nothing of it")
            return report
        if [run.way for run in wrong] == [server.ONE_BATCH] or (failures and not wrong):
            reasons: tuple[str, ...] = (self._batch_reason(compared, failures),)
        elif compared[wrong[0].way].not_finite if wrong else False:
            reasons = ("it gives NaN",)
        else:
            reasons = explained or ("no known mistake explains its answers",)
        return dataclasses.replace(report, verdict=OTHER_MODEL, reasons=reasons)

    def _habit(self, tokens: Sequence[int], ours: F32) -> float:
        """Return how far our logits move when activations are rounded otherwise than the model says; 0 where no kernel
        does that."""
        other = not self.model.spec.int8_activations
        try:
            with Model(self.model.file, threads=self.threads, context=len(tokens), int8_activations=other) as model:
                return compare(as_answers(model.logits(tokens)), ours).distance
        except Unsupported:
            return 0.0

    def _mistakes(self, tokens: Sequence[int], run: Run) -> dict[str, float]:
        """Return the distance of the engine's answers to our runtime with each mistake."""
        distances = {}
        for mistake in mistakes.mistakes(self.model.file, self.model.spec):
            logits = mistakes.logits_with(mistake, self.model.file, tokens, self.threads)
            if logits is not None and np.isfinite(logits).all():
                distances[mistake.reason] = compare(run.answers, logits).distance
        return distances

    def _batch_reason(self, compared: dict[str, Comparison], failures: dict[str, str]) -> str:
        if failures:
            [(way, failure), *_] = failures.items()
            return f"it is right as far as it answers, and fails {way}: {failure}"
        batch = compared[server.ONE_BATCH]
        what = "gives NaN" if batch.not_finite else "computes something else"
        return f"it is right token by token, and {what} where a batch has several tokens (-b 1 -ub 1 runs it right)"

    # -- programs that give text ---------------------------------------------------------------------------------------

    def texts(self) -> EngineReport:
        """Compare the text of single tokens."""
        model, limit = self.model, min(self.model.context_length, MAX_LOGITS // self.model.spec.vocab_size)
        tokens = model.tokenizer.encode(self.text[:4000])[: min(CLI_POSITIONS, limit)]
        ours = model.logits(tokens)
        lead = float(np.clip(MARGIN_PER_HABIT * self._habit(tokens, ours), LEAST_MARGIN, WIDE_MARGIN))
        others = {}
        for mistake in mistakes.mistakes(model.file, model.spec):
            if (logits := mistakes.logits_with(mistake, model.file, tokens, self.threads)) is not None:
                others[mistake.reason] = Choice.of(logits)
        asked = command_line.questions(model.tokenizer, tokens, Choice.of(ours), others, lead)
        if not asked:
            hint = "give llama-server, which gives probabilities"
            raise Unsupported(
                "no text shows which model an engine computes from this file", path=model.file.path, hint=hint
            )
        texts = command_line.answer_all(self.program, self.arguments, asked, self.deadline)
        equal = [begins(text, question.expected) for text, question in zip(texts, asked)]
        told = {reason for question in asked for reason in question.others if question.tells(reason)}
        told_of = [f"the same token after {sum(equal)} of {len(equal)} texts; llama-server tells more"]
        told_of += [f"these texts do not show whether {reason}" for reason in others if reason not in told]
        report = EngineReport(str(model.file.path), RIGHT, self.program, notes=tuple(told_of))
        if all(equal):
            return report
        made = Counter(
            reason
            for text, question in zip(texts, asked)
            for reason, shown in question.others.items()
            if question.tells(reason) and begins(text, shown)
        )
        likely = [reason for reason, count in made.most_common() if count >= sum(not same for same in equal) / 2]
        reasons = tuple(likely) or ("no known mistake explains its text",)
        return dataclasses.replace(report, verdict=OTHER_MODEL, reasons=reasons)


def _explaining(distances: dict[str, float], comparison: Comparison, habit: float) -> tuple[str, ...]:
    """Return the reasons whose mistakes are as near to the engine as a habit, or much nearer than the right model; the
    nearest first, and none that is twice as far. habit: 0 where the engine is as near to the right model as that."""
    near = sorted((distance, reason) for reason, distance in distances.items())
    limit = max(max(HABIT, habit) if habit else 0.0, NEARER * comparison.distance)
    return tuple(reason for distance, reason in near if distance <= min(limit, 2 * near[0][0]))
