"""The shell steps of the action and of docs/ci.md, run as their runners run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import DEMO, REPOSITORY

ACTION = REPOSITORY / ".github" / "actions" / "tritpack" / "action.yml"
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
RECIPE = f"""\
name: small
source: {{path: {DEMO}/checkpoint}}
outputs: [{{outtype: i2_s}}]
verify: {{level: weights}}
"""


def loaded(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text())
    assert isinstance(document, dict)
    return document


def step_of_action(name: str) -> dict[str, Any]:
    [step] = [step for step in loaded(ACTION)["runs"]["steps"] if step.get("name") == name]
    assert isinstance(step, dict)
    return step


@pytest.fixture
def runner(tmp_path: Path) -> dict[str, str]:
    """The environment of a runner: its files, and a `tritpack` and a `python` on the path."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "tritpack").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tritpack "$@"\n')
    (commands / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for command in commands.iterdir():
        command.chmod(0o755)
    for name in ("output", "summary"):
        (tmp_path / name).touch()
    return {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "RUNNER_TEMP": str(tmp_path),
    }


def run_step(script: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script as GitHub's runner runs `shell: bash`."""
    (path := folder / "step.sh").write_text(script)
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(path)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def inputs(**changed: str) -> dict[str, str]:
    """The environment of the step that runs recipes, for inputs that differ from the defaults."""
    defaults = {name: str(about.get("default", "")) for name, about in loaded(ACTION)["inputs"].items()}
    values = {**defaults, **changed}
    env = step_of_action("Run the recipes")["env"]
    return {
        key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: values[match[1]], text) for key, text in env.items()
    }


def test_the_action_runs_a_recipe(runner: dict[str, str], tmp_path: Path) -> None:
    script = step_of_action("Run the recipes")["run"]
    (tmp_path / "small.yaml").write_text(RECIPE)
    env = runner | inputs(recipes="\n*.yaml\n", set="verify.level=structure\ncard.text=It is small.\n")
    done = run_step(script, tmp_path, env)
    assert done.returncode == 0, done.stderr
    outputs = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    assert json.loads(Path(outputs["summary"]).read_text())["schema"].startswith("tritpack.recipe")
    folder = tmp_path / outputs["folder"]
    assert list(folder.glob("*.tar.zst")) and list(folder.rglob("junit.xml"))
    assert "It is small." in next(folder.rglob("README.md")).read_text()
    assert "PASS" in (tmp_path / "summary").read_text()


def test_the_action_ends_with_the_code_of_tritpack(runner: dict[str, str], tmp_path: Path) -> None:
    done = run_step(step_of_action("Run the recipes")["run"], tmp_path, runner | inputs(recipes="no-such-recipe"))
    assert done.returncode == 3 and "no-such-recipe" in done.stderr


def test_the_action_installs_its_own_checkout(runner: dict[str, str], tmp_path: Path) -> None:
    step = step_of_action("Install tritpack")
    assert "github.action_path" in step["env"]["INSTALL"]
    assert (ACTION.parent / "../../..").resolve() == REPOSITORY
    pip = tmp_path / "bin" / "python"
    pip.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$RUNNER_TEMP/installed"\n')
    done = run_step(step["run"], tmp_path, runner | {"INSTALL": str(REPOSITORY), "EXTRAS": "attest,dask"})
    assert done.returncode == 0 and done.stdout.startswith("tritpack"), done.stderr
    assert (tmp_path / "installed").read_text().split() == ["-m", "pip", "install", f"{REPOSITORY}[attest,dask]"]


def test_no_input_is_pasted_into_a_script() -> None:
    """What stands in an input is text and never a command: it reaches the scripts by the environment."""
    for step in loaded(ACTION)["runs"]["steps"]:
        assert "${{" not in step.get("run", ""), step


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name
)
def test_workflows_use_what_is_there(path: Path) -> None:
    for name, job in loaded(path)["jobs"].items():
        for step in job["steps"]:
            if str(step.get("uses", "")).startswith("./"):
                action = loaded(REPOSITORY / step["uses"] / "action.yml")
                assert set(step["with"]) <= set(action["inputs"]), name
                required = {key for key, about in action["inputs"].items() if about.get("required")}
                assert required <= set(step["with"]), name


def test_gitlabs_script_runs(runner: dict[str, str], tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "ci.md").read_text()
    [snippet] = re.findall(r"## GitLab\n.*?```yaml\n(.*?)```", text, re.DOTALL)
    job = yaml.safe_load(snippet)["convert"]
    install, *rest = job["script"]
    assert install == 'python -m pip install "$TRITPACK"'
    (tmp_path / "small.yaml").write_text(RECIPE)
    env = runner | {**job["variables"], "CI_PROJECT_DIR": str(tmp_path), "RECIPES": "small.yaml"}
    done = run_step("\n".join(rest), tmp_path, env)
    assert done.returncode == 0, done.stderr
    for pattern in (*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]):
        assert list(tmp_path.glob(pattern.rstrip("/"))), pattern
