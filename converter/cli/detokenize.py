"""tritpack detokenize."""

from __future__ import annotations

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.main import print_json
from tritpack.converter.cli.model_options import parse_tokens, read_text_argument
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.pieces import open_tokenizer, pieces_of
from tritpack.formats.errors import UsageError


@click.command("detokenize")
@click.argument("file", type=PATH, metavar="FILE")
@click.argument("tokens", required=False, metavar="[1,2,3]")
@click.option("-f", "--tokens-file", type=PATH, metavar="FILE", help="File with the ids, - for standard input.")
@click.option("--skip-special", is_flag=True, help="Leave control tokens out, such as the one that begins a text.")
@json_option
def command(file: str, tokens: str | None, tokens_file: str | None, skip_special: bool, as_json: bool) -> None:
    """Print the text of token ids, by the tokenizer inside FILE. The ids are separated by commas or blanks.

    Example: tritpack tokenize model.gguf -p "The sea" --ids | tritpack detokenize model.gguf -
    """
    if (tokens is None) == (tokens_file is None):
        raise UsageError("give either token ids or a file of ids with -f", hint="for example: 1,2,3, or - for stdin")
    if tokens_file is not None or tokens == "-":
        ids = parse_tokens(read_text_argument(tokens_file or "-"), "the text")
    else:
        ids = parse_tokens(tokens or "", "the argument")
    with open_tokenizer(file) as tokenizer:
        text = tokenizer.decode(ids, skip_special=skip_special)
        if as_json:
            pieces = pieces_of(tokenizer, ids)
            print_json({"schema": "tritpack.detokenize/1", "text": text, "ids": ids, "pieces": pieces})
        else:
            click.echo(text)
