"""formats/names.py is the list; the tables that say what each name means have the same entries."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tritpack.formats import model_spec, names
from tritpack.formats.float_types import FLOAT_TYPES
from tritpack.formats.layouts import catalog

TABLES = {
    "layouts": (catalog.LAYOUTS, (*names.LAYOUTS, *names.CHECKPOINT_LAYOUTS)),
    "read only": (catalog.READ_ONLY, names.READ_ONLY),
    "read_as": (catalog.REPAIRABLE, names.READ_AS),
    "float types": (FLOAT_TYPES, names.FLOAT_TYPES),
    "implied activations": (set(model_spec.IMPLIED_ACTIVATION.values()), names.ACTIVATIONS),
}


@pytest.mark.parametrize(("table", "listed"), TABLES.values(), ids=TABLES)
def test_tables_have_the_listed_names(table: Iterable[str], listed: tuple[str, ...]) -> None:
    assert sorted(table) == sorted(listed)


def test_names_are_listed_in_the_order_of_the_tables() -> None:
    """The order of the list is that of the C enum."""
    assert (*catalog.LAYOUTS,) == (*names.LAYOUTS, *names.CHECKPOINT_LAYOUTS)
    assert (*FLOAT_TYPES,) == names.FLOAT_TYPES


@pytest.mark.parametrize("name", names.LAYOUTS)
def test_layouts_of_gguf_files_have_a_type_id(name: str) -> None:
    assert catalog.type_of(name).layout is catalog.LAYOUTS[name]


@pytest.mark.parametrize("name", names.FLOAT_TYPES)
def test_float_types_have_a_type_id(name: str) -> None:
    assert catalog.type_of(name).type_id == FLOAT_TYPES[name].type_id
