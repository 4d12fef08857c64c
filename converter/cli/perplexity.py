"""tritpack perplexity."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.model_options import model_options, open_model, require_logits
from tritpack.converter.cli.progress import Progress

SCHEMA = "tritpack.perplexity/1"


@click.command("perplexity")
@click.argument("file", metavar="FILE")
@click.option("--text", metavar="FILE", help="UTF-8 text to score; a built-in text by default.")
@click.option("--against", metavar="FILE", help="A second file, whose predictions FILE's are compared with.")
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
    help="Positions at the start of each window that are not scored; llama.cpp skips half of it.",
)
@model_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    file: str, text: str | None, against: str | None, window: int, skip: int, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Measure perplexity on a text, with its standard error.

    With --against it also gives the KL divergence from the second file's predictions, how often the likeliest token is
    the same, and the ratio of the two perplexities. Each window begins with the token that the tokenizer puts before a
    text (BOS), if there is one.
    """
    from tritpack.converter.verify.built_in_text import read_text
    from tritpack.formats.errors import UsageError
    from tritpack.runtime.perplexity import score, windows_of

    content = read_text(text)
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(open_model(file, **options))
        require_logits(model)
        base = None
        if against is not None:
            base = stack.enter_context(open_model(against, **options))
            require_logits(base)
            if base.spec.vocab_size != model.spec.vocab_size:
                raise UsageError(
                    f"{against} has a vocabulary of {base.spec.vocab_size}, {file} one of {model.spec.vocab_size}: "
                    "their predictions cannot be compared"
                )
        tokens = model.tokenizer.encode(content)
        bos = model.tokenizer.bos_id if tokens[:1] == [model.tokenizer.bos_id] else None
        size = min([window, model.context_length, *([] if base is None else [base.context_length])])
        windows = windows_of(tokens, size, bos)
        figures = score(model, windows, skip=skip, base=base, progress=Progress("windows", quiet=quiet))
        kernels = model.kernels()
    result = {
        "schema": SCHEMA, "file": file, "text": text, "tokens": len(tokens), "window": size, "skip": skip, **figures,
        **({"against": against} if against else {}), "kernels": kernels,
    }  # fmt: skip
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
