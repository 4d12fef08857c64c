"""A checkpoint's chat templates, and the token that ends a turn in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritpack.converter.vocab.json_files import read_json
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.runtime.chat import render_chat
from tritpack.runtime.tokenizer import END_OF_TURN_NAMES


def chat_templates(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Return the templates by name, verbatim; files win over tokenizer_config.json. Raises Unreadable."""
    templates: dict[str, str] = {}
    stated = settings.get("chat_template")
    if isinstance(stated, str):
        templates["default"] = stated
    for entry in stated if isinstance(stated, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("template"), str):
            templates[entry["name"]] = entry["template"]
    if (folder / "chat_template.json").is_file():  # as processors of transformers 4.x save it
        stated = read_json(folder / "chat_template.json").get("chat_template")
        if isinstance(stated, str):
            templates["default"] = stated
    files = [("default", folder / "chat_template.jinja")]
    files += [(path.stem, path) for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))]
    for name, path in files:
        if path.is_file():
            try:
                templates[name] = path.read_bytes().decode("utf-8")  # not read_text: it would change line ends
            except (OSError, UnicodeDecodeError) as exc:
                raise Unreadable(f"cannot be read as UTF-8 text ({exc})", path=path) from exc
    return templates


def end_of_turn(template: str | None, added: dict[str, int], special_tokens: Mapping[str, str]) -> int | None:
    """Return the token that the chat template writes after the assistant's words, by rendering a chat.

    added: ids, by text, of the tokens that the tokenizer recognises inside a text. special_tokens: text by name, as the
    template sees them. Returns None if there is no template or if plain text ends its turns.
    """
    if template is None:
        return None
    words = "tritpack probe answer"
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": words}]
    try:
        text = render_chat(template, chat, special_tokens=special_tokens, add_generation_prompt=False)
    except TritpackError:
        text = ""  # the template needs more than a plain chat, or jinja2 is missing: only names are left to go by
    _, answer, rest = text.partition(words)
    rest = rest.lstrip()
    ends = [content for content in added if content.strip() and rest.startswith(content)]
    if ends:
        return added[max(ends, key=len)]
    if answer:
        return None  # the template ends turns with plain text
    return next((added[name] for name in END_OF_TURN_NAMES if name in added and name in template), None)
