"""The conditions of `inspect --fail-on`: what a CI job wants to be told of a file by the exit code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tritpack.converter.inspect.origin import is_known
from tritpack.formats.errors import UsageError
from tritpack.formats.suggestions import did_you_mean

DAMAGE, UNKNOWN_ORIGIN, ENGINE = "damage", "unknown-origin", "engine:"


def check_conditions(conditions: Sequence[str]) -> None:
    """Raise UsageError for a condition that is none, and for an engine that is not in the table."""
    for condition in conditions:
        if condition.startswith(ENGINE):
            _check_engine(condition.removeprefix(ENGINE))
        elif condition not in (DAMAGE, UNKNOWN_ORIGIN):
            hint = f"choose {DAMAGE}, {UNKNOWN_ORIGIN} or {ENGINE}NAME"
            raise UsageError(f"--fail-on {condition} is unknown", hint=hint)


def _check_engine(name: str) -> None:
    from tritpack.converter.targets.engines import table

    engines = [version.name for engine in table.rows() for version in engine.all_versions()]
    if not any(_is_named(engine, _in_the_table(name)) for engine in engines):
        raise UsageError(
            f"--fail-on {ENGINE}{name}: no engine of that name is known",
            hint=did_you_mean(name, engines) or f"choose one of: {', '.join(engines)}",
        )


def _in_the_table(name: str) -> str:
    """Return the version of an engine for which `--for NAME` writes files; any other name as it is."""
    from tritpack.converter.targets.engines import table

    targets = [row.target for row in table.rows() if row.target and row.target.name == name]
    return targets[0].version if targets else name


def _is_named(engine: str, name: str) -> bool:
    """Whether a name is that of an engine, or of all its versions."""
    return engine == name or engine.startswith(name + " ")


def failures(result: Mapping[str, Any], conditions: Sequence[str]) -> list[str]:
    """Return one sentence per condition that holds. conditions: that check_conditions has let through."""
    return [sentence for condition in conditions for sentence in _failures(result, condition)]


def _failures(result: Mapping[str, Any], condition: str) -> Iterator[str]:
    if condition == DAMAGE:
        if result["damage"]:
            yield _damaged(result)
    elif condition == UNKNOWN_ORIGIN:
        if not is_known(result["origin"]):
            yield "it names neither a repository nor an address as its source, and its folder has no attestation"
    else:
        sentences = list(_engine(result["engines"], condition.removeprefix(ENGINE)))
        yield from sentences or ([_damaged(result)] if result["damage"] else [])


def _damaged(result: Mapping[str, Any]) -> str:
    return f"it is damaged: {result['damage'][0]}"


def _engine(engines: Sequence[Mapping[str, Any]], name: str) -> Iterator[str]:
    """An engine of several versions has a row for each, and all of them must run the file right."""
    if not engines:
        yield f"nothing is known of {name} and such a folder, which cannot be converted"
    full_name = _in_the_table(name)
    for row in (row for row in engines if _is_named(row["engine"], full_name)):
        if row["verdict"] != "right":
            words = {"wrong": "runs it wrong", "refuses": "refuses it", "unknown": "was not tried with such a file"}
            yield f"{row['engine']} {words[row['verdict']]}{': ' + row['why'] if row['why'] else ''}"
