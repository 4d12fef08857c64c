"""`verify --engine`: the user's engine is asked, and what came of it printed."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tritpack.converter.cli.file_argument import PATH
from tritpack.converter.cli.main import print_json, show
from tritpack.formats.errors import UsageError
from tritpack.formats.names import ExitCode

if TYPE_CHECKING:
    from tritpack.converter.verify.engine.report import EngineReport

Command = TypeVar("Command", bound=Callable[..., Any])
EXIT_CODES = {"right": ExitCode.GOOD, "file_wrong": ExitCode.CHECK_FAILED, "other_model": ExitCode.UNSUPPORTED}
COLOURS = {"right": "green", "file_wrong": "red", "other_model": "yellow"}


def engine_options(command: Command) -> Command:
    """Add --engine and what belongs to it."""
    for option in reversed(
        (
            click.option(
                "--engine",
                type=PATH,
                metavar="PATH",
                help="Run FILE in your llama-server, llama-perplexity or llama-cli, of any fork, and compare.",
            ),
            click.option(
                "--engine-arg",
                multiple=True,
                metavar="ARG",
                help="An option for that program, such as --engine-arg=-ngl --engine-arg=99; repeatable.",
            ),
            click.option(
                "--engine-timeout",
                type=click.FloatRange(min=1),
                default=300.0,
                show_default=True,
                metavar="SECONDS",
                help="How long all of its answers may take.",
            ),
        )
    ):
        command = option(command)
    return command


@dataclasses.dataclass(frozen=True)
class Engine:
    """What the options say. path: of the program."""

    path: str
    arguments: tuple[str, ...]
    timeout: float

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Engine | None:
        """Take the engine's options out of a command's; None without --engine. Raises UsageError for --engine-arg
        alone."""
        path, arguments, timeout = (options.pop(key) for key in ("engine", "engine_arg", "engine_timeout"))
        if path is None:
            if arguments:
                raise UsageError("--engine-arg is for --engine, which is not given")
            return None
        return cls(path, arguments, timeout)

    def ask(self, file: str, text: str | None) -> EngineReport:
        """Run the engine on a file."""
        from tritpack.converter.verify.engine.verify_engine import verify_engine

        return verify_engine(file, self.path, engine_arg=self.arguments, engine_timeout=self.timeout, text=text)


def finish(report: EngineReport, *, as_json: bool, printed: bool = False) -> None:
    """Print the report, and end the process with its exit code unless that is 0. printed: its JSON is printed."""
    if as_json and not printed:
        print_json(report.as_json())
    elif not as_json:
        _print(report)
    if code := EXIT_CODES[report.verdict]:
        sys.exit(code)


def _print(report: EngineReport) -> None:
    if report.program is not None:
        show(f"engine  {report.program.path} ({report.program.version})")
    for finding in report.findings:
        click.echo(click.style("wrong   ", fg="red"), nl=False)
        show(finding)
    for way, run in report.runs.items():
        distance = "NaN" if run.not_finite == run.positions else f"{run.distance:.3f}"
        figures = f"distance {distance}, the same likeliest token at {run.equal} of {run.positions} positions"
        show(f"{way:<20} {figures} (where ours leads clearly: {run.wide_equal} of {run.wide})")
    for way, failure in report.failures.items():
        show(f"{way:<20} failed: {failure}")
    if report.runs:
        about = "distances are medians, in standard deviations of the logits; rounding alone gives"
        show(f"{'':<20} {about} {_rounding(report)}")
    for reason, far in sorted(report.mistakes.items(), key=lambda item: item[1]):
        show(f"{'':<20} distance {far:.3f} if {reason}")
    for note in report.notes:
        show(f"note: {note}")
    click.echo(
        click.style(report.verdict.replace("_", " ").upper(), fg=COLOURS[report.verdict], bold=True) + ": ", nl=False
    )
    show(report.conclusion)


def _rounding(report: EngineReport) -> str:
    from tritpack.converter.verify.engine.answers import HABIT

    return f"up to {max(report.habit, HABIT):.3f}"
