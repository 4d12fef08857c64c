"""Reading recipes: types, places of errors, suggestions, --set, environment variables, hostile YAML, the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import REPOSITORY
from tritpack.converter.release.recipe.reader import LARGEST, read_recipe, yaml_text
from tritpack.converter.release.recipe.recipe import Recipe
from tritpack.converter.release.recipe.schema import FILE, schema
from tritpack.converter.release.recipe.shelf import find, load, shipped
from tritpack.formats.errors import Unreadable, UsageError

VALIDATOR = jsonschema.Draft202012Validator(schema())
GOOD = """\
name: m
source:
  repository: org/model
outputs:
  - {outtype: i2_s}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(text, "utf-8")
    return path


WRONG = {
    "unknown key": (GOOD + "golde: []\n", "6:1", "a recipe has no key 'golde'", "did you mean golden?"),
    "unknown key below": (GOOD.replace("outtype", "outype"), "5:6", "output has no key 'outype'", "outtype"),
    "unknown value": (GOOD.replace("i2_s", "i2s"), "5:15", "'i2s' is unknown", "did you mean i2_s"),
    "missing": ("name: m\noutputs: [{}]\n", "1:1", "the key 'source' is missing", "The checkpoint"),
    "twice": (GOOD + "name: n\n", "6:1", "'name' is here twice", None),
    "text": (GOOD.replace("name: m", "name: 1.58"), "1:7", "expected text, found '1.58'", 'write "1.58" in quotes'),
    "number": (GOOD + "shape: {layers: many}\n", "6:17", "expected a whole number, found 'many'", None),
    "boolean": (GOOD + "package: {bundle: 1}\n", "6:19", "expected true or false", None),
    "too small": (GOOD + "shape: {layers: 0}\n", "6:17", "is 0, expected at least 1", None),
    "not a list": (GOOD.replace("  - {outtype: i2_s}", "  outtype: i2_s"), "5:3", "expected a list", None),
    "not keys": (GOOD + "card: text\n", "6:7", "expected keys and values, found 'text'", "text"),
    "no outputs": (GOOD.replace("\n  - {outtype: i2_s}", " []"), "4:10", "has 0 elements", None),
    "name": (GOOD.replace("name: m", "name: ../m"), "1:7", "'../m' is not right here", "must match"),
    "syntax": (GOOD + "card: [\n", "7:1", "is not YAML", None),
    "alias": (GOOD + "card: &a {text: *a}\n", "6:17", "aliases are not for recipes", "write the value out"),
    "repository": (GOOD.replace("org/model", "org/a--b"), "3:15", "no repository on the Hub", None),
    "both": (GOOD.replace("  repository", "  path: .\n  repository"), "3:3", "either a repository or a path", None),
    "page": (GOOD.replace("org/model", "org/model\n  url: https://hf.co/org/other"), "4:8", "not the page", None),
    "engine": (GOOD.replace("i2_s}", "t158, engine: llama.cpp}"), "5:15", "llama.cpp does not load t158", "loads"),
    "size": (GOOD.replace("i2_s}", "i2_s, split_max_size: 0M}"), "5:5", "'0M' is not a size", "500M"),
    "same name": (GOOD + "  - {outtype: i2_s}\n", "5:5", "two outputs have the same name", "suffix"),
    "family": (GOOD + "family: llamma\n", "6:9", "no family is called 'llamma'", "did you mean llama"),
    "bound": (GOOD + "verify: {thresholds: [{rung: text, figure: top1}]}\n", "6:23", "has no bound", "least"),
    "bound above": (GOOD + "verify: {level: weights, thresholds: [{rung: text, figure: a, most: 1}]}\n", "6:46",
                    "the level weights stops before the rung text", None),
    "golden above": (GOOD + "verify: {level: text}\ngolden: [{prompt: a}]\n", "7:9",
                     "is for the rung generation", "full"),
    "not a number": (GOOD + "shape: {layers: !!int ''}\n", "6:17", "expected a whole number, found ''", None),
    "digits": (GOOD + "shape: {layers: " + "9" * 5000 + "}\n", "6:17", "expected a whole number", None),
    "no boolean": (GOOD + "package: {bundle: !!bool maybe}\n", "6:19", "expected true or false, found 'maybe'", None),
    "a tag of theirs": (GOOD + "shape: {layers: !x:int 3}\n", "6:17", "expected a whole number", None),
    "large": (GOOD + "golden: [{prompt: a, greedy: [1" + "0" * 30 + "]}]\n", "6:31", "is more than 9223372036", None),
    "too large": (GOOD + f"verify: {{thresholds: [{{rung: text, figure: a, most: {10**400}}}]}}\n", "6:53",
                  "expected a number", None),
    "half a pair": (GOOD + 'card: {text: "\\ud800"}\n', "6:14", "half of a surrogate pair", None),
    "long path": (GOOD.replace("repository: org/model", "path: " + "a" * 5000), "3:9", "does not exist", None),
    "null": (GOOD.replace("name: m", "name: null"), "1:7", "expected text, found nothing", None),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_error_has_its_place(case: str, tmp_path: Path) -> None:
    text, place, message, hint = WRONG[case]
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        load(path)
    assert str(raised.value.path) == f"{path}:{place}" and message in raised.value.message
    assert (hint or "") in (raised.value.hint or "")


HOSTILE = {
    "deep": "name: " + "[" * 600,
    "huge": "name: " + "a" * LARGEST,
    "empty": "",
    "a list": "- a\n",
    "python": GOOD + "card: !!python/object/apply:os.system [exit 1]\n",
    "key": GOOD + "? [a]\n: b\n",
    "control": GOOD + 'card: {text: "\x07"}\n',
    "documents": GOOD + "---\n" + GOOD,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_yaml_is_one_sentence(case: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        load(written(tmp_path, HOSTILE[case]))
    assert str(raised.value).startswith(str(tmp_path / "r.yaml")) and "\n" not in str(raised.value)


def test_set_changes_values(tmp_path: Path) -> None:
    sets = [
        "source.revision=12345678", "outputs.0.outtype=t158", "outputs.1.outtype=auto", "shape.layers=3", "name=n",
        "verify.thresholds=[{rung: text, figure: top1, least: 1}]", "card.text=", "golden=[{prompt: a, greedy: [1]}]",
    ]  # fmt: skip
    document = load(written(tmp_path, GOOD), overrides=sets)
    recipe = document.recipe
    assert recipe.source.revision == "12345678" and recipe.name == "n" and recipe.shape.layers == 3
    assert [output.outtype for output in recipe.outputs] == ["t158", "auto"]
    assert recipe.verify.thresholds[0].least == 1.0 and recipe.golden[0].greedy == (1,) and recipe.card.text == ""
    again = written(tmp_path, yaml_text(document.root, {"source.revision": "0" * 40}))
    assert load(again).recipe.source.revision == "0" * 40


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("name", "has no key"), ("a..b=1", "has no key"), ("nam=x", "a recipe has no key 'nam'"),
        ("outputs.7.outtype=t2", "no place for '7'"), ("name.x=1", "no place for 'x'"), ("name=[", "is not YAML"),
        ("outputs.0.outtype=nothing", "'nothing' is unknown"), (f"outputs.{'1' * 5000}.x=1", "no place for '1"),
    ],
)  # fmt: skip
def test_a_wrong_set_is_named(override: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        load(written(tmp_path, GOOD), overrides=[override])
    assert "--set " in str(raised.value)


def test_variables_are_expanded_in_paths_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "checkpoint")
    (tmp_path / "checkpoint").mkdir()
    text = "name: m\nsource: {path: '${HERE}'}\noutputs: [{}]\ncard: {text: $HERE}\n"
    recipe = load(written(tmp_path, text)).recipe
    assert recipe.source.path == str(tmp_path / "checkpoint") and recipe.card.text == "$HERE"
    monkeypatch.chdir(tmp_path)
    assert load(written(tmp_path, text), overrides=["source.path=$HERE"]).recipe.source.path == "checkpoint"
    monkeypatch.delenv("HERE")
    with pytest.raises(UsageError, match="variable HERE is not set"):
        load(tmp_path / "r.yaml")
    with pytest.raises(UsageError, match="nowhere does not exist"):
        load(written(tmp_path, text.replace("${HERE}", "nowhere")))


def test_recipes_are_found_by_name(tmp_path: Path) -> None:
    assert find("demo") == shipped()["demo"] and find(shipped()["demo"]) == shipped()["demo"]
    with pytest.raises(Unreadable, match="no shipped recipe") as raised:
        find("dmo")
    assert raised.value.hint == "did you mean demo?"
    with pytest.raises(Unreadable, match="does not exist"):
        find(tmp_path / "x.yaml")


def test_a_folder_hides_no_shipped_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert find("demo") == shipped()["demo"]


def test_the_schema_file_is_that_of_the_types() -> None:
    text = (REPOSITORY / "recipes" / FILE).read_text("utf-8")
    assert json.loads(text) == schema(), (
        "write it anew: tritpack recipe check --json-schema > recipes/recipe.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("name", shipped())
def test_the_schema_accepts_what_is_right(name: str) -> None:
    VALIDATOR.validate(yaml.safe_load(shipped()[name].read_text("utf-8")))


TYPED = ("unknown key", "unknown key below", "unknown value", "missing", "text", "number", "boolean", "too small",
         "not a list", "not keys", "no outputs", "name", "null")  # fmt: skip


@pytest.mark.parametrize("case", TYPED)
def test_the_schema_refuses_what_the_types_refuse(case: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(yaml.safe_load(WRONG[case][0]))


def test_defaults_are_those_of_the_types(tmp_path: Path) -> None:
    recipe: Any = read_recipe(written(tmp_path, GOOD + "verify: null\ncard:\n")).recipe
    assert recipe.verify == Recipe.verify and recipe.card == Recipe.card and recipe.source.revision == "main"
