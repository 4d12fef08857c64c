"""tritpack verify."""

from __future__ import annotations

import sys
from typing import Any

import click

from converter.cli.main import print_json
from converter.cli.opening import as_gguf, quantize_option
from formats.errors import ExitCode


@click.command("verify")
@click.argument("file", metavar="FILE")
@click.option(
    "--source",
    required=True,
    metavar="SOURCE",
    help="The checkpoint FILE was made from: a folder, or ORG/NAME[@REVISION].",
)
@click.option(
    "--level",
    type=click.Choice(["weights", "logits", "full"]),
    default="full",
    show_default=True,
    help="How far to climb.",
)
@click.option("--revision", help="Branch, tag or commit of a repository on the Hub.")
@quantize_option
@click.option("--text", metavar="FILE", help="Ordinary text for the text rung; a built-in one otherwise.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    file: str,
    source: str,
    level: str,
    revision: str | None,
    quantize: str | None,
    text: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Prove that FILE is the model in SOURCE: structure, every code and scale, logits, text, every ISA.

    --quantize is needed where convert needed it.

    Ends with 1 if anything is wrong in FILE, 3 if FILE or SOURCE cannot be read, 4 for a SOURCE that is not supported.
    """
    from converter.verify import verify

    def progress(rung: str) -> None:
        if not quiet and sys.stderr.isatty():
            click.echo(f"\r{rung + ' ...':<20}", nl=False, err=True)

    with as_gguf(file) as path:
        report = verify(path, source, level=level, quantize=quantize, revision=revision, text=text, progress=progress)
    if not quiet and sys.stderr.isatty():
        click.echo("\r" + " " * 20 + "\r", nl=False, err=True)
    report.file = file
    if as_json:
        print_json(report.as_json())
    else:
        for rung in report.rungs:
            click.echo(f"{_mark(rung.verdict)} {rung.name:<11} {_figures(rung.figures)}")
            for finding in rung.findings:
                click.echo(f"       {finding}")
            for note in [rung.skipped, *rung.notes] if rung.skipped else rung.notes:
                click.echo(f"       note: {note}")
        click.echo(f"{report.verdict.upper()}: {file} against {source}")
    if report.verdict == "fail":
        sys.exit(ExitCode.CHECK_FAILED)


def _mark(verdict: str) -> str:
    text = {"pass": "ok    ", "fail": "FAILED", "skipped": "-     "}[verdict]
    return click.style(text, fg={"pass": "green", "fail": "red", "skipped": "yellow"}[verdict])


def _figures(figures: dict[str, Any]) -> str:
    """The numbers and words that fit a line; hashes, prompts and lists are in --json."""
    parts = []
    for key, value in figures.items():
        if isinstance(value, float):
            parts.append(f"{key} {value:.4g}")
        elif isinstance(value, int) or (isinstance(value, str) and len(value) < 24):
            parts.append(f"{key} {value}")
        elif key == "runs":
            parts.append(f"{len(value)} runs equal" if value else "")
    return ", ".join(parts)
