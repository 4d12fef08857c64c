"""What a recipe can say, as types. The reader, the JSON Schema and the README of recipes/ follow them."""

# ruff: noqa: RUF009  (key() makes a field, as dataclasses.field does)

from __future__ import annotations

import dataclasses
import re
from typing import Any

from tritpack.converter.targets import engines
from tritpack.converter.verify.rungs import DEFAULT_LEVEL, LEVELS, RUNGS
from tritpack.formats.names import FLOAT_QUANTIZERS, FLOAT_TYPES, LAYOUTS

NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}"
REPOSITORY = r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*"
COMMIT = re.compile("[0-9a-f]{40}")


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a value must be besides its type.

    about: for people. choices: all values that it can have. pattern: what the whole text must match. least: the
    smallest number, or the fewest elements. is_path: environment variables in it are expanded, and it is relative to
    the recipe.
    """

    about: str
    choices: tuple[str, ...] = ()
    pattern: str = ""
    least: int | None = None
    is_path: bool = False


def key(about: str, default: Any = dataclasses.MISSING, **rules: Any) -> Any:
    """Return the field of a key; without a default it is required."""
    return dataclasses.field(default=default, metadata={"rules": Rules(about, **rules)})


@dataclasses.dataclass(frozen=True)
class Source:
    """The checkpoint: a repository on the Hub, or a folder or GGUF file."""

    repository: str | None = key("ORG/NAME on the Hub", None, pattern=REPOSITORY)
    revision: str = key("Branch, tag or commit of it", "main", pattern=r"[A-Za-z0-9_][A-Za-z0-9_./+-]*")
    url: str | None = key("Its page, for people", None, pattern=r"https://[^\s]+")
    path: str | None = key("A checkpoint folder or a GGUF file, in place of a repository", None, is_path=True)
    sha256: str | None = key(
        "What general.source.sha256 of the files must be; another source is refused", None, pattern="[0-9a-f]{64}"
    )
    quantize: str | None = key("How plain floats are made ternary", None, choices=FLOAT_QUANTIZERS)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is known of the model; a source that differs is a warning."""

    hidden_size: int | None = key("Size of a hidden state", None, least=1)
    intermediate_size: int | None = key("Size inside the feed-forward network", None, least=1)
    layers: int | None = key("Number of layers", None, least=1)
    heads: int | None = key("Number of attention heads", None, least=1)
    kv_heads: int | None = key("Number of heads of keys and values", None, least=1)
    head_dim: int | None = key("Size of one head", None, least=1)
    vocab_size: int | None = key("Number of tokens in the vocabulary", None, least=1)


@dataclasses.dataclass(frozen=True)
class Output:
    """One GGUF file, or the parts of a split one: NAME-LAYOUT.gguf, or NAME-SUFFIX-LAYOUT.gguf."""

    outtype: str = key("Layout of the ternary weights", "auto", choices=("auto", *LAYOUTS))
    embedding_type: str = key("Type of embedding and head", "auto", choices=("auto", *FLOAT_TYPES))
    engine: str = key("The engine that the file is for", "tritpack", choices=tuple(engines.NAMES))
    suffix: str = key("Tells outputs of one layout apart", "", pattern=r"[A-Za-z0-9._+-]*")
    split_max_size: str | None = key("Most bytes of one part, such as 2G", None, pattern="[0-9]{1,15}[kKmMgG]?")
    split_max_tensors: int | None = key("Most tensors of one part", None, least=1)
    allow_scale_rounding: bool = key("Change scales that the layout cannot hold, and record by how much", False)
    allow_wrong_engine: bool = key("Write the file even if the engine will run another model", False)


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A bound on a figure of a rung's report, besides the verdict of the rung itself."""

    rung: str = key("Name of the rung", choices=RUNGS)
    figure: str = key("Name of the figure in report.json", pattern=r"[a-z0-9_]+")
    least: float | None = key("The smallest value that passes", None)
    most: float | None = key("The largest value that passes", None)


@dataclasses.dataclass(frozen=True)
class Verification:
    """How far `verify` climbs, and what else must hold."""

    level: str = key("The last rung to climb", DEFAULT_LEVEL, choices=LEVELS)
    oracle: str = key("What outputs are compared with", "reference", choices=("reference", "transformers"))
    text: str | None = key("Text for the rungs text and perplexity; a built-in one by default", None, is_path=True)
    strict: bool = key("Fail where the file records another hash of its source", False)
    thresholds: tuple[Threshold, ...] = key("Bounds on figures", ())


@dataclasses.dataclass(frozen=True)
class Golden:
    """A prompt to generate from. Without tokens, FILE must generate what the oracle does."""

    prompt: str = key("The text", pattern=r"(?s).+")
    greedy: tuple[int, ...] = key("The greedy tokens that must follow it", (), least=0)


@dataclasses.dataclass(frozen=True)
class Card:
    """Text for the README.md of the release."""

    text: str = key("Markdown paragraphs about the model", "")


@dataclasses.dataclass(frozen=True)
class Package:
    """What the release holds besides the GGUF files, their attestations and reports, and the manifest."""

    tokenizer: bool = key("The tokenizer's files, as they are", True)
    license: bool = key("LICENSE files of the source", True)
    bundle: bool = key("Pack everything as NAME.tar.zst too", True)
    bill_of_materials: bool = key("A CycloneDX ML-BOM per file, which needs the extra `attest`", False)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A release: where it comes from, what it holds, how it is proved."""

    name: str = key("Name of the release, its folder and its files", pattern=NAME)
    source: Source = key("The checkpoint")
    outputs: tuple[Output, ...] = key("The files to write, in one pass over the source", least=1)
    license: str | None = key("The licence, by its name on the Hub; a source with another one is a warning", None)
    family: str | None = key("The family that must be recognised (see `tritpack families`)", None)
    shape: Shape = key("The shape of the model, as far as it is known", Shape())
    verify: Verification = key("The proof", Verification())
    golden: tuple[Golden, ...] = key("Prompts to generate from", ())
    card: Card = key("Text for the card", Card())
    package: Package = key("What else belongs to the release", Package())

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, or the source is here."""
        return self.source.repository is None or COMMIT.fullmatch(self.source.revision) is not None
