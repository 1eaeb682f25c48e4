"""What a person changed in a week's ``model.yaml``: taken into the next week's, or refused where the week writes it.

``standing.json`` holds the content as it was written, so that a change is told from what a week brings with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmab_opt.actions import ActionSet
from rmab_opt.catalog.yaml_text import read_yaml
from rmab_opt.decisions import Model
from rmab_opt.errors import ModelError
from rmab_opt.programme.asked import Asked

__all__ = ["ByHand", "borrowed", "changes_by_hand", "said_of", "untouched", "with_changes"]

ByHand = dict[tuple[str, ...], Any]
"""New content by path of keys; None where the field was taken out."""

OWN = {
    ("problem", "arms"): "the members come from the register",
    ("problem", "start"): "the states come from the outcomes",
    ("problem", "horizon"): "set plan.weeks in columns.yaml instead",
    ("problem", "dynamics", "kind"): "set plan.season in columns.yaml for a season",
    ("problem", "dynamics", "file"): "the chances are estimated anew every week",
    ("problem", "dynamics", "by"): "the chances are estimated anew every week",
    ("problem", "dynamics", "total"): "set plan.season in columns.yaml instead",
    ("problem", "dynamics", "of", "file"): "the chances are estimated anew every week",
    ("problem", "dynamics", "of", "by"): "the chances are estimated anew every week",
}
"""Fields that every week writes by itself, and where to say what was meant."""


def changes_by_hand(folder: Path, standing: Mapping[str, Any]) -> ByHand:
    """What differs between ``model.yaml`` and its content as it was written; this week's locks are no change.

    Nothing where the folder does not know what was written (of an earlier version).

    Raises
    ------
    ModelError
        When the file cannot be read, or a field was changed that every week writes by itself.
    """
    written = standing.get("model")
    if not isinstance(written, dict):
        return {}
    path = folder / "model.yaml"
    content, _ = read_yaml(path)
    found = _differences(written, Asked().applied(content, folder))
    for place in found:
        own = next((why for key, why in OWN.items() if place[: len(key)] == key or key[: len(place)] == place), None)
        if own is not None:
            raise ModelError(
                f"{path}: {'.'.join(place)} was changed by hand, and every week writes it anew",
                f"put {_at(written, place)!r} back: {own}.",
            )
    return found


def _at(content: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], place: tuple[str, ...] = ()) -> ByHand:
    found: ByHand = {}
    for key in dict.fromkeys((*before, *after)):
        was, is_now, here = before.get(key), after.get(key), (*place, str(key))
        if key in before and isinstance(was, Mapping) and isinstance(is_now, Mapping):
            found |= _differences(was, is_now, here)
        elif was != is_now:
            found[here] = is_now
    return found


def with_changes(content: Mapping[str, Any], found: ByHand) -> dict[str, Any]:
    """A model file's content with a person's changes; the content itself stays as it is."""
    after = _copy(content)
    for place, value in found.items():
        inner = after
        for key in place[:-1]:
            inner = inner.setdefault(key, {})
        if value is None:
            inner.pop(place[-1], None)
        else:
            inner[place[-1]] = value
    return after


def _copy(content: Any) -> Any:
    return {key: _copy(value) for key, value in content.items()} if isinstance(content, Mapping) else content


def untouched(model: Model, found: ByHand) -> Model:
    """The model without the constraints that a person added or changed, and without those that rest on them."""
    names = {place[1] for place in found if place[0] == "constraints" and len(place) > 1}
    declared = model.actions.declared
    kept = {
        name: one
        for name, one in declared.items()
        if name not in names and not any(getattr(one, key) in names for key in one.needs)
    }
    return model if len(kept) == len(declared) else replace(model, actions=ActionSet(model.actions.columns, kept))


def said_of(found: ByHand) -> list[str]:
    """One line a change, for the person who made it."""
    return [
        f"kept from model.yaml: {'.'.join(place)} " + ("taken out" if value is None else f"is {value!r}")
        for place, value in found.items()
    ]


@contextmanager
def borrowed(folder: Path, stage: Path, needed: bool) -> Iterator[None]:
    """Files of a folder beside a model that is made in ``stage``: a person's constraint may have a table of its own."""
    lent = []
    for path in sorted(folder.iterdir()) if needed else ():
        if path.is_file() and path.suffix not in (".json", ".yaml", ".html") and not (stage / path.name).exists():
            shutil.copy2(path, stage / path.name)
            lent.append(stage / path.name)
    try:
        yield
    finally:
        for path in lent:
            path.unlink()
