"""Sections of a model file that belong to inspections."""

from __future__ import annotations

from typing import Any

from rmab_opt.registry import register


@register("section", "records")
def records(given: dict[str, Any]) -> dict[str, Any]:
    """How dated inspection records are read; see :mod:`rmab_opt.settings.inspection.fit`."""
    return given


@register("section", "calendar")
def calendar(given: dict[str, Any]) -> dict[str, Any]:
    """Dates of a plan's slots, closed dates and deadlines; see :mod:`rmab_opt.settings.inspection.dates`."""
    return given
