"""Pages and their templates. What they show is escaped, and the pages load nothing."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from tritpack.converter.report import markdown
from tritpack.formats.files import atomic_output, refuse_existing
from tritpack.formats.printable import printable


@functools.cache
def template(name: str) -> Any:
    """Return a template of the folder templates/, compiled; those of pages may extend and include others."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    folder = resources.files(__package__) / "templates"
    is_page = name.endswith(".html.j2")

    def finalize(value: Any) -> Any:
        """No character that a page does not show leaves a file."""
        return printable(value) if is_page and isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        finalize=finalize,
        loader=FunctionLoader(lambda part: (folder / part).read_text("utf-8")),
        autoescape=is_page,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"text": markdown.text, "code": markdown.code}
    return environment.get_template(name)


def refuse_page(output: str | Path, *, force: bool, inputs: Iterable[str | Path]) -> None:
    """Raise UsageError or WriteFailed, before the work, for an output that must not or cannot be written.

    inputs: files, or folders of files, that are read; no page replaces one of them. force: others may be replaced.
    """
    paths = [Path(name) for name in inputs]
    files = [file for path in paths if path.is_dir() for file in path.iterdir()]
    refuse_existing(Path(output), force=force, inputs=[*paths, *files])


def write_file(output: str | Path, text: str, *, force: bool) -> None:
    """Write a page completely or not at all. Raises UsageError and WriteFailed."""
    data = text.encode("utf-8")
    with atomic_output(Path(output), len(data), force=force) as stream:
        stream.write(data)
