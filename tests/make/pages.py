"""Pages that commands write, read strictly."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = "\"><script>alert(1)</script><img src=http://example.com/x onerror=alert(2)>'&amp;"
VOID = {"meta", "br", "img", "link"}


class Page(HTMLParser):
    """Checks that every tag is closed where it belongs. tags: their names; links: what attributes refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action", "data", "poster")]
        assert not any(name.startswith("on") for name, _ in attrs), attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
