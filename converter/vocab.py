"""Tokenizer files of a checkpoint -> GGUF keys.

The `tokenizers` library reads `tokenizer.json` and is asked what it does: which id each token has, what it puts around
a text, how it cuts one. So the answers are those of the checkpoint's own tokenizer, whatever version wrote the file.
What `tokenizer.ggml.*` has no words for goes under `tritpack.tokenizer.*` (keys in runtime/tokenizer.py).
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from formats.errors import TritpackError, Unreadable, Unsupported
from runtime import tokenizer as reader
from runtime.chat import render_chat
from runtime.tokenizer import TokenType

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SPACE = "\u2581"  # sentencepiece's visible space


def read_vocabulary(folder: Path, config: dict[str, Any], generation_config: dict[str, Any]) -> dict[str, Any]:
    """GGUF metadata of the tokenizer in `folder`.

    Strings, bools and ints as such, list[str] for arrays of strings, numpy arrays (int32, float32) for the others.
    `config` and `generation_config` are the parsed JSON files ({} where absent). Raises Unreadable (files missing or
    contradictory) and Unsupported (a kind of tokenizer that is not BPE, more tokens than the model has rows).
    """
    settings = _read_json(folder / "tokenizer_config.json")
    special_map = _read_json(folder / "special_tokens_map.json")
    backend = _load(folder)
    named = {name: _named_token(name, settings, special_map) for name in _SPECIAL_NAMES}
    _add_missing(backend, folder, settings, special_map, named)
    document = json.loads(backend.to_str())
    model = document["model"]

    ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    used = max(ids.values(), default=-1) + 1
    vocab_size = _config_value(config, "vocab_size")
    vocab_size = used if vocab_size is None else int(vocab_size)
    if used > vocab_size:
        raise Unsupported(
            f"{folder / 'tokenizer.json'}: the tokenizer has {used} tokens, but config.json gives the model a "
            f"vocabulary of {vocab_size}",
            hint="the tokenizer files belong to another model, or tokens were added without resizing the embeddings",
        )
    kind = "llama" if model.get("byte_fallback") else "gpt2"
    tokens, types = _tokens_and_types(ids, document, vocab_size, kind)
    merges = [_merge_text(pair, folder) for pair in model["merges"]]
    special = {name: ids[text] for name, text in named.items() if text is not None and text in ids}
    before, after = _surroundings(backend)

    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.pre": _pre_name(backend, document) if kind == "gpt2" else "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.asarray(types, dtype=np.int32),
    }
    if kind == "gpt2":
        metadata["tokenizer.ggml.merges"] = merges
    else:
        metadata["tokenizer.ggml.scores"] = _scores(tokens, model["merges"])
        metadata[reader.KEY_MERGES] = merges
    bos = special.get("bos_token", before[0] if before else None)  # never config's: Falcon-E's points at a heading
    eos = special.get("eos_token", next(iter(_ids_of(_config_value(config, "eos_token_id"), vocab_size)), None))
    pad = special.get("pad_token", next(iter(_ids_of(_config_value(config, "pad_token_id"), vocab_size)), None))
    for name, value in (("bos", bos), ("eos", eos), ("padding", pad), ("unknown", special.get("unk_token"))):
        if value is not None:
            metadata[f"tokenizer.ggml.{name}_token_id"] = value
    metadata["tokenizer.ggml.add_bos_token"] = bool(before) and before[0] == bos
    metadata["tokenizer.ggml.add_eos_token"] = bool(after) and after[-1] == eos
    if kind == "llama" or _adds_space(document):
        metadata["tokenizer.ggml.add_space_prefix"] = _adds_space(document)

    templates = _chat_templates(folder, settings)
    if "default" in templates:
        metadata["tokenizer.chat_template"] = templates["default"]
    others = {name: text for name, text in templates.items() if name != "default"}
    if others:  # the names that gguf-py gives them
        metadata["tokenizer.chat_templates"] = list(others)
        metadata.update({f"tokenizer.chat_template.{name}": text for name, text in others.items()})
    end_of_turn = _end_of_turn(templates.get("default"), document, named)
    if end_of_turn is not None and end_of_turn != eos:
        metadata["tokenizer.ggml.eot_token_id"] = end_of_turn

    stops = {
        *_ids_of(_config_value(config, "eos_token_id"), vocab_size),
        *_ids_of(generation_config.get("eos_token_id"), vocab_size),
        *([] if end_of_turn is None else [end_of_turn]),
    }
    if not stops and eos is not None:
        stops = {eos}
    if stops:
        metadata[reader.KEY_STOP_IDS] = np.asarray(sorted(stops), dtype=np.int32)
    metadata.update(_own_keys(document))
    return metadata


def _read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; {} if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise Unreadable(f"{path}: not readable as JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise Unreadable(f"{path}: holds no JSON object")
    return value


def _load(folder: Path) -> Any:
    """The `tokenizers.Tokenizer` of `folder`, which is a BPE one."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        kinds = [name for name in ("tokenizer.model", "vocab.json", "vocab.txt") if (folder / name).is_file()]
        if kinds:
            raise Unsupported(
                f"{path}: the tokenizer comes as {' and '.join(kinds)} only; tokenizer.json is needed",
                hint="write it with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
            )
        raise Unreadable(f"{path}: there is no such file", hint="download the repository with its tokenizer files")
    kind = _read_json(path).get("model")
    kind = kind.get("type", "BPE" if "merges" in kind else None) if isinstance(kind, dict) else None
    if kind not in (None, "BPE"):
        raise Unsupported(f"{path}: the tokenizer is of kind {kind}; only BPE is supported")
    library = reader.import_tokenizers()
    try:
        backend = library.Tokenizer.from_file(str(path))
    except Exception as exc:  # the library raises bare Exception for anything it cannot take
        raise Unreadable(f"{path}: not a tokenizer that the tokenizers library can read ({exc})") from exc
    # Some repositories ship a tokenizer saved in the middle of training; transformers undoes both too.
    backend.no_truncation()
    backend.no_padding()
    return backend


def _named_token(name: str, settings: dict[str, Any], special_map: dict[str, Any]) -> str | None:
    """The text of `bos_token` and the like. A null in tokenizer_config.json counts: it says there is none."""
    value = settings[name] if name in settings else special_map.get(name)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _add_missing(
    backend: Any, folder: Path, settings: dict[str, Any], special_map: dict[str, Any], named: dict[str, str | None]
) -> None:
    """Add the tokens that only the files beside tokenizer.json know, in transformers' order: by id, then specials."""
    library = reader.import_tokenizers()
    wanted: dict[int, dict[str, Any]] = {}
    for text, token_id in _read_json(folder / "added_tokens.json").items():
        wanted[_token_id(token_id, folder / "added_tokens.json")] = {"content": text, "special": True}
    decoder = settings.get("added_tokens_decoder")
    for token_id, fields in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(fields, dict) and isinstance(fields.get("content"), str):
            wanted[_token_id(token_id, folder / "tokenizer_config.json")] = fields
    for token_id, fields in sorted(wanted.items()):
        text = fields["content"]
        if backend.token_to_id(text) is None:
            flags = {flag: bool(fields[flag]) for flag in reader.ADDED_TOKEN_DEFAULTS if flag in fields}
            token = library.AddedToken(text, special=bool(fields.get("special")), **flags)
            (backend.add_special_tokens if fields.get("special") else backend.add_tokens)([token])
        if backend.token_to_id(text) != token_id:
            raise Unreadable(
                f"{folder}: token {text!r} is number {token_id} in the files beside tokenizer.json, but number "
                f"{backend.token_to_id(text)} by tokenizer.json"
            )
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    specials = [text for text in named.values() if text is not None]
    for source in (settings, special_map):
        more = source.get("additional_special_tokens") or []
        texts = [entry.get("content") if isinstance(entry, dict) else entry for entry in more]
        specials += [text for text in texts if isinstance(text, str)]
    for text in dict.fromkeys(specials):
        if text and text not in known:
            backend.add_special_tokens([library.AddedToken(text, special=True, normalized=False)])


def _token_id(value: Any, path: Path) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as exc:
        raise Unreadable(f"{path}: {value!r} is not a token id") from exc


def _config_value(config: dict[str, Any], key: str) -> Any:
    """`key` of config.json, or of the text model inside it."""
    inner = config.get("text_config")
    return config.get(key, inner.get(key) if isinstance(inner, dict) else None)


def _ids_of(value: Any, vocab_size: int) -> list[int]:
    """An id, a list of ids or null -> the ids that exist."""
    values = value if isinstance(value, list) else [value]
    return [i for i in values if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < vocab_size]


def _tokens_and_types(
    ids: dict[str, int], document: dict[str, Any], vocab_size: int, kind: str
) -> tuple[list[str], list[int]]:
    """One text and one type for every row of the embedding; rows that no token has become [PADn]."""
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [int(TokenType.UNUSED)] * vocab_size
    for text, i in ids.items():
        is_byte = kind == "llama" and len(text) == 6 and text.startswith("<0x") and text.endswith(">")
        tokens[i], types[i] = text, int(TokenType.BYTE if is_byte else TokenType.NORMAL)
    for added in document["added_tokens"]:
        types[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
        if kind == "llama" and added["special"] and added["content"] == document["model"].get("unk_token"):
            types[added["id"]] = int(TokenType.UNKNOWN)  # llama.cpp's sentencepiece loader looks for it
    return tokens, types


def _merge_text(pair: list[str], folder: Path) -> str:
    if any(" " in half for half in pair):
        raise Unsupported(
            f"{folder / 'tokenizer.json'}: the merge {pair!r} has a space in a half, which GGUF's merges cannot write"
        )
    return " ".join(pair)


def _scores(tokens: list[str], merges: list[list[str]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Sentencepiece scores, float32 (vocab,): minus the rank of the first merge that makes the token, else 0."""
    rank: dict[str, int] = {}
    for place, (left, right) in enumerate(merges):
        rank.setdefault(left + right, place)
    return np.asarray([0.0 - rank.get(text, 0) for text in tokens], dtype=np.float32)


def _surroundings(backend: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text by itself."""
    bare: list[int] = backend.encode("a", add_special_tokens=False).ids
    full: list[int] = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(full) - len(bare) + 1):
        if bare and full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []


def _pre_name(backend: Any, document: dict[str, Any]) -> str:
    """`tokenizer.ggml.pre`: the known pre-tokenizer that cuts text as this one does, else "default"."""
    name = "default"
    if backend.pre_tokenizer is not None:
        pieces = _cut(backend)
        name = next((n for n, pre in reader.PRE_TOKENIZERS.items() if _cut(_only(pre)) == pieces), "default")
    if name == "llama-bpe" and not document["model"].get("ignore_merges"):
        # Same cut; the names differ in what else they stand for. Falcon's vocabularies begin with their specials.
        first = min((added["id"] for added in document["added_tokens"]), default=None)
        return "falcon3" if first == 0 else "smaug-bpe"
    return name


def _only(pre_tokenizer: dict[str, Any]) -> Any:
    document = {"version": "1.0", "pre_tokenizer": pre_tokenizer, "added_tokens": []}
    model = {"type": "BPE", "vocab": {}, "merges": []}
    return reader.import_tokenizers().Tokenizer.from_str(json.dumps({**document, "model": model}))


def _cut(backend: Any) -> list[list[str]]:
    """How the pre-tokenizer of `backend` cuts some awkward texts."""
    pre = backend.pre_tokenizer
    return [[piece for piece, _ in pre.pre_tokenize_str(text)] for text in _probes()]


def _probes() -> list[str]:
    """Texts on which split patterns differ: letters of many scripts, marks, digits, contractions, blanks, symbols."""
    parts = [
        *"aZsé́ßжЖαअिक्日本한عש", *"0123456789٣Ⅷ½", *" \t\n\r\u00a0\u3000", *".,!?'’\"-_()[]{}<>#$%&*+=/\\|~`^@€…—",
        "😀", "👩\u200d💻",
        "'s", "'T", "'LL", "'re", "word", "Word", "  ", "\r\n", "\n\n", "12345", "<|x|>", " the", "naïve",
    ]  # fmt: skip
    chance = random.Random(158)
    return ["", " ", "a", *("".join(chance.choices(parts, k=chance.randint(2, 24))) for _ in range(400))]


def _adds_space(document: dict[str, Any]) -> bool:
    """Whether the tokenizer puts a space before a text."""
    steps: list[dict[str, Any]] = []
    for stage, inner in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")):
        step = document.get(stage) or {}
        steps += step.get(inner, [step])
    return any(
        (step.get("type") == "Prepend" and step.get("prepend") == _SPACE)
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never")
        or (step.get("type") == "ByteLevel" and bool(step.get("add_prefix_space")))
        for step in steps
    )


def _chat_templates(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Name -> template, verbatim. Files win over tokenizer_config.json, as in transformers."""
    templates: dict[str, str] = {}
    given = settings.get("chat_template")
    if isinstance(given, str):
        templates["default"] = given
    for entry in given if isinstance(given, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("template"), str):
            templates[entry["name"]] = entry["template"]
    if (folder / "chat_template.json").is_file():  # as processors of transformers 4.x save it
        given = _read_json(folder / "chat_template.json").get("chat_template")
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


def _end_of_turn(template: str | None, document: dict[str, Any], named: dict[str, str | None]) -> int | None:
    """The token that the chat template writes after the assistant's words, found by rendering a chat."""
    if template is None:
        return None
    added = {token["content"]: int(token["id"]) for token in document["added_tokens"]}
    words = "tritpack probe answer"
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": words}]
    try:
        text = render_chat(
            template,
            chat,
            bos_token=named["bos_token"],
            eos_token=named["eos_token"],
            add_generation_prompt=False,
        )
    except TritpackError:
        text = ""  # a template that needs more than a plain chat, or no jinja2: known names have to do
    _, found, rest = text.partition(words)
    rest = rest.lstrip()
    ends = [content for content in added if content.strip() and rest.startswith(content)]
    if ends:
        return added[max(ends, key=len)]
    if found:
        return None  # the template ends turns with plain text
    return next((added[name] for name in reader.END_OF_TURN_NAMES if name in added and name in template), None)


def _own_keys(document: dict[str, Any]) -> dict[str, Any]:
    """The `tritpack.tokenizer.*` keys, compact: defaults are left out."""
    model = document["model"]
    pipeline = {part: document[part] for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder")}
    kept = {key: model[key] for key, usual in reader.MODEL_DEFAULTS.items() if model.get(key, usual) != usual}
    pipeline = {part: value for part, value in pipeline.items() if value is not None}
    flags = {}
    for added in document["added_tokens"]:
        odd = {flag: added[flag] for flag, usual in reader.ADDED_TOKEN_DEFAULTS.items() if added[flag] != usual}
        if odd:
            flags[str(added["id"])] = odd
    in_model = [added["id"] for added in document["added_tokens"] if added["content"] in model["vocab"]]
    keys: dict[str, Any] = {reader.KEY_PIPELINE: _compact({**pipeline, "model": kept})}
    if flags:
        keys[reader.KEY_ADDED_TOKENS] = _compact(flags)
    if in_model:
        keys[reader.KEY_ADDED_IN_MODEL] = np.asarray(in_model, dtype=np.int32)
    return keys


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
