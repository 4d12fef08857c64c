"""Mutations that keep an input's structure, so that they reach what lies behind the parser."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

from tests.fuzz.inputs import parsed

Mutation = Callable[[bytes, int, random.Random], bytes]
NUMBERS = (
    0, 1, -1, 2, 3, 31, 127, 255, 256, 65535, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1, 10**40,
)  # fmt: skip
FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-320, 1e38, 1e39, 1e308, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "", " ", "\n", "\0", "a", "none", "null", "0", "-1", "../x", "/dev/zero", "\u2581", "<0x0A>", "\ud800", "\x1b[2J",
    "{{", "%}", "U8", "BF16",
)  # fmt: skip
ODD = (None, True, False, [], {}, [[]], [None], {"": None}, [0, 1], "a" * 3000, [1] * 300)
JINJA = (
    "{% for m in messages %}", "{% endfor %}", "{{ m['content'] }}", "{% if not x %}", "{% endif %}",
    "{{ range(10**9) }}", "{{ 'a' * 10**9 }}", "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "{{ x.__class__ }}", "{% set n = namespace(a=1) %}", "{{ '%999999999d' % 1 }}", "{{ '{:>999999999}'.format(1) }}",
    "{{ messages | tojson(indent=10**9) }}", "{{ raise_exception('x') }}", "{{ strftime_now('%' * 99) }}",
    "| join('x' * 99999)", "{{ [1] | batch(10**8, 0) | list }}", "{{ 'a'.center(10**10) }}", "{% generation %}",
    "{{ lipsum(99999) }}", "{{ cycler }}", "{{ messages | map(attribute='a.b') | list }}", "{{ 1/0 }}",
    "{{ undefined.x }}",
)  # fmt: skip


def json_mutation(data: bytes, most: int, rng: random.Random) -> bytes:
    """Change one to three values or keys of a JSON document; the data as they are if the result is too long."""
    document = parsed(data)
    if document is None:
        return data
    document = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        document = _changed(document, rng)
    result = json.dumps(document).encode()
    return result if len(result) <= most else data


def _changed(document: Any, rng: random.Random) -> Any:
    places = list(_places(document))
    if not places:
        return _value(document, rng)
    raw = [place for place in places if _is_raw(_at(place))]
    holder, name = rng.choice(raw if raw and rng.random() < 0.5 else places)
    action = rng.random()
    if action < 0.12:
        del holder[name]
    elif action < 0.2:
        holder[name] = copy.deepcopy(_at(rng.choice(places)))
    elif action < 0.28 and isinstance(holder, dict):
        holder[rng.choice((*TEXTS, name + "s", *holder))] = copy.deepcopy(holder[name])
    elif action < 0.34 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[name]))
    else:
        holder[name] = _value(holder[name], rng)
    return document


def _at(place: tuple[Any, Any]) -> Any:
    return place[0][place[1]]


def _places(value: Any) -> Any:
    """Every (dict or list, key) of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield value, name
        yield from _places(inner)


def _value(old: Any, rng: random.Random) -> Any:
    """Another value: of the same type in most cases."""
    if _is_raw(old) and rng.random() < 0.9:
        return _other_bytes(old, rng)
    if rng.random() < 0.3:
        return copy.deepcopy(rng.choice((*NUMBERS, *FLOATS, *TEXTS, *ODD)))
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return rng.choice((*NUMBERS, old + 1, old - 1, old * 2, -old, float(old), str(old), old // 2))
    if isinstance(old, float):
        return rng.choice((*FLOATS, old * 2, -old, int(old) if abs(old) < 1e300 else 0))
    if isinstance(old, str):
        at, end = sorted(rng.choices(range(len(old) + 1), k=2))
        return rng.choice((*TEXTS, old[:at] + old[end:], old[:at] + rng.choice((*TEXTS, *JINJA)) + old[at:], old * 2))
    return rng.choice((None, [old], {"a": old}, str(old)))


def _is_raw(value: Any) -> bool:
    """Whether it stands for bytes, see inputs.py."""
    return isinstance(value, str) and value.startswith("\0") and len(value) > 1 and max(value) <= "\xff"


def _other_bytes(old: str, rng: random.Random) -> str:
    """Other bytes: a few replaced, some left out, or some again at another place; of a GGUF file, other numbers."""
    if old.startswith("\0GGUF") and rng.random() < 0.8:
        return "\0" + gguf_mutation(old[1:].encode("latin-1"), len(old), rng).decode("latin-1")
    action, changed = rng.random(), list(old)
    at, end = sorted(rng.choices(range(1, len(old)), k=2))
    if action < 0.1:
        del changed[at:end]
    elif action < 0.2:
        changed[at:at] = changed[rng.randrange(1, len(old)) :][: end - at]
    else:
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(1, len(old))
            changed[place] = chr(
                rng.choice((0, 1, 0x7F, 0x80, 0xFF, ord(changed[place]) ^ 1 << rng.randrange(8))) & 255
            )
    return "".join(changed)


def gguf_mutation(data: bytes, most: int, rng: random.Random) -> bytes:
    """Replace one to three numbers of a GGUF header, or a byte of its data."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        fields = _gguf_fields(bytes(changed))
        if not fields or rng.random() < 0.1:
            if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            continue
        start, size = rng.choice(fields)
        old = int.from_bytes(changed[start : start + size], "little")
        near = (old + 1, old - 1, old * 2, old // 2, old ^ 1 << rng.randrange(8 * size))
        value = rng.choice((*NUMBERS, *near, rng.randrange(48)))
        if size > 8:  # text, or numbers of an array
            start += rng.randrange(size)
            size = 1
        changed[start : start + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    if rng.random() < 0.05:
        del changed[rng.randrange(len(changed) + 1) :]
    return bytes(changed[:most])


SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type id."""


def _gguf_fields(data: bytes) -> list[tuple[int, int]]:
    """(start, bytes) of every field of the header, as far as it can be followed."""
    fields: list[tuple[int, int]] = [(4, 4), (8, 8), (16, 8)]
    at = 24

    def number(size: int) -> int:
        nonlocal at
        value = int.from_bytes(data[at : at + size], "little")
        fields.append((at, size))
        at += size
        if at > len(data):
            raise EOFError
        return value

    def text() -> None:
        nonlocal at
        if length := number(8):
            fields.append((at, min(length, 64)))
        at += length

    def value(kind: int) -> None:
        if kind == 8:
            text()
        elif kind == 9:
            element, count = number(4), number(8)
            for _ in range(min(count, 1 << 12)):
                value(element)
        else:
            number(SIZES[kind])

    try:
        tensors, pairs = struct.unpack_from("<QQ", data, 8)
        for _ in range(min(pairs, 999)):
            text()
            value(number(4))
        for _ in range(min(tensors, 999)):
            text()
            for _ in range(min(number(4), 9)):
                number(8)
            number(4), number(8)
    except (EOFError, KeyError, struct.error, RecursionError):
        pass
    return [field for field in fields if field[0] + field[1] <= len(data)]


MUTATIONS: dict[str, Mutation] = dict.fromkeys(("gguf", "gguf_model", "gguf_used"), gguf_mutation)
"""By target; all others take JSON."""
