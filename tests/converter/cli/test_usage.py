"""What a mistyped command line gets, options from the environment, and what shells complete."""

from __future__ import annotations

import click
import pytest

from tests.conftest import program
from tritpack.converter.cli.main import COMMANDS, cli

MISTYPED = {
    "command": ("comvert x", "unknown command 'comvert'", "did you mean convert?"),
    "command in capitals": ("VERIFY x", "unknown command 'VERIFY'", "did you mean verify?"),
    "no command near": ("frobnicate", "unknown command 'frobnicate'", "--help' lists the commands"),
    "option": ("convert x -o y --outyp t2", "convert has no option --outyp", "did you mean --outtype"),
    "longer word for an option": ("generate x --temperature 1", "no option --temperature", "did you mean --temp?"),
    "text without -p": ("generate x hello", "got unexpected extra argument (hello)", "give a text with -p TEXT"),
    "option of the program": ("--verison", "has no option --verison", "did you mean --version?"),
    "layout of a table": (
        "convert x -o y --for llama.cpp --embedding-type TQ2_0",
        "is not one of",
        "hint: --outtype names",
    ),
    "type of weights": (
        "repack x -o y --outtype q8_0",
        "is not one of",
        "--embedding-type names the type of embedding",
    ),
    "choice": ("convert x -o y --outtype i2s", "--outtype: 'i2s' is not one of 'auto'", "did you mean i2_s"),
    "missing argument": ("inspect", "FILE is missing", "inspect --help'"),
    "missing output": ("convert x", "--outfile is missing", "with -o OUT"),
    "missing folder": ("export x", "--output is missing", "with -o DIR"),
    "rounded weights": ("convert x -o y --outtype q4_k_m", "is not one of", "are stored exactly, mostly as i2_s"),
    "no prompt": ("generate x", "give either a text with -p", 'for example: -p "'),
    "missing value": ("convert x --outfile", "requires an argument", "--help after a command"),
    "surplus argument": ("doctor b", "got unexpected extra argument (b)", "doctor --help'"),
    "not an integer": ("generate x -p a -t two", "--threads: 'two' is not an integer", "generate --help'"),
    "out of range": ("generate x -p a -t 0", "--threads: 0 is not in the range 1<=x<=256", "generate --help'"),
    "our own check": ("bench x -p a", "--n-prompt: 'a': expected numbers", "bench --help'"),
}


@pytest.mark.parametrize("case", MISTYPED)
def test_a_mistake_is_an_error_and_a_hint(case: str) -> None:
    line, message, hint = MISTYPED[case]
    result = program(*line.split())
    assert result.returncode == 2 and result.stdout == ""
    first, *rest = result.stderr.splitlines()
    assert first.startswith("error: ") and message in first
    assert [row.startswith("hint: ") and hint in row for row in rest] == [True] * bool(hint)


def test_every_option_has_its_environment_variable() -> None:
    group = click.Context(cli)
    commands = {name: cli.get_command(group, name) for name in COMMANDS}  # type: ignore[attr-defined]
    groups = {name: command for name, command in commands.items() if isinstance(command, click.Group)}
    commands |= {f"{name}_{part}": sub for name, command in groups.items() for part, sub in command.commands.items()}
    for name, command in commands.items():
        for option in command.params:
            if isinstance(option, click.Option):
                spellings = [spelling[2:] for spelling in option.opts if spelling.startswith("--")]  # -np has none
                variables = [f"TRITPACK_{name}_{spelling}".upper().replace("-", "_") for spelling in spellings]
                assert variables and option.envvar[: len(variables)] == variables, (name, option.name)


def test_options_from_the_environment(tmp_path) -> None:  # type: ignore[no-untyped-def]
    values = {
        "TRITPACK_MAKE_DUMMY_SHAPE": "tiny", "TRITPACK_MAKE_DUMMY_JSON": "1",
        "TRITPACK_MAKE_DUMMY_OUTPUT": str(tmp_path / "a.gguf"), "TRITPACK_VERSION": "0.3", "TRITPACK_HELP": "1",
    }  # fmt: skip
    result = program("make-dummy", env=values)
    assert result.returncode == 0 and '"schema": "tritpack.make-dummy/1"' in result.stdout, result.stderr
    wrong = program("make-dummy", env={**values, "TRITPACK_MAKE_DUMMY_SEED": "x"})
    assert wrong.returncode == 2 and "variable TRITPACK_MAKE_DUMMY_SEED" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tritpack ver", ["plain,verify"]),
        ("tritpack inspect mod", ["file,mod"]),
        ("tritpack verify m.gguf --source mod", ["file,mod"]),
        ("tritpack convert m --outtype i2", ["plain,i2_s"]),
        ("tritpack convert m --outfile mod", ["file,mod"]),
        ("tritpack perplexity m.gguf --text mod", ["file,mod"]),
    ],
)
def test_completion(words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import BashComplete

    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert BashComplete(cli, {}, "tritpack", "_TRITPACK_COMPLETE").complete().splitlines() == expected


def test_every_metavar_of_a_file_completes_files() -> None:
    group = click.Context(cli)
    for name in COMMANDS:
        for parameter in cli.get_command(group, name).params:  # type: ignore[attr-defined]
            if (parameter.metavar or "").endswith(("FILE", "DIR", ".gguf", ".json", "OUT.npy", "SOURCE")):
                assert isinstance(parameter.type, click.Path), (name, parameter.name)
