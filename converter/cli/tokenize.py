"""tritpack tokenize."""

from __future__ import annotations

from pathlib import Path

import click

from tritpack.converter.cli.file_argument import PATH, as_gguf
from tritpack.converter.cli.main import print_json
from tritpack.formats.errors import UsageError
from tritpack.formats.inputs import read_text


@click.command("tokenize")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("-p", "--prompt", help="Text to tokenize.")
@click.option(
    "--chat",
    type=PATH,
    metavar="MESSAGES.json",
    help="A JSON list of {role, content}, rendered with the model's chat template.",
)
@click.option("--no-special", is_flag=True, help="Do not add the special tokens that the tokenizer adds to a prompt.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
def command(file: str, prompt: str | None, chat: str | None, no_special: bool, as_json: bool) -> None:
    """Print the token ids of a text or of a rendered chat, by the tokenizer inside FILE."""
    from tritpack.formats.gguf_reader import GgufFile
    from tritpack.runtime.chat import chat_text, parse_messages
    from tritpack.runtime.tokenizer import Tokenizer

    if (prompt is None) == (chat is None):
        raise UsageError("give either a text with -p or messages with --chat")
    with as_gguf(file) as path:
        tokenizer = Tokenizer.from_metadata(GgufFile(path).metadata)
        result: dict[str, object] = {"schema": "tritpack.tokenize/1"}
        if chat is None:
            ids = tokenizer.encode(prompt or "", add_special=not no_special)
        else:
            text = chat_text(tokenizer, parse_messages(read_text(Path(chat))))
            ids = tokenizer.encode(text, add_special=False)
            result["text"] = text
    if as_json:
        print_json({**result, "ids": ids})
        return
    if "text" in result:
        click.echo(result["text"])
    click.echo(",".join(map(str, ids)))
