"""Special and added tokens of a checkpoint, from the files that transformers 5 asks for them.

tokenizer_config.json with `added_tokens_decoder` is complete: added_tokens.json and special_tokens_map.json beside it
are of an earlier version, and ignored. Without it they count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tritpack.converter.vocab.json_files import read_json
from tritpack.formats.errors import Unreadable
from tritpack.runtime.bounded_tokenizer import AddedToken, BoundedTokenizer
from tritpack.runtime.tokenizer import SPECIAL_KEYS


@dataclasses.dataclass
class SpecialTokens:
    """What the files say of special tokens.

    named: the text of bos_token and the like, by name. tokens: these and the special tokens without a name, each a text
    or an object with flags. added: content and flags, by id, of the tokens that the files beside the tokenizer list.
    """

    named: dict[str, str]
    tokens: list[Any]
    added: dict[int, dict[str, Any]]


def read_special_tokens(
    folder: Path, defaults: Mapping[str, str], listed: Sequence[dict[str, Any]] = ()
) -> SpecialTokens:
    """Read the files in `folder`. Raises Unreadable.

    defaults: special tokens that hold unless a file names others. listed: the added tokens of tokenizer.json.
    """
    path = folder / "tokenizer_config.json"
    settings = read_json(path)
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    stated = {**defaults, **_named(settings)}
    current = isinstance(settings.get("added_tokens_decoder"), dict)
    if not current:
        old = read_json(folder / "special_tokens_map.json")
        extra = _joined(extra, old.get("extra_special_tokens")) or old.get("additional_special_tokens")
        stated |= _named(old)
    if isinstance(extra, dict):
        stated |= extra
    ordered = {name: stated[name] for name in dict.fromkeys((*SPECIAL_KEYS, *stated)) if text_of(stated.get(name))}
    special = SpecialTokens(
        {name: text for name, token in ordered.items() if (text := text_of(token)) is not None},
        [*ordered.values(), *(token for token in (extra if isinstance(extra, list) else []) if text_of(token))],
        _decoder(settings["added_tokens_decoder"], path) if current else {},
    )
    if not current:
        path = folder / "added_tokens.json"
        marks = set(map(text_of, special.tokens))
        for text, token_id in read_json(path).items():
            fields = {"content": text, "special": text in marks, "normalized": text not in marks}
            special.added[_token_id(token_id, path)] = fields
        special.added |= {token["id"]: token for token in listed}
        special.added = dict(sorted(special.added.items()))
    return special


def text_of(token: Any) -> str | None:
    """Return the text of a token, which is either a string or an object with flags."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def add_tokens(backend: BoundedTokenizer, special: SpecialTokens, path: Path, *, plain: bool) -> list[str]:
    """Add to the tokenizer what the files beside it list, with their flags, and return the texts that are new in it.

    plain: special tokens lose their flags, as in Qwen2Tokenizer. path: the file that errors name. Raises Unreadable if
    a token has another id than those files say.
    """
    in_backend = set(backend.get_added_tokens_decoder().values())
    listed = [_added_token(fields, special=bool(fields.get("special"))) for fields in special.added.values()]
    tokens = [token for token in listed if token not in in_backend]
    present = {token.content for token in [*in_backend, *tokens]}
    for named in special.tokens:
        text = text_of(named)
        if text is not None and text not in present:
            tokens.append(_added_token(named if isinstance(named, dict) else {"content": text}, special=True))
            present.add(text)
    marks = set(special.named.values())
    tokens = [token._replace(special=token.special or token.content in marks) for token in tokens]
    ids = backend.tokens_to_ids([token.content for token in tokens])  # the whole vocabulary takes long to send
    backend.add_tokens([token._asdict() for token in tokens])
    if plain:
        texts = [text for text in map(text_of, special.tokens) if text]
        backend.add_tokens([_added_token({"content": text}, special=True)._asdict() for text in texts])
    for token_id, fields in special.added.items():
        if backend.token_to_id(fields["content"]) != token_id:
            raise Unreadable(
                f"token {fields['content']!r} has id {token_id} in the files beside the tokenizer, and id "
                f"{backend.token_to_id(fields['content'])} in the tokenizer itself",
                path=path,
            )
    return [token.content for token, before in zip(tokens, ids) if before is None]


def _added_token(fields: Mapping[str, Any], *, special: bool) -> AddedToken:
    flags = {flag: bool(fields.get(flag, False)) for flag in ("single_word", "lstrip", "rstrip")}
    return AddedToken(
        fields["content"], **flags, normalized=bool(fields.get("normalized", not special)), special=special
    )


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that name a token: bos_token and the like, null included, and a model's own, such as image_token."""
    return {
        name: token
        for name, token in settings.items()
        if name in SPECIAL_KEYS or (name.endswith("_token") and text_of(token) is not None)
    }


def _joined(tokens: Any, more: Any) -> Any:
    return [*(tokens or []), *more] if isinstance(more, list) and not isinstance(tokens, dict) else more or tokens


def _decoder(decoder: Mapping[str, Any], path: Path) -> dict[int, dict[str, Any]]:
    entries = {_token_id(key, path): fields for key, fields in decoder.items()}
    for token_id, fields in entries.items():
        if not isinstance(fields, dict) or not isinstance(fields.get("content"), str):
            raise Unreadable(f"added_tokens_decoder: token {token_id} has no text under 'content'", path=path)
    return dict(sorted(entries.items()))


def _token_id(value: Any, path: Path) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise Unreadable(f"{str(value)[:40]!r} is not a token id", path=path) from exc
