"""The options and helpers that the commands which run a model share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.file_argument import PATH, as_gguf
from tritpack.converter.cli.main import show
from tritpack.formats import names
from tritpack.formats.errors import UsageError
from tritpack.formats.inputs import read_stdin, read_text
from tritpack.runtime.untrusted import WORKER

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tritpack.runtime.model import Model
    from tritpack.runtime.tokenizer import Tokenizer

KV_TYPE_HELP = "Type of the KV cache. i16 needs half the memory, is faster in long contexts, and rounds like f16."
KV_TYPE_DEFAULTS = {
    "f32": "The default is f32, whose answers are the reference: those of transformers in float32.",
    "i16": "The default is i16 here, because conversations grow long; generate and verify take f32, the reference.",
}
TOKENS = "token ids with --tokens"
ISA_HELP = "Use kernels up to this instruction set; the best of this CPU by default."


def no_mmap_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --no-mmap to a command."""
    text = "Copy the weights into memory of this process, in huge pages where the system has them: for long use."
    return click.option("--no-mmap", is_flag=True, help=text)(function)


def prompt_cache_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --prompt-cache to a command."""
    text = (
        "Keep what was evaluated in FILE, which is made or replaced, and do not evaluate the same beginning again. For "
        "a model with recurrent layers chat keeps the system message only."
    )
    return click.option("--prompt-cache", type=PATH, metavar="FILE", help=text)(function)


def draft_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --draft to a command."""
    text = (
        "Guess the next tokens where that pays: several are checked in one pass, and the text stays the same. lookup "
        "finds them in the text so far."
    )
    return click.option("--draft", type=click.Choice(names.DRAFTS), default="lookup", show_default=True, help=text)(
        function
    )


def draft_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --draft and --draft-model to a command."""
    text = "A smaller model of the same family, which guesses instead."
    return draft_option(click.option("--draft-model", type=PATH, metavar="FILE", help=text)(function))


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add -t, --isa, --kv-type and -c to a command that takes floats for the reference."""
    return _model_options(function, "f32")


def chat_model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the same options to a command for conversations, whose contexts grow long."""
    return _model_options(function, "i16")


def _model_options(function: Callable[..., Any], kv_type: str) -> Callable[..., Any]:
    for option in (
        click.option(
            "-c",
            "--context",
            type=click.IntRange(min=1),
            help="Positions of the KV cache, at most the model's context; default: the model's context, or fewer if "
            "caches and states would exceed 4 GiB.",
        ),
        click.option(
            "--kv-type",
            type=click.Choice(names.KV_TYPES),
            default=kv_type,
            help=f"{KV_TYPE_HELP} {KV_TYPE_DEFAULTS[kv_type]}",
        ),
        click.option(
            "--isa",
            type=click.Choice(names.ISAS),
            help=ISA_HELP,
        ),
        click.option("-t", "--threads", type=click.IntRange(1, 256), help="Threads; all cores by default."),
    ):
        function = option(function)
    return function


class OneText(click.types.StringParamType):
    """A text of an option that may be repeated: a variable of the environment gives one text, and not one per word."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def prompt_options(use: str, *, several: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds -p, with `use` as its help, and -f to a command. several: both may be repeated."""
    again = " Repeat it for several texts." if several else ""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        path = click.option(
            "-f",
            "--prompt-file",
            type=PATH,
            metavar="FILE",
            multiple=several,
            help=f"UTF-8 file with the text, - for standard input; the end of its last line is left out.{again}",
        )
        prompt = click.option(
            "-p", "--prompt", type=OneText(), multiple=several, help=f"{use} - is standard input.{again}"
        )
        return prompt(path(function))

    return add


@contextlib.contextmanager
def open_model(file: str, **options: Any) -> Iterator[Model]:
    """Open the model in FILE (a GGUF, one in a bundle, or a checkpoint folder), with the options of `model_options`."""
    from tritpack.runtime.model import Model

    with as_gguf(file) as path, Model(path, **options) as model:
        yield model


def take_prompt(options: dict[str, Any], other: str | None, otherwise: str) -> str | None:
    """Move -p and -f out of a command's keyword arguments, and return the text that they give.

    other: the value of the option that can be given instead of a text. otherwise: that option in words, for the error.
    Raises UsageError unless exactly one of the three is given, Unreadable for a file that is not UTF-8 text.
    """
    prompt, path = options.pop("prompt"), options.pop("prompt_file")
    if prompt == "-" and path is None:
        prompt, path = None, "-"
    if [prompt, path, other].count(None) != 2:
        raise _no_text(otherwise)
    if other is None:
        WORKER.start()  # the tokenizer's process, while the model is opened here
    return prompt if path is None else read_text_argument(path).removesuffix("\n")


def take_prompts(options: dict[str, Any], other: str | None, otherwise: str) -> list[str]:
    """Move a repeated -p and -f out of a command's keyword arguments, and return the texts: first those of -p.

    They are none if `other` is given. Raises what `take_prompt` raises, and UsageError for two texts of standard input.
    """
    prompts, paths = options.pop("prompt"), options.pop("prompt_file")
    if bool(prompts or paths) == (other is not None):
        raise _no_text(otherwise)
    if [*prompts, *paths].count("-") > 1:
        raise UsageError("standard input can be read only once", hint="give - for one text")
    if other is None:
        WORKER.start()
    return [
        *(read_text_argument("-").removesuffix("\n") if prompt == "-" else prompt for prompt in prompts),
        *(read_text_argument(path).removesuffix("\n") for path in paths),
    ]


def _no_text(otherwise: str) -> UsageError:
    hint = 'for example: -p "Once upon a time"'
    return UsageError(f"give either a text with -p, a file of text with -f, or {otherwise}", hint=hint)


def warn_of_second_bos(tokenizer: Tokenizer, ids: list[int]) -> None:
    """Say on stderr that a prompt begins with the BOS that the tokenizer adds; the ids stay as they are."""
    bos = tokenizer.bos_id
    if bos is not None and ids[:2] == [bos, bos]:
        show(
            f"warning: the prompt begins with {tokenizer.bos_token}, and the tokenizer adds it once more: "
            "leave it out, or give --no-special",
            err=True,
        )


def read_text_argument(path: str) -> str:
    """Return the UTF-8 text of a file, or of standard input for `-`. Raises Unreadable."""
    return read_stdin() if path == "-" else read_text(Path(path))


def write_npy(output: str, values: npt.NDArray[np.float32], *, force: bool) -> None:
    """Write an array to a .npy file."""
    import numpy as np

    from tritpack.formats.files import atomic_output

    with atomic_output(Path(output), values.nbytes, force=force) as stream:
        np.save(stream, values)


def say_written(output: str, values: npt.NDArray[np.float32], ids: Sequence[Sequence[int]]) -> None:
    """Print a line about a written array. ids: the tokens of each text that it was computed from."""
    shape, tokens = " x ".join(map(str, values.shape)), sum(map(len, ids))
    texts = f"{len(ids)} texts with " if len(ids) > 1 else ""
    click.echo(f"wrote {output}: float32 {shape}, from {texts}{tokens} tokens")


def parse_tokens(text: str, name: str = "--tokens") -> list[int]:
    """Parse `1,2,3` as token ids; blanks and a list's brackets are allowed. name: of the option, for errors. Raises
    UsageError."""
    try:
        ids = [int(part) for part in text.strip().removeprefix("[").removesuffix("]").replace(",", " ").split()]
    except ValueError:
        ids = []
    if not ids or not all(0 <= i < 2**31 for i in ids):
        raise UsageError(f"{name} {text[:60]!r}: expected ids such as 1,2,3")
    return ids
