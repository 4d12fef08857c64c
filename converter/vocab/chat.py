"""A checkpoint's chat templates, and the token with which they end a turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tritpack.converter.vocab.files import read_json
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.runtime.chat import render_chat
from tritpack.runtime.tokenizer import END_OF_TURN_NAMES


def chat_templates(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Name -> template, verbatim. Files win over tokenizer_config.json, as in transformers."""
    templates: dict[str, str] = {}
    given = settings.get("chat_template")
    if isinstance(given, str):
        templates["default"] = given
    for entry in given if isinstance(given, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("template"), str):
            templates[entry["name"]] = entry["template"]
    if (folder / "chat_template.json").is_file():  # as processors of transformers 4.x save it
        given = read_json(folder / "chat_template.json").get("chat_template")
        if isinstance(given, str):
            templates["default"] = given
    files = [("default", folder / "chat_template.jinja")]
    files += [(path.stem, path) for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))]
    for name, path in files:
        if path.is_file():
            try:
                templates[name] = path.read_bytes().decode("utf-8")  # not read_text: it would change line ends
            except (OSError, UnicodeDecodeError) as exc:
                raise Unreadable(f"{path}: not readable as UTF-8 text ({exc})") from exc
    return templates


def end_of_turn(
    template: str | None, added: dict[str, int], bos_token: str | None, eos_token: str | None
) -> int | None:
    """The token that the chat template writes after the assistant's words, found by rendering a chat.

    `added`: text -> id of the tokens that are found inside a text.
    """
    if template is None:
        return None
    words = "tritpack probe answer"
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": words}]
    try:
        text = render_chat(template, chat, bos_token=bos_token, eos_token=eos_token, add_generation_prompt=False)
    except TritpackError:
        text = ""  # a template that needs more than a plain chat, or no jinja2: known names have to do
    _, found, rest = text.partition(words)
    rest = rest.lstrip()
    ends = [content for content in added if content.strip() and rest.startswith(content)]
    if ends:
        return added[max(ends, key=len)]
    if found:
        return None  # the template ends turns with plain text
    return next((added[name] for name in END_OF_TURN_NAMES if name in added and name in template), None)
