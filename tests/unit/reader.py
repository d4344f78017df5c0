"""HTML pages as a browser reads them."""

from __future__ import annotations

import html.parser
import re


class Parsed(html.parser.HTMLParser):
    """A page as a browser reads it; fails where a tag is not closed in its turn."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


def assert_self_contained(text: str) -> None:
    parsed = Parsed(text)
    for tag, attributes in parsed.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    ids = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    assert {attributes["href"] for tag, attributes in parsed.tags if tag == "a"} == {
        f"#{i}" for i in ids if "-" not in i
    }
    assert not re.search(r"url\(|@import|https?://", text.partition("</style>")[0])
