"""Templates of reports and pages. What they show is escaped, and the pages load nothing."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

from tritpack.converter.report import markdown
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
