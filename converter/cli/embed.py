"""tritpack embed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from converter.cli.main import print_json
from converter.cli.running import model_options, open_model, parse_tokens
from formats.errors import UsageError


@click.command("embed")
@click.argument("file", metavar="FILE")
@click.option("-p", "--prompt", help="Text; the specials of the tokenizer, and the model's end token, are added.")
@click.option("--tokens", metavar="1,2,3", help="Token ids, used as given.")
@click.option("-o", "--output", required=True, metavar="OUT.npy", help="File to write: float32 (hidden,).")
@click.option(
    "--pooling",
    type=click.Choice(["last", "mean", "cls"]),
    help="How positions become one vector; the model's own by default.",
)
@click.option("--no-normalize", is_flag=True, help="Leave the vector's length as it is; 1 by default.")
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def command(
    file: str,
    prompt: str | None,
    tokens: str | None,
    output: str,
    pooling: str | None,
    no_normalize: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the embedding of a text: the hidden states after the final norm, pooled and scaled to length 1.

    Example: tritpack embed model.gguf -p "The sea" -o sea.npy
    """
    import numpy as np

    from formats.gguf_file import atomic_output, refuse_existing
    from runtime.embedding import embed, text_ids

    if (prompt is None) == (tokens is None):
        raise UsageError("give a text with -p, or token ids with --tokens")
    target = Path(output)
    refuse_existing(target, force=force)
    with open_model(file, **options) as model:
        ids = parse_tokens(tokens) if tokens is not None else text_ids(model, prompt or "")
        vector = embed(model, ids, pooling=pooling, normalize=not no_normalize)
        kernels = model.kernels()
    with atomic_output(target, vector.nbytes, force=force) as stream:
        np.save(stream, vector)
    if as_json:
        print_json(
            {
                "schema": "tritpack.embed/1",
                "output": output,
                "shape": list(vector.shape),
                "ids": ids,
                "kernels": kernels,
            }
        )
    else:
        click.echo(f"wrote {output}: float32 {vector.shape[0]}, from {len(ids)} tokens")
