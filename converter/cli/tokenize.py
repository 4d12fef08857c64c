"""tritpack tokenize."""

from __future__ import annotations

from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.model_options import prompt_options, read_text_argument, take_prompts, warn_of_second_bos
from tritpack.converter.cli.parameters import json_option
from tritpack.converter.cli.pieces import open_tokenizer, pieces_of, shown_piece


@click.command("tokenize")
@click.argument("file", type=PATH, metavar="FILE")
@prompt_options("Text to tokenize.", several=True)
@click.option(
    "--chat",
    type=PATH,
    metavar="MESSAGES.json",
    help="A JSON list of {role, content}, rendered with the model's chat template; - is standard input.",
)
@click.option("--no-special", is_flag=True, help="Do not add the special tokens that the tokenizer adds to a prompt.")
@click.option("--ids", "only_ids", is_flag=True, help="Print the ids alone, as 1,2,3: one line per text.")
@json_option
def command(file: str, chat: str | None, no_special: bool, only_ids: bool, as_json: bool, **options: Any) -> None:
    """Print the tokens of a text or of a rendered chat, by the tokenizer inside FILE: the id and the piece of each.

    Example: tritpack tokenize model.gguf -p "The sea"
    """
    from tritpack.runtime.chat import chat_text, parse_messages

    texts = take_prompts(options, chat, "messages with --chat")
    with open_tokenizer(file) as tokenizer:
        result: dict[str, object] = {"schema": "tritpack.tokenize/1"}
        if chat is not None:
            texts = [chat_text(tokenizer, parse_messages(read_text_argument(chat)))]
            result["text"] = texts[0]
        ids_of_texts = [tokenizer.encode(text, add_special=chat is None and not no_special) for text in texts]
        if chat is None and not no_special:
            for ids in ids_of_texts:
                warn_of_second_bos(tokenizer, ids)
        pieces_of_texts = [pieces_of(tokenizer, ids) for ids in ids_of_texts]
    if as_json:
        rows = [{"ids": ids, "pieces": pieces} for ids, pieces in zip(ids_of_texts, pieces_of_texts, strict=True)]
        print_json({**result, **rows[0]} if len(rows) == 1 else {**result, "texts": rows})
    elif only_ids:
        for ids in ids_of_texts:
            click.echo(",".join(map(str, ids)))
    else:
        if chat is not None:
            show(texts[0], lines=True)
        for place, (ids, pieces) in enumerate(zip(ids_of_texts, pieces_of_texts, strict=True)):
            if place:
                click.echo()
            for token, piece in zip(ids, pieces, strict=True):
                click.echo(f"{token:>7}  {shown_piece(piece)}")
