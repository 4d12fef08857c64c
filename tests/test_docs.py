"""What the documents say is what the program does: commands, exit codes, layouts."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest

from tests.conftest import REPOSITORY, run
from tritpack.converter.cli.main import COMMANDS, cli
from tritpack.converter.verify.rungs import RUNGS
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.names import ExitCode

README = (REPOSITORY / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0 and len(result.output) > 200
    assert f"tritpack {name}" in README
    command = cli.get_command(click.Context(cli), name)
    assert command is not None and command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name} has no help"


def test_every_command_shown_in_the_readme_exists() -> None:
    blocks = re.findall(r"^```\n(.*?)^```", README, re.M | re.S)
    names = [name for block in blocks for name in re.findall(r"^(?:\$ )?tritpack ([a-z-]+)", block, re.M)]
    assert len(names) >= len(COMMANDS) and set(names) <= set(COMMANDS)


def test_exit_codes_stand_in_the_readme_and_in_help() -> None:
    for code in ExitCode:
        assert re.search(rf"^\| {int(code)} \| ", README, re.M), code
    assert "7\n  something is not installed" in run("--help").output or "7 something" in " ".join(
        run("--help").output.split()
    )


@pytest.mark.parametrize("name", RUNGS)
def test_every_rung_is_described(name: str) -> None:
    contract = (REPOSITORY / "converter" / "verify" / "README.md").read_text("utf-8")
    assert f"\n| {name} | " in contract
    assert f"\n  {name} " in run("verify", "--help").output


def test_every_layout_is_specified() -> None:
    contract = (REPOSITORY / "formats" / "README.md").read_text("utf-8")
    headings = " ".join(line for line in contract.splitlines() if line.startswith("## ")).replace(",", " ").split()
    for name in LAYOUTS:
        assert name in headings and f"| `{name}` |" in contract and "MUST" in contract, name


def test_help_imports_nothing_heavy() -> None:
    """--help has to be quick: what makes it slow is importing numpy or a tokenizer."""
    program = (
        "import sys; sys.argv = ['tritpack', '--help']\n"
        "from tritpack.converter.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'tokenizers', 'jinja2', 'gguf', 'yaml', 'safetensors'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_make_help_lists_the_targets() -> None:
    text = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "lint", "lib", "c-test", "clean"):
        assert re.search(rf"^  {target} ", text, re.M), target


def test_no_document_holds_marks_of_a_merge() -> None:
    for path in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("[a-z]*/**/*.md")]:
        assert not re.search(r"^(<{7}|>{7}) ", path.read_text("utf-8"), re.M), path


def test_the_repository_names_no_private_path() -> None:
    private = re.compile(r"/(wo" r"rk|ro" r"ot|ho" r"me)/")
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this copy is no git checkout")
    for name in listed.stdout.splitlines():
        path = REPOSITORY / name
        if path.suffix in {".py", ".c", ".h", ".md", ".toml", ".mk", ".yaml", ".json", ""} and path.is_file():
            assert not private.search(path.read_text("utf-8", "replace")), name
