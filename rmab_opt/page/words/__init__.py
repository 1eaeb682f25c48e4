"""What the page says, one file a language; a new language is a new file with the same keys."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

__all__ = ["LANGUAGES", "words"]

LANGUAGES = {"en": "English", "es": "Español"}
"""Files beside this one, and how each calls itself."""


@cache
def _read(language: str) -> dict[str, str]:
    content = tomllib.loads((Path(__file__).parent / f"{language}.toml").read_text(encoding="utf-8"))
    return {f"{part}.{key}": text for part, own in content.items() for key, text in own.items()}


def words(language: str) -> Callable[..., str]:
    """A function from a key, with what stands in its braces, to the text in a language; English for an unknown one.

    Raises
    ------
    KeyError
        For a key that no file has.
    """
    own = _read(language if language in LANGUAGES else "en")

    def said(key: str, **parts: object) -> str:
        return own[key].format(**parts) if parts else own[key]

    return said
