"""llama-perplexity of any fork: it writes the log-probabilities of a whole vocabulary into a file.

The file that --kl-divergence-base names holds, little-endian: `_logits_`, then int32 context, vocabulary and number of
chunks, then the int32 tokens, and for each position of the second half of a chunk, but for the last, one row of uint16:
a float32 step and a float32 least value, then a number per token in steps from that least value (rows are padded to an
even number of tokens).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tritpack.converter.verify.engine.answers import Answer, Run
from tritpack.converter.verify.engine.program import Deadline, EngineFailed, Program, Running
from tritpack.converter.verify.engine.server import ONE_BATCH, TOKEN_BY_TOKEN
from tritpack.formats.arrays import Bytes

MAGIC = b"_logits_"
CONTEXT = 32
LARGEST = 1 << 28


def ask_perplexity_tool(
    program: Program, arguments: Sequence[str], text: str, vocab: int, deadline: Deadline
) -> tuple[list[int], list[Run]]:
    """Return the tokens of one chunk as the tool cut them, and its predictions after those of its second half, once in
    batches of one token and once in one batch. vocab: tokens that the file has. Raises EngineFailed if neither gives
    any."""
    tokens: list[int] = []
    runs = []
    for way, batch in ((TOKEN_BY_TOKEN, 1), (ONE_BATCH, CONTEXT)):
        try:
            tokens, answers = _one_run(program, arguments, text, batch, vocab, deadline)
            runs.append(Run(way, answers, asked=len(tokens) - 1 - len(tokens) // 2))
        except EngineFailed as error:
            runs.append(Run(way, (), f"{error.message} ({error.hint})"))
            failed = error
    if not tokens:
        raise failed
    return tokens, runs


def _one_run(
    program: Program, arguments: Sequence[str], text: str, batch: int, vocab: int, deadline: Deadline
) -> tuple[list[int], list[Answer]]:
    with tempfile.TemporaryDirectory(prefix="tritpack-engine-") as name:
        folder = Path(name)
        (folder / "text.txt").write_text(text, "utf-8")
        output = folder / "logits.kld"
        options = {"-c": CONTEXT, "-b": batch, "-ub": batch, "--chunks": 1, "-f": folder / "text.txt"}
        base = ["--kl-divergence-base", str(output)]
        with Running([str(program.path), *arguments, *program.options(options), *base], folder) as running:
            status = running.wait(deadline.left)
            if status:
                raise running.ended_error()
            if not output.is_file() or not 0 < output.stat().st_size <= LARGEST:
                raise running.failed("wrote no log-probabilities")
            try:
                return _read(np.frombuffer(output.read_bytes(), np.uint8), vocab)
            except (ValueError, IndexError) as error:
                raise running.failed("wrote log-probabilities in an unknown form") from error


def _read(data: Bytes, most: int) -> tuple[list[int], list[Answer]]:
    """Return the tokens of the first chunk, and the prediction after each of its second half but the last.
    most: tokens that the vocabulary may have. Raises ValueError."""
    if data[:8].tobytes() != MAGIC:
        raise ValueError("no magic")
    context, vocab, chunks = map(int, data[8:20].view("<i4"))
    if not (2 <= context <= 1 << 20 and 1 <= vocab <= most and 1 <= chunks <= 1 << 16):
        raise ValueError("impossible sizes")
    start = 20 + 4 * context * chunks
    tokens = data[20 : 20 + 4 * context].view("<i4").tolist()
    if len(tokens) != context:
        raise ValueError("fewer tokens than it says")
    return tokens, list(_answers(data[start:], context, vocab))


def _answers(rows: Bytes, context: int, vocab: int) -> Iterator[Answer]:
    size = 2 * (4 + (vocab + 1) // 2 * 2)
    first = context // 2
    ids = np.arange(vocab)
    for index in range(context - 1 - first):
        row = rows[index * size : (index + 1) * size]
        step, least = row[:8].view("<f4")
        steps = row[8 : 8 + 2 * vocab].view("<u2")
        with np.errstate(invalid="ignore"):
            values = steps * np.float64(step) + np.float64(least)
        # A value that the tool has cut off at its smallest one says nothing.
        seen = steps > 0
        finite = bool(np.isfinite(values).all())
        likeliest = (int(values.argmax()),)
        yield Answer(first + index + 1, ids[seen] if finite else ids, values[seen] if finite else values, likeliest)
