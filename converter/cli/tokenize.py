"""tritpack tokenize."""

from __future__ import annotations

from typing import Any

import click

from tritpack.converter.cli.file_argument import PATH, as_gguf
from tritpack.converter.cli.main import print_json, show
from tritpack.converter.cli.model_options import prompt_options, read_text_argument, take_prompt, warn_of_second_bos
from tritpack.converter.cli.parameters import json_option


@click.command("tokenize")
@click.argument("file", type=PATH, metavar="FILE")
@prompt_options("Text to tokenize.")
@click.option(
    "--chat",
    type=PATH,
    metavar="MESSAGES.json",
    help="A JSON list of {role, content}, rendered with the model's chat template; - is standard input.",
)
@click.option("--no-special", is_flag=True, help="Do not add the special tokens that the tokenizer adds to a prompt.")
@json_option
def command(file: str, chat: str | None, no_special: bool, as_json: bool, **options: Any) -> None:
    """Print the token ids of a text or of a rendered chat, by the tokenizer inside FILE."""
    from tritpack.formats.gguf_reader import GgufFile
    from tritpack.runtime.chat import chat_text, parse_messages
    from tritpack.runtime.tokenizer import Tokenizer

    prompt = take_prompt(options, chat, "messages with --chat")
    with as_gguf(file) as path:
        tokenizer = Tokenizer.from_metadata(GgufFile(path).metadata, path)
        result: dict[str, object] = {"schema": "tritpack.tokenize/1"}
        text = ""
        if chat is None:
            ids = tokenizer.encode(prompt or "", add_special=not no_special)
            if not no_special:
                warn_of_second_bos(tokenizer, ids)
        else:
            text = chat_text(tokenizer, parse_messages(read_text_argument(chat)))
            ids = tokenizer.encode(text, add_special=False)
            result["text"] = text
    if as_json:
        print_json({**result, "ids": ids})
        return
    if chat is not None:
        show(text, lines=True)
    click.echo(",".join(map(str, ids)))
