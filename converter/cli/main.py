"""Entry point: the list of commands, loaded one at a time so that --help is quick, and the one handler of errors."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType
from typing import Any

import click

from tritpack.converter.version import VERSION
from tritpack.formats.errors import TritpackError
from tritpack.formats.json_text import json_text
from tritpack.formats.names import ExitCode

COMMANDS = {
    "convert": "Convert a checkpoint or a packed file to a GGUF file.",
    "repack": "Write a packed file anew in another layout, exactly.",
    "export": "Write a packed file as a checkpoint of transformers or MLX.",
    "inspect": "Show what a packed file really is.",
    "verify": "Prove a file against the checkpoint it came from.",
    "generate": "Write text from a prompt.",
    "chat": "Talk with a model.",
    "tokenize": "Print the token ids of a text or a chat.",
    "perplexity": "Measure perplexity on a text, and the distance from a second file.",
    "eval": "Run the field's own benchmarks (lm-evaluation-harness) on a packed file.",
    "logits": "Write the logits of a prompt as .npy.",
    "embed": "Write the embedding of a text as .npy.",
    "bench": "Measure how fast a model runs here, and what this machine could do at most.",
    "families": "List the checkpoints that are supported, how they are recognised, and what is refused.",
    "make-dummy": "Write a checkpoint of a real shape with random ternary weights.",
    "doctor": "Check this machine: CPU, library, every kernel against a known answer.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tritpack.converter.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(VERSION, prog_name="tritpack")
def cli() -> None:
    """Convert BitNet b1.58 checkpoints to packed files, prove them, run them.

    Exit codes: 0 good, 1 a check failed, 2 usage, 3 unreadable input, 4 unsupported, 5 write failed, 6 integrity,
    7 something is not installed or not on this CPU.
    """


def main() -> None:
    """Run the command line; every TritpackError becomes one sentence, a hint and its exit code."""
    # A terminated conversion must clean up like an interrupted one.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        # https://no-color.org; click itself only looks whether the output is a terminal.
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        cli.main(standalone_mode=False, color=False if plain else None)
    except click.exceptions.Abort:
        _fail("interrupted", 128 + signal.SIGINT)
    except KeyboardInterrupt:
        _fail("interrupted; nothing half-written was left", 128 + signal.SIGINT)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TritpackError as error:
        _fail(str(error), error.exit_code, error.hint)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.WRITE_FAILED)
    except OSError as error:
        # Files name themselves; what is left is the output stream.
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}", ExitCode.WRITE_FAILED)
    except MemoryError:
        _fail("this machine has not enough memory for that", ExitCode.MISSING)


def print_json(value: Any) -> None:
    """One JSON document on stdout; what JSON has no number for (NaN, infinity) is null."""
    click.echo(json_text(value))


def _fail(message: str, code: int, hint: str | None = None) -> None:
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
