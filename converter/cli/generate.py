"""tritpack generate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.generate_batch import check_batch_options, generate_batch
from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.model_options import (
    TOKENS,
    draft_options,
    model_options,
    no_mmap_option,
    open_model,
    parse_tokens,
    prompt_cache_option,
    prompt_options,
    take_prompt,
    warn_of_second_bos,
)
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.pieces import logprob_line, logprob_rows
from tritpack.converter.cli.sampling_options import (
    grammar_options,
    sampling_options,
    take_grammar,
    take_sampling,
    with_defaults,
)
from tritpack.converter.version import VERSION
from tritpack.formats.files import refuse_existing
from tritpack.formats.printable import printable

if TYPE_CHECKING:
    from tritpack.runtime.continuation import Generation, Request
    from tritpack.runtime.model import Model


@click.command("generate")
@click.argument("file", type=PATH, metavar="FILE")
@prompt_options("Text to continue.")
@click.option("--tokens", metavar="1,2,3", help="Token ids to continue, used as given.")
@click.option("--chat", is_flag=True, help="The prompt is a user's message, for the model's own chat template.")
@click.option("--system", metavar="TEXT", help="System message before the user's; implies --chat.")
@click.option(
    "-n", "--max-tokens", type=int, default=64, show_default=True, help="Most tokens to write; -1 is no limit."
)
@click.option("--no-special", is_flag=True, help="Do not add the special tokens that the tokenizer adds to a prompt.")
@click.option("--stop", metavar="TEXT", multiple=True, help="Text that ends the answer. Repeat it for several.")
@click.option(
    "--logprobs",
    type=click.IntRange(0, 100),
    metavar="N",
    help="Show the log-probability of each token, and the N likeliest tokens in its place.",
)
@grammar_options
@sampling_options
@click.option(
    "--batch-file",
    type=PATH,
    metavar="PROMPTS.jsonl",
    help="Answer many prompts side by side. A line has `prompt` or `messages`, and any of these for itself: id, "
    "system, max_tokens, temp, top_k, top_p, min_p, repeat_penalty, seed, stop, logprobs, json_schema, grammar.",
)
@click.option("--parallel", type=click.IntRange(1, 64), default=8, show_default=True, help="Prompts answered at once.")
@click.option("-o", "--output", type=PATH, metavar="OUT.jsonl", help="File for the answers; else standard output.")
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@prompt_cache_option
@draft_options
@no_mmap_option
@model_options
@click.option("-q", "--quiet", is_flag=True, help="Print the new text alone.")
@json_option
def command(
    file: str,
    tokens: str | None,
    chat: bool,
    system: str | None,
    no_special: bool,
    prompt_cache: str | None,
    batch_file: str | None,
    parallel: int,
    output: str | None,
    force: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Continue a prompt with the model in FILE (a GGUF, one in a bundle, or a checkpoint folder).

    Example: tritpack generate model.gguf -p "Once upon a time" -n 64 --temp 0

    With --chat it answers a question: tritpack generate model.gguf --chat -p "Why is the sky blue?"
    """
    check_batch_options(batch_file, {"--tokens": tokens, "--prompt-cache": prompt_cache}, output, file, force=force)
    prompt = take_prompt(options, batch_file or tokens, f"{TOKENS}, or many prompts with --batch-file")
    sampling, constraint = take_sampling(options), take_grammar(options)
    wanted = {name: options.pop(name) for name in ("max_tokens", "stop", "logprobs")}
    wanted |= {"chat": chat, "system": system, "no_special": no_special, **constraint}
    with open_model(file, **options) as model:
        from tritpack.runtime.generate import collect, stream_tokens
        from tritpack.runtime.request_options import make_request

        model.require_logits()
        resolved = with_defaults(model, sampling, quiet=as_json or quiet)
        if batch_file is not None:
            generate_batch(model, batch_file, output, parallel, force=force, quiet=quiet, **wanted, **sampling)
            return
        ids = None if tokens is None else parse_tokens(tokens)
        request = make_request(model, prompt, tokens=ids, **wanted, **sampling)
        is_text = tokens is None and not chat and system is None
        if is_text and not no_special:
            warn_of_second_bos(model.tokenizer, list(request.prompt))
        with _cached(model, prompt_cache, request):
            if is_text and not as_json and not quiet:
                click.echo(printable(prompt or "", lines=True), nl=False)
            result = collect(stream_tokens(model, model.tokenizer, request), None if as_json else _show)
            if not as_json:
                click.echo()  # before an error of the cache, which is written at the end of this block
        if as_json:
            print_json(_document(model, request, result, resolved))
            return
        for row in result.logprobs:
            click.echo(logprob_line(model.tokenizer, row))
    if not quiet:
        click.echo(
            f"{len(result.ids)} tokens, {result.tokens_per_second:.1f} tokens/s "
            f"(prompt {result.prompt_tokens_per_second:.1f}), stop reason: {result.stop_reason}{guesses(result)}",
            err=True,
        )


@contextlib.contextmanager
def _cached(model: Model, path: str | None, request: Request) -> Iterator[None]:
    """Load what a file has of the prompt, and afterwards write the prompt's tokens to it, unless it has them all.

    The last token is evaluated each time, and recurrent layers cannot go back to before it: the file is without it.
    Without tokens to write (-n 0) the prompt is evaluated for the file alone.
    """
    if path is None:
        yield
        return
    from tritpack.runtime.continuation import checked_prompt
    from tritpack.runtime.generate import common_prefix
    from tritpack.runtime.prompt_cache import load_prompt_cache, save_prompt_cache

    refuse_existing(Path(path), force=True)  # what cannot be written is said before the model has worked
    load_prompt_cache(model, Path(path), version=VERSION)
    prompt = checked_prompt(request, model.tokenizer, model.context_length)[:-1]
    known = common_prefix(model.tokens, prompt)
    yield
    if known == len(prompt):
        return
    if (evaluated := common_prefix(model.tokens, prompt)) < len(prompt):
        model.rewind(evaluated)
        model.append(prompt[evaluated:])
    save_prompt_cache(model, Path(path), version=VERSION, positions=len(prompt))


def guesses(result: Generation) -> str:
    """Return how many guessed tokens were right and what that gained, in words; "" if nothing was guessed."""
    if not result.drafted:
        return ""
    gain = f", {result.gain:.2f} times as fast as without" if result.gain else ""
    return f"; {result.accepted} of {result.drafted} guessed tokens were right{gain}"


def _show(text: str) -> None:
    click.echo(text, nl=False)


def _document(model: Model, request: Request, result: Generation, sampling: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a result."""
    logprobs = {"logprobs": logprob_rows(model.tokenizer, result.logprobs)} if result.logprobs else {}
    return {
        "schema": "tritpack.generate/1",
        "text": result.text,
        "ids": result.ids,
        "prompt_ids": list(request.prompt),
        "sampling": sampling,
        "stop_reason": result.stop_reason,
        **logprobs,
        "tokens_per_second": result.tokens_per_second,
        "prompt_tokens_per_second": result.prompt_tokens_per_second,
        "guessed_tokens": result.drafted,
        "right_guesses": result.accepted,
        "gain_of_guesses": result.gain,
        "kernels": model.kernels(),
    }
