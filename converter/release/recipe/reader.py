"""Reads a recipe: YAML to types. An error has file, line and column, and names the nearest right key."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from tritpack.converter.release.recipe.recipe import Recipe, Rules
from tritpack.formats.errors import UsageError
from tritpack.formats.inputs import read_text
from tritpack.formats.suggestions import did_you_mean

LARGEST = 1 << 20
"""Characters of a recipe."""
LARGEST_NUMBER = (1 << 63) - 1
"""Of the whole numbers in a recipe: what the rest of the program can hold in its arrays."""
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)
SURROGATE = re.compile("[\ud800-\udfff]")
INDEX = re.compile("[0-9]{1,9}")
"""Of an element of a list."""
SET = "--set "
TAGS = {str: "str", bool: "bool", int: "int", float: "float"}
KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
YAML = "tag:yaml.org,2002:"
NULL = f"{YAML}null"


@dataclasses.dataclass(frozen=True)
class Document:
    """A recipe and the YAML that it was read from. path: the file. root: with what --set has changed."""

    recipe: Recipe
    path: Path
    root: yaml.MappingNode

    def refuse(self, keys: Sequence[str | int], message: str, hint: str | None = None) -> NoReturn:
        """Raise UsageError at the value of a key, which is named by the keys and indices that lead to it."""
        node: yaml.Node = self.root
        for name in keys:
            below = _child(node, str(name))
            if below is None:
                break
            node = below
        _refuse(node, message, hint)


class _Loader(yaml.SafeLoader):
    """Gives nodes with their places. An alias is an error: it could be its own ancestor."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
            _refuse_at(typing.cast(yaml.Mark, event.start_mark), "aliases are not for recipes", "write the value out")
        return super().compose_node(parent, index)


def read_recipe(path: str | Path, *, overrides: Sequence[str] = ()) -> Document:
    """Read a recipe. overrides: KEY=VALUE, where KEY is dotted (`source.revision`, `outputs.0.outtype`) and VALUE is
    YAML.

    Raises Unreadable if there is no such file, and UsageError with file, line and column for everything that no recipe
    can hold.
    """
    path = Path(path)
    root = _compose(read_text(path), str(path))
    if not isinstance(root, yaml.MappingNode):
        raise UsageError("holds no keys", path=path, hint="a recipe begins with its name: `name: MODEL`")
    for override in overrides:
        _override(root, override)
    return Document(_typed(Recipe, root, path.absolute().parent), path, root)


def _compose(text: str, name: str) -> yaml.Node | None:
    if len(text) > LARGEST:
        raise UsageError(f"has {len(text)} characters, a recipe at most {LARGEST}", path=name)
    try:
        loader = _Loader(text, name)
        try:
            node: yaml.Node | None = loader.get_single_node()
        finally:
            loader.dispose()
        return node
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark or error.context_mark, error.problem or str(error)
        if mark is None:
            raise UsageError(f"is not YAML: {problem}", path=name) from error
        _refuse_at(mark, f"is not YAML: {problem}")
    except yaml.YAMLError as error:
        raise UsageError(f"is not YAML: {' '.join(str(error).split())}", path=name) from error
    except RecursionError as error:
        raise UsageError("is nested too deeply", path=name) from error


def place_of(node: yaml.Node) -> str:
    """Return FILE:LINE:COLUMN of a node, both from 1; `--set KEY` for one that came from there."""
    mark = node.start_mark
    return mark.name if mark.name.startswith(SET) else f"{mark.name}:{mark.line + 1}:{mark.column + 1}"


def _refuse(node: yaml.Node, message: str, hint: str | None = None) -> NoReturn:
    raise UsageError(message, path=place_of(node), hint=hint)


def _refuse_at(mark: yaml.Mark, message: str, hint: str | None = None) -> NoReturn:
    raise UsageError(message, path=f"{mark.name}:{mark.line + 1}:{mark.column + 1}", hint=hint)


# -- values ------------------------------------------------------------------------------------------------------------


def _typed(kind: type, node: yaml.Node, base: Path) -> Any:
    """Return a mapping node as one of the dataclasses. base: the folder that paths are relative to."""
    if not isinstance(node, yaml.MappingNode):
        _refuse(node, f"expected keys and values, found {_shown(node)}", f"it can have: {', '.join(fields_of(kind))}")
    known, values = fields_of(kind), {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name not in known:
            where = "a recipe" if kind is Recipe else kind.__name__.lower()
            hint = did_you_mean(str(name), known) or f"it can have: {', '.join(known)}"
            _refuse(key, f"{where} has no key {_shown(key)}", hint)
        if name in values:
            _refuse(key, f"the key {name!r} is here twice")
        values[name] = _value(known[name], value, base)
    for name, field in known.items():
        if name not in values and field.default is dataclasses.MISSING:
            _refuse(node, f"the key {name!r} is missing", field.metadata["rules"].about)
    given = {name: value for name, value in values.items() if value is not None}
    return kind(**given)


@functools.cache
def fields_of(kind: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a dataclass of recipe.py by name, with their types resolved."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name, field in fields.items():
        field.type = hints[name]
    return fields


def _value(field: dataclasses.Field[Any], node: yaml.Node, base: Path) -> Any:
    """Return a value, None for null where the key has a default."""
    kind, rules = field.type, field.metadata["rules"]
    if node.tag == NULL and field.default is not dataclasses.MISSING:
        return None
    if isinstance(kind, types.UnionType):
        [kind] = (part for part in typing.get_args(kind) if part is not type(None))
    if dataclasses.is_dataclass(kind):
        return _typed(typing.cast(type, kind), node, base)
    if typing.get_origin(kind) is tuple:
        return _sequence(typing.get_args(kind)[0], node, rules, base)
    return _scalar(typing.cast(type, kind), node, rules, base)


def _sequence(kind: type, node: yaml.Node, rules: Rules, base: Path) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        _refuse(node, f"expected a list, found {_shown(node)}")
    if rules.least is not None and len(node.value) < rules.least:
        _refuse(node, f"has {len(node.value)} elements, expected at least {rules.least}")
    if dataclasses.is_dataclass(kind):
        return tuple(_typed(kind, element, base) for element in node.value)
    return tuple(_scalar(kind, element, rules, base) for element in node.value)


def _scalar(kind: type, node: yaml.Node, rules: Rules, base: Path) -> Any:
    tags = ("int", "float") if kind is float else (TAGS[kind],)
    is_word = kind is str and isinstance(node, yaml.ScalarNode) and node.start_mark.name.startswith(SET)
    if not is_word and (not isinstance(node, yaml.ScalarNode) or node.tag not in {YAML + tag for tag in tags}):
        hint = f'write "{node.value}" in quotes' if kind is str and isinstance(node, yaml.ScalarNode) else None
        _refuse(node, f"expected {KINDS[kind]}, found {_shown(node)}", hint)
    if kind is not str:
        return _number(kind, typing.cast(yaml.ScalarNode, node), rules)
    text = str(node.value)
    if SURROGATE.search(text):
        _refuse(node, f"{_shown(node)} has half of a surrogate pair, which no text can hold")
    if rules.choices and text not in rules.choices:
        _refuse(node, f"{text!r} is unknown", did_you_mean(text, rules.choices) or f"one of {', '.join(rules.choices)}")
    if rules.pattern and not re.fullmatch(rules.pattern, text):
        _refuse(node, f"{_shown(node)} is not right here: {rules.about}", f"it must match {rules.pattern}")
    return _path(node, text, base) if rules.is_path else text


def _number(kind: type, node: yaml.ScalarNode, rules: Rules) -> Any:
    try:
        value = kind(yaml.SafeLoader("").construct_object(node))  # type: ignore[no-untyped-call]
    except (ValueError, LookupError, OverflowError):  # a tag that the text does not fit, or thousands of digits
        _refuse(node, f"expected {KINDS[kind]}, found {_shown(node)}")
    if rules.least is not None and value < rules.least:
        _refuse(node, f"is {value}, expected at least {rules.least}")
    if value != value:
        _refuse(node, "is not a number")
    if kind is int and value > LARGEST_NUMBER:
        _refuse(node, f"is more than {LARGEST_NUMBER}")
    return value


def _path(node: yaml.Node, text: str, base: Path) -> str:
    """Expand environment variables. A relative path is relative to the recipe, or for --set to the current folder."""

    def expanded(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            _refuse(node, f"the environment variable {name} is not set")
        return os.environ[name]

    if not text:
        _refuse(node, "a path is empty")
    path = VARIABLE.sub(expanded, text)
    return path if node.start_mark.name.startswith(SET) else os.path.normpath(base / path)


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value[:60]) if node.tag != NULL else "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "keys and values"


# -- --set -------------------------------------------------------------------------------------------------------------


def _override(root: yaml.MappingNode, override: str) -> None:
    """Put the value of KEY=VALUE into the tree; mappings on the way that are not there are made."""
    dotted, equals, text = override.partition("=")
    names, place = dotted.split("."), f"{SET}{dotted}"
    if not equals or not all(names):
        raise UsageError(f"{SET}{override!r} has no key", hint="write --set source.revision=COMMIT")
    value = _compose(text, place) or yaml.ScalarNode(NULL, "")
    mark = yaml.Mark(place, 0, 0, 0, None, 0)  # type: ignore[arg-type, unused-ignore]
    value.start_mark = mark
    node: yaml.Node = root
    for name in names[:-1]:
        below = _child(node, name)
        if below is None or below.tag == NULL:
            below = yaml.MappingNode("tag:yaml.org,2002:map", [], mark, mark)
            _put(node, name, below, mark)
        node = below
    _put(node, names[-1], value, mark)


def _child(node: yaml.Node, name: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == name), None)
    if isinstance(node, yaml.SequenceNode) and INDEX.fullmatch(name) and int(name) < len(node.value):
        child: yaml.Node = node.value[int(name)]
        return child
    return None


def _put(node: yaml.Node, name: str, value: yaml.Node, mark: yaml.Mark) -> None:
    if isinstance(node, yaml.MappingNode):
        new = (yaml.ScalarNode("tag:yaml.org,2002:str", name, mark, mark), value)
        names = [key.value for key, _ in node.value]
        at = names.index(name) if name in names else len(names)
        node.value[at : at + 1] = [new]
    elif isinstance(node, yaml.SequenceNode) and INDEX.fullmatch(name) and int(name) <= len(node.value):
        node.value[int(name) : int(name) + 1] = [value]
    else:
        raise UsageError(f"there is no place for {name!r}", path=mark.name)


def yaml_text(root: yaml.MappingNode, changes: Mapping[str, str]) -> str:
    """Return a recipe as YAML, without its comments. changes: dotted key -> text."""
    changed = copy.deepcopy(root)
    for dotted, text in changes.items():
        *above, last = dotted.split(".")
        node: yaml.Node = changed
        for name in above:
            node = _child(node, name) or node
        _put(node, last, yaml.ScalarNode("tag:yaml.org,2002:str", text), changed.start_mark)
    return str(yaml.serialize(changed, Dumper=yaml.SafeDumper, allow_unicode=True, width=110))
