"""The options of `recipe run` that say where recipes run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from tritpack.converter.cli.parameters import ByteSize
from tritpack.converter.release.fleet import EXECUTORS, RETRIES, Fleet


def fleet_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --executor, --scheduler, --workers, --worker-memory and --retries to a command."""
    for option in (
        click.option(
            "--retries",
            type=click.IntRange(0),
            default=RETRIES,
            show_default=True,
            metavar="N",
            help="With dask: how often a recipe is tried again after network trouble or the death of its worker.",
        ),
        click.option(
            "--worker-memory",
            type=ByteSize(),
            metavar="SIZE",
            help="With dask: memory of one worker; one that needs more is ended, and its recipe goes on in another. "
            "Default: an equal share of the machine's.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(0),
            default=0,
            metavar="N",
            help="With dask: processes, each with one recipe at a time; 0, the default, is one per two cores.",
        ),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="A running Dask scheduler (tcp://HOST:8786), whose workers see the same folders; without one "
            "a cluster is started on this machine.",
        ),
        click.option(
            "--executor",
            type=click.Choice(EXECUTORS),
            default=EXECUTORS[0],
            show_default=True,
            help="Where recipes run: local is one after the other, dask several at once.",
        ),
    ):
        function = option(function)
    return function


def take_fleet(options: dict[str, Any]) -> Fleet:
    """Move the options of `fleet_options` out of a command's keyword arguments. Raises UsageError."""
    return Fleet(
        **{name: options.pop(name) for name in ("executor", "scheduler", "workers", "worker_memory", "retries")}
    )
