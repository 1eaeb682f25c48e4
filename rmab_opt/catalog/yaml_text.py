"""YAML 1.2 to plain values with the line of every key; what could surprise is refused with its line.

Read event by event, so that depth, size and aliases are limited before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import ScalarNode

from rmab_opt.errors import ModelError
from rmab_opt.records import read_regular

__all__ = ["Lines", "read_value", "read_yaml"]

Lines = dict[tuple[Any, ...], int]
"""Line of every key and list entry, by its path."""

MOST_BYTES = 1 << 19
MOST_DEPTH = 40
MOST_COPIED = 10_000
"""Values that aliases may stand for, all together."""

PREFIX = "tag:yaml.org,2002:"
SCALARS = {f"{PREFIX}{name}" for name in ("str", "int", "float", "bool", "null")}


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Plain content of a file, and its lines.

    Raises
    ------
    ModelError
        When it is no YAML mapping, too large or too deep, or has tags, merge keys, doubled keys or keys that are no
        text; names the line.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ModelError(f"{path}: is larger than {MOST_BYTES >> 10} KiB", "put its tables into CSV files.")
        text = read_regular(path).decode("utf-8-sig")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}", "name a file that can be read.") from None
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: is not a YAML text ({error})", "write it as UTF-8 YAML 1.2.") from None
    content, lines = _Text(str(path)).read(text)
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds no mapping", "start with `format: 1`.")
    return content, lines


def read_value(text: str, where: str) -> Any:
    """One value as a model file would have it.

    Raises
    ------
    ModelError
        As :func:`read_yaml` does.
    """
    try:
        return _Text(where).read(text)[0]
    except ModelError as error:
        what = error.message.removeprefix(f"{where}:1: ")
        raise ModelError(
            f"{where}: {text!r} is not a value ({what})", "put text with special signs in quotes."
        ) from None


@dataclass
class _Open:
    """A mapping or a list that is being read."""

    value: dict[str, Any] | list[Any]
    place: tuple[Any, ...]
    anchor: str | None
    key: str | None = None
    first: int = 0
    """Values read before it, to know its size."""


@dataclass
class _Text:
    where: str
    lines: Lines = field(default_factory=dict)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    stack: list[_Open] = field(default_factory=list)
    content: Any = None
    count: int = 0
    copied: int = 0

    def __post_init__(self) -> None:
        self.yaml = YAML(typ="safe", pure=True)

    def read(self, text: str) -> tuple[Any, Lines]:
        documents = 0
        for event in self._events(text):
            documents += isinstance(event, DocumentStartEvent)
            if documents > 1:
                raise self.fault(event, "holds a second document", "keep one")
            if isinstance(event, MappingStartEvent | SequenceStartEvent):
                self._open(event)
            elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                done = self.stack.pop()
                self._anchored(done.anchor, done.value, self.count - done.first)
            elif isinstance(event, AliasEvent):
                self._alias(event)
            elif isinstance(event, ScalarEvent):
                self._scalar(event)
        return self.content, self.lines

    def _events(self, text: str) -> Iterator[Any]:
        try:
            yield from self.yaml.parse(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = " ".join(str(error.problem or error.context or "is not YAML").split("\n")[0].split())
            line = mark.line + 1 if mark is not None else 1
            raise ModelError(f"{self.where}:{line}: {problem}", "repair the YAML at this line.") from None
        except (YAMLError, ValueError) as error:
            said = str(error).splitlines()[0]
            raise ModelError(f"{self.where}: is not a YAML text ({said})", "write it as UTF-8 YAML 1.2.") from None

    def fault(self, event: Any, what: str, fix: str) -> ModelError:
        return ModelError(f"{self.where}:{event.start_mark.line + 1}: {what}", f"{fix}.")

    def _tag(self, event: Any, known: set[str]) -> str | None:
        tag = None if event.tag is None else str(event.tag)
        if tag is not None and tag != "!" and tag not in known:
            raise self.fault(event, f"tags such as {tag.replace(PREFIX, '!!')} are not read", "write plain values")
        return tag

    def _open(self, event: Any) -> None:
        mapping = isinstance(event, MappingStartEvent)
        self._tag(event, {f"{PREFIX}map" if mapping else f"{PREFIX}seq"})
        if len(self.stack) >= MOST_DEPTH:
            raise self.fault(event, f"is nested more than {MOST_DEPTH} deep", "write it flatter")
        value: dict[str, Any] | list[Any] = {} if mapping else []
        place = self._put(event, value)
        if event.anchor is not None:
            self.anchors.pop(event.anchor, None)
        self.stack.append(_Open(value, place, event.anchor, first=self.count))

    def _put(self, event: Any, value: Any) -> tuple[Any, ...]:
        """Put a value where it belongs; its place."""
        self.count += 1
        if not self.stack:
            self.content = value
            return ()
        here = self.stack[-1]
        if isinstance(here.value, list):
            here.value.append(value)
            place = (*here.place, len(here.value) - 1)
            self.lines[place] = event.start_mark.line + 1
            return place
        if here.key is None:
            raise self.fault(event, "a key is no text", "write a word before the colon")
        place = (*here.place, here.key)
        here.value[here.key], here.key = value, None
        return place

    def _key(self, event: ScalarEvent) -> None:
        """A key is the text that stands there: ``1`` and ``'1'`` are one key."""
        here = self.stack[-1]
        plain = event.style is None or event.style == ""
        if plain and event.value == "<<":
            raise self.fault(event, "merge keys (<<) are not read", "write the keys out")
        if plain and event.value in ("", "~", "null"):
            raise self.fault(event, "a key is missing", "write a word before the colon")
        assert isinstance(here.value, dict)
        if event.value in here.value:
            raise self.fault(event, f"duplicate key {event.value!r}", "keep one of them")
        here.key = event.value
        self.lines[(*here.place, event.value)] = event.start_mark.line + 1

    def _scalar(self, event: ScalarEvent) -> None:
        tag = self._tag(event, SCALARS)
        if self.stack and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None:
            self._key(event)
            return
        if tag is None or tag == "!":
            tag = str(self.yaml.resolver.resolve(ScalarNode, event.value, event.implicit))
        try:
            value = self.yaml.constructor.construct_object(ScalarNode(tag, event.value))
        except (YAMLError, ValueError):
            value = event
        if not isinstance(value, bool | int | float | str | None):
            raise self.fault(event, f"{event.value!r} is no text, number, list or mapping", "put it in quotes")
        self._put(event, value)
        self._anchored(event.anchor, value, 1)

    def _anchored(self, anchor: str | None, value: Any, size: int) -> None:
        if anchor is not None:
            self.anchors[anchor] = value, size

    def _alias(self, event: AliasEvent) -> None:
        if event.anchor not in self.anchors:
            raise self.fault(event, f"*{event.anchor} stands for nothing that ended before", "write the value out")
        value, size = self.anchors[event.anchor]
        self.copied += size
        if self.copied > MOST_COPIED:
            raise self.fault(event, f"aliases stand for more than {MOST_COPIED} values", "write the values out")
        # A copy: a value that is set in one place must not change in the other.
        self._put(event, deepcopy(value))
        self.count += size - 1
