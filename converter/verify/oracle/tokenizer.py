"""A second reader of a checkpoint's tokenizer, by the rules of transformers 5, and transformers itself.

It shares no code with the converter's reader. It writes one tokenizer.json document and lets the `tokenizers` library
load that, in another process with limits, whereas the converter changes a loaded tokenizer step by step.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tritpack.converter.verify.oracle.tokenizer_rules import Rules, rules_of
from tritpack.formats.errors import MissingRequirement, Unreadable, Unsupported
from tritpack.formats.inputs import read_input, read_text
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer

FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
ORDER = [f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]
"""In which transformers adds special tokens that the vocabulary lacks."""
Chat = Sequence[Mapping[str, str]]


class TokenizerOracle(Protocol):
    """The tokenizer of SOURCE."""

    name: str
    specials: list[str]
    """The texts of its added tokens, by id."""
    special_tokens: dict[str, str]
    """The text of bos_token and the like, by name."""
    template: str | None

    def ids(self, texts: Sequence[str], add_special: bool) -> list[list[int]]:
        """Token ids of each text, with or without what the tokenizer puts around it."""

    def chat(self, messages: Chat) -> str | None:
        """The text of a chat; None if a caller has to render `template` with `special_tokens`."""


class FolderTokenizer:
    """tokenizer.json of a folder, or vocab.json and merges.txt, with what its other files change, by our own reading.

    Raises Unreadable for files that are missing or contradictory.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], vocab_size: int) -> None:
        path = folder / ("tokenizer.json" if (folder / "tokenizer.json").is_file() else "vocab.json")
        settings = json_object(folder / "tokenizer_config.json")
        document = json_object(path) if path.name == "tokenizer.json" else _from_vocab_and_merges(folder)
        rules = rules_of(document, settings, config)
        if path.name == "vocab.json" and not rules.rebuilds:
            raise Unreadable("its class is unknown, which would say how text is split", path=path)
        listed = {int(token["id"]): dict(token) for token in document.get("added_tokens", ())}
        names, flags, wanted = stated_tokens(folder, settings, rules.names, listed)
        self.special_tokens = texts_by_name(names)
        table = added_tokens(document["model"]["vocab"], {} if rules.rebuilds else listed, flags, wanted, rules)
        named = set(self.special_tokens.values())
        for token in table.values():
            token["special"] = bool(token["special"]) or token["content"] in named
        made = rules.applied(document)
        made["added_tokens"] = [table[i] for i in sorted(table) if i < vocab_size]
        made["truncation"] = made["padding"] = None
        try:
            self._backend = BoundedTokenizer(json.dumps(made), path)
        except ValueError as error:
            raise Unreadable(f"it is not a tokenizer: {error}", path=path) from error
        self._backend.encode_special_tokens = bool(settings.get("split_special_tokens"))
        self._around: tuple[list[int], list[int]] = ([], [])  # what only the settings put around a text
        if path.name == "vocab.json":
            self._around = around(settings, self.special_tokens, self._backend.token_to_id, bos=False)
        self.name: str = path.name if rules.name is None else f"{path.name} by {rules.name}"
        self.specials = [token["content"] for token in made["added_tokens"]]
        self.template = template_of(folder, settings)

    def ids(self, texts: Sequence[str], add_special: bool) -> list[list[int]]:
        before, after = self._around if add_special else ([], [])
        return [[*before, *encoding.ids, *after] for encoding in self._backend.encode_batch(texts, add_special)]

    def chat(self, messages: Chat) -> str | None:
        return None


def _from_vocab_and_merges(folder: Path) -> dict[str, Any]:
    """What of a tokenizer.json vocab.json and merges.txt hold."""
    lines = read_text(folder / "merges.txt").split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    return {"version": "1.0", "model": {"type": "BPE", "vocab": json_object(folder / "vocab.json"), "merges": merges}}


def stated_tokens(
    folder: Path, settings: Mapping[str, Any], defaults: Mapping[str, Any], listed: Mapping[int, dict[str, Any]]
) -> tuple[dict[str, Any], dict[int, dict[str, Any]], list[Any]]:
    """What the files beside a tokenizer say of tokens: those with a name, flags by id, and all that are special.

    defaults: names that hold unless a file says otherwise. listed: the added tokens of tokenizer.json.
    """
    names = {**defaults, **_names(settings)}
    flags: dict[int, dict[str, Any]] = {}
    if isinstance(settings.get("added_tokens_decoder"), dict):
        extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
        flags = {int(key): value for key, value in settings["added_tokens_decoder"].items()}
    else:
        older = json_object(folder / "special_tokens_map.json")
        names |= _names(older)
        extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
        extra = extra or older.get("extra_special_tokens") or older.get("additional_special_tokens") or []
        marks = {_text(token) for token in [*names.values(), *(extra if isinstance(extra, list) else [])]}
        for word, token_id in json_object(folder / "added_tokens.json").items():
            flags[int(token_id)] = {"content": word, "special": word in marks, "normalized": word not in marks}
        flags |= listed
    if isinstance(extra, dict):
        names |= extra
    names = {name: names[name] for name in dict.fromkeys([*ORDER, *names]) if name in names}
    return names, flags, [*names.values(), *(extra if isinstance(extra, list) else [])]


def texts_by_name(names: Mapping[str, Any]) -> dict[str, str]:
    """The text of each named token."""
    return {name: text for name, token in names.items() if (text := _text(token)) is not None}


def around(
    settings: Mapping[str, Any], names: Mapping[str, str], id_of: Callable[[str], int | None], *, bos: bool
) -> tuple[list[int], list[int]]:
    """The ids that the settings put before and after a text. bos: whether a BOS is usual."""
    sides: list[list[int]] = []
    for key, name, usual in (("add_bos_token", "bos_token", bos), ("add_eos_token", "eos_token", False)):
        token_id = id_of(names[name]) if settings.get(key, usual) and name in names else None
        sides.append([] if token_id is None else [token_id])
    return sides[0], sides[1]


class Transformers:
    """AutoTokenizer of the installed transformers (extra `oracles`).

    Raises MissingRequirement if it is not installed, Unsupported for a tokenizer that it cannot load.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            library = importlib.import_module("transformers")
        except ImportError as error:
            raise MissingRequirement(
                f"--oracle transformers needs {error.name}, which is not installed",
                hint="pip install tritpack[oracles]",
            ) from error
        library.utils.logging.set_verbosity_error()
        load = library.AutoTokenizer.from_pretrained
        about = {"local_files_only": True, "trust_remote_code": False}
        try:
            try:
                self._tokenizer: Any = load(folder, **about)
            except (
                AttributeError
            ):  # a config.json that it cannot read; of that file, the class depends on two keys only
                known = library.PretrainedConfig(tokenizer_class=config.get("tokenizer_class"))
                known.model_type = str(config.get("model_type", ""))
                self._tokenizer = load(folder, config=known, **about)
        except Exception as error:  # whatever a checkpoint makes it raise
            sentence = " ".join(str(error).split())[:200] or type(error).__name__
            raise Unsupported(
                f"transformers cannot load its tokenizer: {sentence}", path=folder, hint="use --oracle reference"
            ) from error
        self.name = f"{type(self._tokenizer).__name__} of transformers {library.__version__}"
        self.specials = [str(token) for _, token in sorted(self._tokenizer.added_tokens_decoder.items())]
        self.special_tokens = dict(self._tokenizer.special_tokens_map)
        template = self._tokenizer.chat_template
        self.template: str | None = template.get("default") if isinstance(template, dict) else template

    def ids(self, texts: Sequence[str], add_special: bool) -> list[list[int]]:
        return [list(self._tokenizer(text, add_special_tokens=add_special)["input_ids"]) for text in texts]

    def chat(self, messages: Chat) -> str | None:
        try:
            text = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template raises what it likes
            raise Unsupported(" ".join(str(error).split()) or type(error).__name__) from error
        return str(text)


def template_of(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the template for plain chats in a folder: a file of its own, else the one in tokenizer_config.json."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return read_input(path).decode("utf-8", errors="replace")
    stated = json_object(folder / "chat_template.json").get("chat_template", settings.get("chat_template"))
    if isinstance(stated, list):
        stated = next((entry.get("template") for entry in stated if entry.get("name") == "default"), None)
    return stated if isinstance(stated, str) else None


def json_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(read_input(path))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is not JSON: {error}", path=path) from error
    if not isinstance(value, dict):
        raise Unreadable("it is not a JSON object", path=path)
    return value


def _text(token: Any) -> str | None:
    value = token.get("content") if isinstance(token, Mapping) else token
    return value if isinstance(value, str) else None


def _names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every entry that names a token. A null counts: it takes away what a class has by default."""
    ends = [name for name in settings if name.endswith("_token") and not name.startswith("add_")]
    return {name: settings[name] for name in ends if settings[name] is None or _text(settings[name]) is not None}


def added_tokens(
    vocabulary: Mapping[str, int],
    listed: Mapping[int, dict[str, Any]],
    flags: Mapping[int, Mapping[str, Any]],
    wanted: Sequence[Any],
    rules: Rules,
) -> dict[int, dict[str, Any]]:
    """The table of added tokens: those in tokenizer.json, those with flags elsewhere, then special tokens without."""
    table = dict(listed)
    ids = {token["content"]: token_id for token_id, token in table.items()}
    end = max([*vocabulary.values(), *table, -1]) + 1

    def put(token: Mapping[str, Any], special: bool) -> None:
        nonlocal end
        text = str(token["content"])
        token_id = ids.get(text, vocabulary.get(text, end))
        end = max(end, token_id + 1)
        usual = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": not special}
        stated = {flag: bool(token[flag]) for flag in FLAGS if flag in token}
        table[token_id] = {**usual, **stated, "id": token_id, "content": text, "special": special}
        ids[text] = token_id

    for _, token in sorted(flags.items()):
        put(token, bool(token.get("special")))
    for token in wanted:
        text = _text(token)
        if text and (rules.resets_special_flags or text not in ids):
            has_flags = isinstance(token, Mapping) and not rules.resets_special_flags
            put(token if has_flags else {"content": text}, True)
    return table
