"""tritpack perplexity."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, as_gguf
from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.model_options import model_options
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.progress import Progress


@click.command("perplexity")
@click.argument("file", type=PATH, metavar="FILE")
@click.option(
    "--text", type=PATH, metavar="FILE", help="UTF-8 text to score, - for standard input; a built-in text by default."
)
@click.option("--against", type=PATH, metavar="FILE", help="A second file, whose predictions FILE's are compared with.")
@click.option(
    "--window",
    type=click.IntRange(2),
    default=512,
    show_default=True,
    help="Tokens per window.",
)
@click.option(
    "--skip",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Positions at the start of each window that are not scored; llama.cpp skips half of each window.",
)
@model_options
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def command(
    file: str, text: str | None, against: str | None, window: int, skip: int, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Measure perplexity on a text, with its standard error.

    With --against it also gives the KL divergence from the second file's predictions, how often the likeliest token is
    the same, and the ratio of the two perplexities. Each window begins with the token that the tokenizer puts before a
    text (BOS), if there is one.
    """
    from tritpack.converter.tools.perplexity import perplexity
    from tritpack.converter.verify.built_in_text import read_text

    read_text(text)  # report a text that cannot be read before a checkpoint is converted
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(as_gguf(file))
        base = None if against is None else stack.enter_context(as_gguf(against))
        progress = Progress("scoring", unit="windows", quiet=quiet)
        result = perplexity(path, text=text, against=base, window=window, skip=skip, progress=progress, **options)
    result["file"] = file  # not the temporary file that a checkpoint was converted to
    if against is not None:
        result["against"] = against
    if as_json:
        print_json(result)
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    def shown(key: str, form: str = "") -> str:
        value, error = result[key]["value"], result[key]["error"]
        form = form or (".4f" if value < 1e5 else ".4g")
        return f"{value:{form}} ± {error:{form}}"

    click.echo(
        f"perplexity {shown('perplexity')} over {result['perplexity']['samples']} tokens, in {result['windows']} "
        f"windows of {result['window']}"
    )
    if "kl" in result:
        percentiles = ", ".join(f"{name} % {value:.2e}" for name, value in result["kl_percentiles"].items())
        click.echo(f"against    {result['against']}: perplexity {shown('perplexity_base')}")
        click.echo(f"ln ratio   {shown('ln_ratio', '.2e')}")
        click.echo(f"KL         {shown('kl', '.2e')}, {percentiles}, largest {result['kl_max']:.2e}")
        click.echo(f"same top   {shown('same_top_p')}")
        click.echo(f"delta p    {shown('delta_p_mean', '.2e')}, rms {result['delta_p_rms']:.2e}")
