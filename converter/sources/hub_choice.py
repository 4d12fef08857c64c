"""Which files of a repository a conversion reads, decided from their names alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from tritpack.converter.sources.checkpoint import INDEX, refuse_adapter
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.split_files import first_part_of, parts_of_set

SMALL_FILES = re.compile(
    r"(generation_)?config\.json|tokenizer(_config)?\.json|tokenizer\.model|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.json|merges\.txt|chat_template\.(jinja|json)|additional_chat_templates/[\w.-]+\.jinja"
    r"|hadamard\.json|modules\.json|\d+_\w+/config\.json|README\.md|(LICEN[CS]E|NOTICE)[\w.-]*",
    re.ASCII,
)
MOST_FILES = 1000
"""Files of one conversion; the largest models have fewer than 200 parts."""
PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")


class SeveralFiles(Unsupported):
    """A repository holds several GGUF files and no safetensors. names: of the files, of a split set its first part."""

    names: list[str]


class Choice(NamedTuple):
    """The names of the files of configuration and tokenizer, and of the weights: safetensors, or parts of one GGUF."""

    small: list[str]
    weights: list[str]

    @property
    def gguf(self) -> str | None:
        return self.weights[0] if self.weights[0].endswith(".gguf") else None


def choose(repo: str, names: Collection[str], fetch: Callable[[str], Path]) -> Choice:
    """Return what is needed of a repository. fetch: returns the path of a file, and is called for the index alone.

    Raises Unreadable, and Unsupported for pickles and for several GGUF files.
    """
    weights = sorted(name for name in names if re.fullmatch(r"model[\w.-]*\.safetensors", name, re.ASCII))
    if "model.safetensors" in weights:
        weights = ["model.safetensors"]
    elif INDEX in names:
        weights = _shards(repo, fetch(INDEX), names)
    if not weights:
        refuse_adapter(names, repo)
        choice = Choice([], _other_weights(repo, names))
    elif "config.json" not in names:
        raise Unreadable("has no config.json", path=repo, hint="this is not a transformers checkpoint")
    else:
        choice = Choice(sorted(filter(SMALL_FILES.fullmatch, names)), weights)
    if (count := len(choice.small) + len(choice.weights)) > MOST_FILES:
        message = f"has {count} files of configuration and weights, at most {MOST_FILES} are read"
        raise Unreadable(message, path=repo)
    return choice


def _other_weights(repo: str, names: Collection[str]) -> list[str]:
    """Return the name of the only GGUF file of a repository without safetensors, or those of its parts, in order."""
    packed = sorted(name for name in names if name.endswith(".gguf"))
    if len(packed) == 1 or (packed and packed == parts_of_set(packed[0])):
        return packed
    if packed:
        hint = f"fetch one with `hf download {repo} FILE` and give its path; inspect also reads {repo}/FILE where it is"
        message = f"holds several GGUF files and no safetensors: {', '.join(packed)}"
        error = SeveralFiles(message, path=repo, hint=hint)
        error.names = [name for name in packed if first_part_of(name) == name or first_part_of(name) not in packed]
        raise error
    if pickles := sorted(name for name in names if name.endswith(PICKLES)):
        raise Unsupported(
            f"its weights are a pickle ({pickles[0]}), which can run code when it is read",
            path=repo,
            hint="use a revision with safetensors, or convert it with transformers first",
        )
    raise Unreadable("holds no model*.safetensors and no .gguf file", path=repo)


def _shards(repo: str, index: Path, names: Collection[str]) -> list[str]:
    try:
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"{INDEX} has no weight_map of file names", path=repo) from error
    for shard in shards:
        if shard not in names or not re.fullmatch(r"[\w.-]+\.safetensors", shard, re.ASCII):
            message = f"{INDEX} names {shard!r}, which is not a safetensors file of the repository"
            raise Unreadable(message, path=repo)
    return shards
