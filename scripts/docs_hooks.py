"""What mkdocs does to pages beside its plugins: docstrings' roles (``:class:`Name```) are shown as the name alone."""

from __future__ import annotations

import re
from typing import Any

ROLE = re.compile(r":(?:py:)?(?:class|func|meth|mod|attr|exc|data|obj):(?=<code>)")


def on_page_content(html: str, **_: Any) -> str:
    """The page without the roles in front of names."""
    return ROLE.sub("", html)
