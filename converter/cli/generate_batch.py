"""Many prompts for `tritpack generate`: from a JSONL file to JSONL."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.file_argument import input_files
from tritpack.converter.cli.main import show
from tritpack.converter.cli.model_options import read_text_argument
from tritpack.converter.cli.pieces import logprob_rows
from tritpack.converter.cli.progress import Progress
from tritpack.formats.errors import CheckFailed, TritpackError, UsageError

if TYPE_CHECKING:
    from tritpack.runtime.batch import BatchLine
    from tritpack.runtime.continuation import Generation
    from tritpack.runtime.model import Model

SCHEMA = "tritpack.generate_batch/1"


def check_batch_options(
    batch_file: str | None, others: Mapping[str, str | None], output: str | None, file: str, *, force: bool
) -> None:
    """Raise UsageError for options that contradict each other, and for an output that must not be replaced.

    others: what cannot be given with a file of prompts, by option.
    """
    from tritpack.formats.files import refuse_existing

    if batch_file is None:
        if output is not None:
            raise UsageError("-o is for the answers to --batch-file", hint="a single text is printed on stdout")
        return
    if given := [name for name, value in others.items() if value is not None]:
        raise UsageError(f"give either {given[0]} or --batch-file, not both")
    if output is not None:
        refuse_existing(Path(output), force=force, inputs=[*input_files(file), Path(batch_file)])


def generate_batch(
    model: Model, batch_file: str, output: str | None, parallel: int, *, force: bool, quiet: bool, **defaults: Any
) -> None:
    """Answer every line of a file, in the order of the lines.

    Raises an error at the end if some have no answer: CheckFailed if one failed a check, what all lines met if they met
    the same, else UsageError.
    """
    from tritpack.runtime.batch import answer_batch, parse_batch

    lines = parse_batch(read_text_argument(batch_file))
    progress = Progress("generating", unit="prompts", quiet=quiet or output is None)
    failed: dict[int, type[TritpackError]] = {}
    with _writer(output, force=force) as write:
        for place, (line, result) in enumerate(answer_batch(model, lines, parallel=parallel, **defaults), 1):
            if isinstance(result, TritpackError):
                failed[line.number] = type(result)
                show(f"line {line.number}: {result}", err=True)
            write(json.dumps(_row(model, line, result), ensure_ascii=False))
            progress("", place, len(lines))
    if failed:
        one, first = len(failed) == 1, ", ".join(map(str, list(failed)[:10]))
        raise _error_for({*failed.values()}, answered=len(failed) < len(lines))(
            f"{len(failed)} of {len(lines)} lines {'has' if one else 'have'} no answer: "
            f"line{'s' * (not one)} {first}{' ...' * (len(failed) > 10)}",
            path=batch_file,
            hint="the other lines were answered" if len(failed) < len(lines) else None,
        )


def _error_for(kinds: set[type[TritpackError]], *, answered: bool) -> type[TritpackError]:
    """The error of a batch whose lines met errors of these kinds. answered: whether other lines were answered."""
    if CheckFailed in kinds:
        return CheckFailed
    return UsageError if answered or len(kinds) > 1 else kinds.pop()


def _row(model: Model, line: BatchLine, result: Generation | TritpackError) -> dict[str, Any]:
    """A line of the output."""
    head = {"schema": SCHEMA, "line": line.number, **({} if line.id is None else {"id": line.id})}
    if isinstance(result, TritpackError):
        return {**head, "error": str(result)}
    logprobs = {"logprobs": logprob_rows(model.tokenizer, result.logprobs)} if result.logprobs else {}
    return {
        **head, "text": result.text, "ids": result.ids, "stop_reason": result.stop_reason,
        "prompt_tokens": result.prompt_tokens, **logprobs,
    }  # fmt: skip


@contextlib.contextmanager
def _writer(output: str | None, *, force: bool) -> Iterator[Callable[[str], object]]:
    """Yield what writes a line: to stdout at once, or to a file that appears when it is complete."""
    from tritpack.formats.files import atomic_output

    if output is None:
        yield click.echo
        return
    with atomic_output(Path(output), 0, force=force) as stream:
        yield lambda line: stream.write(line.encode() + b"\n")
