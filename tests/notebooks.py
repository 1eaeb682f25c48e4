"""What a notebook shows of a thing, read back: only our own tags, and the text."""

from __future__ import annotations

from html.parser import HTMLParser

EVIL = "<script>alert('1')</script>&\"<b>"
"""A name from somebody's table."""


class Tags(HTMLParser):
    """Names of the tags of a text, opened and closed in pairs, and the words between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


OURS = {"div", "p", "strong", "section", "h2", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td"}


def shown(thing: object) -> str:
    """The text that a notebook shows, after the check that only our tags are in it."""
    page = Tags(thing._repr_html_())
    assert page.seen <= OURS
    return page.text
