"""The command `tritpack`: the table of its commands, and the one place that prints errors.

A command is a module of this package with a click command called `command`, and a row in COMMANDS. The exit codes are
ExitCode in formats/names.py.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from tritpack.converter.cli import bus_error, late_numpy
from tritpack.converter.cli.progress import clear_line
from tritpack.converter.cli.usage import as_ours
from tritpack.converter.version import VERSION
from tritpack.formats.errors import TritpackError, UsageError
from tritpack.formats.json_text import json_text
from tritpack.formats.names import ExitCode
from tritpack.formats.printable import printable
from tritpack.formats.suggestions import did_you_mean

COMMANDS = {
    "convert": "Convert a checkpoint or a packed file to a GGUF file.",
    "repack": "Write a packed file in another layout, exactly.",
    "recipe": "Make a whole release from a recipe: convert, verify, attest, describe, bundle.",
    "merge": "Write the parts of a split file as one file.",
    "export": "Write a packed file as a checkpoint for transformers, MLX or vLLM, or as ONNX graphs.",
    "inspect": "Show what a packed file really contains.",
    "diff": "Compare two models across layouts and containers.",
    "metadata": "Read and change the metadata of a packed file, or repair its known faults.",
    "verify": "Prove a file against the checkpoint it came from.",
    "check": "Check a file, a folder or a bundle against its attestation and its hashes.",
    "publish": "Upload a release folder or a bundle to the Hub, once it was checked.",
    "generate": "Continue a prompt.",
    "chat": "Talk with a model.",
    "serve": "Answer the clients of OpenAI, Anthropic and llama-server over HTTP.",
    "web": "Write a web page on which a model runs in the visitor's browser.",
    "tokenize": "Print the tokens of a text or a chat: ids and pieces.",
    "detokenize": "Print the text of token ids.",
    "perplexity": "Measure perplexity on a text, and the divergence from a second file.",
    "eval": "Run tasks of lm-evaluation-harness on a packed file.",
    "logits": "Write the logits of texts as .npy.",
    "embed": "Write the embeddings of texts as .npy, or print them as JSON.",
    "bundle": "Pack a release into one file with a manifest, check it, unpack it.",
    "bench": "Measure the speed of a model, and the limits of this machine.",
    "engines": "List what each engine makes of which files, and how that was tried.",
    "families": "List the supported checkpoints, how they are recognised, and what is refused.",
    "make-dummy": "Write a checkpoint with random ternary weights in a real shape.",
    "doctor": "Check this machine: CPU, library, and every kernel against scalar.",
}
"""Each command with the line that --help shows for it."""
LATE_NUMPY = ("inspect", "engines", "families")
"""Those that need numpy for little that they do."""

# Of click 8.2 and later; before, click itself prints the help and ends with 0.
NoArgsIsHelpError: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class ClosedPipe(Exception):
    """Nobody reads the output any more. click would end with 1 for a BrokenPipeError, which means a wrong file."""


class MissingStdout(io.TextIOBase):
    """Stands for a stdout that the caller has closed: without it, click would print nothing and succeed."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class LazyGroup(click.Group):
    """A group that imports a command only to run it, so that --help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in LATE_NUMPY:
            late_numpy.import_late()
        module = importlib.import_module(f"tritpack.converter.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        _name_variables(cmd_name, command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            hint = did_you_mean(args[0], COMMANDS) or f"'{ctx.command_path} --help' lists the commands"
            raise UsageError(f"unknown command {args[0]!r}", hint=hint)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete from the table of commands: click would import all of them."""
        names = [CompletionItem(name, help=about) for name, about in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _telling_closed_pipes():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _telling_closed_pipes():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _name_variables(command_name: str, command: click.Command) -> None:
    """Let the variable TRITPACK_COMMAND_OPTION give the value of each option.

    click's own auto_envvar_prefix names some of them otherwise (AS_JSON), and takes TRITPACK_VERSION for --version.
    """
    for name, part in command.commands.items() if isinstance(command, click.Group) else ():
        _name_variables(f"{command_name} {name}", part)
    for option in command.params:
        if isinstance(option, click.Option):
            spellings = [opt[2:] for opt in option.opts if opt.startswith("--")]
            variables = [f"tritpack {command_name} {spelling}" for spelling in spellings]
            variables += ["tritpack isa"] * (option.name == "isa")  # for all commands
            option.envvar = [re.sub("[ -]", "_", variable).upper() for variable in variables]


@contextlib.contextmanager
def _telling_closed_pipes() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ClosedPipe from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(VERSION, prog_name="tritpack")
def cli() -> None:
    """Convert BitNet b1.58 checkpoints to packed files, prove them, run them.

    Exit codes: 0 good, 1 a check failed, 2 usage, 3 unreadable input, 4 unsupported, 5 write failed, 6 integrity,
    7 something is not installed or not on this CPU, 8 network or Hub trouble, 70 a bug in tritpack.

    Environment variables set options too: TRITPACK_GENERATE_THREADS=4 is generate --threads 4, and TRITPACK_ISA is the
    --isa of every command. Shell completion: eval "$(_TRITPACK_COMPLETE=bash_source tritpack)" (or zsh_source,
    fish_source).
    """


def main() -> None:
    """Run the command line. A TritpackError becomes one sentence, a hint and its exit code."""
    gc.set_threshold(100_000)  # a vocabulary is some 500 000 objects, among which Python looks for garbage too often
    # A terminated conversion must remove its partial output, as an interrupted one does.
    signal.signal(signal.SIGTERM, _terminate)
    sys.stdout = sys.stdout or MissingStdout()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # it may be absent, or replaced by a test
            stream.reconfigure(errors="backslashreplace")  # for what the terminal's encoding does not have
    bus_error.catch()
    try:
        # https://no-color.org; click itself only checks whether the output is a terminal.
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        cli.main(standalone_mode=False, color=False if plain else None)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _fail("interrupted", 128 + signal.SIGINT)
    except NoArgsIsHelpError as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except click.ClickException as error:
        ours = as_ours(error)
        _fail(str(ours), ours.exit_code, ours.hint)
    except TritpackError as error:
        _fail(printable(str(error)), error.exit_code, error.hint)
    except ClosedPipe:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        # An error of a file names it; without a name it is the output stream.
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}", ExitCode.WRITE_FAILED)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "tritpack":
            _report_bug(error)
        hint = f"install {error.name.partition('.')[0]}, or tritpack again, which installs all that it needs"
        _fail(f"the Python package {error.name} is not installed", ExitCode.MISSING, hint)
    except MemoryError:
        _fail("this machine does not have enough memory", ExitCode.MISSING)
    except SystemExit:
        raise
    except BaseException as error:  # the panics of libraries in Rust are no Exception
        _report_bug(error)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout; NaN and infinity, which JSON lacks, are null.

    It is ASCII where the encoding of stdout does not have every character.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(json_text(value, ascii_only=not encoding.lower().startswith("utf")))


def show(text: str, *, err: bool = False, lines: bool = False) -> None:
    """Print a line, or `lines`, with text of a file in it, which must not control the terminal."""
    click.echo(printable(text, lines=lines), err=err)


def _fail(message: str, code: int, hint: str | None = None) -> NoReturn:
    with contextlib.suppress(OSError):  # stderr may be closed or full: the code says the same
        clear_line()
        show(f"error: {message}", err=True, lines=True)
        if hint:
            show(f"hint: {hint}", err=True)
    sys.exit(code)


def _report_bug(error: BaseException) -> NoReturn:
    """Say that tritpack is wrong, and where the traceback is that a report needs."""
    # Every command would wait for these, and hardly one needs them.
    import platform
    import tempfile
    import traceback

    place = traceback.extract_tb(error.__traceback__)[-1]
    message = f"this is a bug in tritpack: {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    text = "".join(traceback.format_exception(error))
    if os.environ.get("TRITPACK_DEBUG"):
        _fail(f"{message}\n{text}", ExitCode.INTERNAL)
    about = f"tritpack {VERSION}, Python {platform.python_version()}, {platform.platform()}\n{sys.argv}\n"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="tritpack-bug-", suffix=".txt", delete=False, encoding="utf-8",
                                         errors="backslashreplace") as report:  # fmt: skip
            report.write(about + text)
    except OSError:
        _fail(f"{message}\n{about}{text}", ExitCode.INTERNAL, "please report it with the text above")
    _fail(message, ExitCode.INTERNAL, f"please report it with {report.name}, which has the traceback and the versions")


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
