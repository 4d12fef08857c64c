"""Options and set-up shared by the commands that run a model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritpack.converter.cli.file_argument import as_gguf
from tritpack.converter.cli.main import print_json
from tritpack.formats import names
from tritpack.formats.errors import Unsupported, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tritpack.runtime.model import Model
    from tritpack.runtime.sampling import SamplingParams

KV_TYPE_HELP = "KV cache of floats, or of 16-bit integers: half the memory, faster at length; rounds like f16."


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """-t, --isa, --kv-type, -c."""
    for option in (
        click.option(
            "-c",
            "--context",
            type=click.IntRange(min=1),
            help="Positions to keep; by default the model's own, as far as 4 GiB hold them.",
        ),
        click.option(
            "--kv-type",
            type=click.Choice(names.KV_TYPES),
            default="f32",
            show_default=True,
            help=KV_TYPE_HELP,
        ),
        click.option(
            "--isa",
            type=click.Choice(names.ISAS),
            envvar="TRITPACK_ISA",
            help="Use kernels at or below this; the best of this CPU by default.",
        ),
        click.option("-t", "--threads", type=click.IntRange(1, 256), help="Threads; all cores by default."),
    ):
        function = option(function)
    return function


def sampling_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--temp, --top-k, --top-p, --min-p, --repeat-penalty, --seed."""
    for option in (
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampler."),
        click.option("--repeat-penalty", type=float, default=1.0, show_default=True, help="1 is none."),
        click.option("--min-p", type=float, default=0.0, show_default=True, help="0 is off."),
        click.option("--top-p", type=float, default=1.0, show_default=True, help="1 is off."),
        click.option("--top-k", type=int, default=0, show_default=True, help="0 is off."),
        click.option("--temp", type=float, default=0.0, show_default=True, help="0 is greedy."),
    ):
        function = option(function)
    return function


def sampling_params(options: dict[str, Any]) -> SamplingParams:
    """Takes the options of `sampling_options` out of a command's keyword arguments."""
    from tritpack.runtime.sampling import SamplingParams

    return SamplingParams(
        temperature=options.pop("temp"),
        top_k=options.pop("top_k"),
        top_p=options.pop("top_p"),
        min_p=options.pop("min_p"),
        repetition_penalty=options.pop("repeat_penalty"),
        seed=options.pop("seed"),
    )


@contextlib.contextmanager
def open_model(file: str, **options: Any) -> Iterator[Model]:
    """The model in FILE (GGUF or checkpoint folder), with the options of `model_options`."""
    from tritpack.runtime.model import Model

    with as_gguf(file) as path, Model(path, **options) as model:
        yield model


def require_logits(model: Model) -> None:
    """Raises Unsupported for an embedding model: it has a head only by name, and what that says means nothing."""
    if model.spec.is_embedding_model:
        raise Unsupported(
            f"{model.file.path}: is an embedding model, which was not trained to say a next token",
            hint="tritpack embed gives its vector",
        )


def require_one_input(prompt: str | None, tokens: str | None) -> None:
    """Raises UsageError unless exactly one of -p and --tokens was given."""
    if (prompt is None) == (tokens is None):
        raise UsageError("give a text with -p, or token ids with --tokens")


def write_npy(
    output: str,
    values: npt.NDArray[np.float32],
    *,
    ids: list[int],
    kernels: list[str],
    schema: str,
    force: bool,
    as_json: bool,
) -> None:
    """Write what a model gave for `ids` as a whole .npy file or none, and say so."""
    import numpy as np

    from tritpack.formats.files import atomic_output

    with atomic_output(Path(output), values.nbytes, force=force) as stream:
        np.save(stream, values)
    shape = list(values.shape)
    if as_json:
        print_json({"schema": schema, "output": output, "shape": shape, "ids": ids, "kernels": kernels})
    else:
        click.echo(f"wrote {output}: float32 {' x '.join(map(str, shape))}, from {len(ids)} tokens")


def parse_tokens(text: str) -> list[int]:
    """`1,2,3` to ids. Raises UsageError."""
    try:
        ids = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        ids = []
    if not ids or not all(0 <= i < 2**31 for i in ids):
        raise UsageError(f"--tokens {text[:60]!r}: expected ids such as 1,2,3")
    return ids
