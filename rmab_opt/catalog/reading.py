"""Sections of a model file to a :class:`Model`: each is read by the kind that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy import sparse

from rmab_opt import registry
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.catalog.files import locate
from rmab_opt.catalog.yaml_text import Lines, read_value, read_yaml
from rmab_opt.decisions import Model
from rmab_opt.errors import Findings, ModelError
from rmab_opt.instances import Instance
from rmab_opt.problem import Arms, Problem, Table
from rmab_opt.problem.table import Conventions, Readings, nearest, readings
from rmab_opt.solver import load_profile

__all__ = ["CheckSection", "ModelFile", "ProblemSection", "check_names", "load"]


# ------------------------------------------------------------------------------------------------- the file's schema
class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProblemSection(_Section):
    """Arms from tables."""

    arms: str
    id: str = "id"
    first: int | None = Field(default=None, ge=1)
    """Only the first so many rows of the arms' table."""
    dynamics: dict[str, Any]
    horizon: int = Field(default=12, ge=1)
    discount: float = Field(default=1.0, gt=0, le=1)
    start: str | int | tuple[int, ...] = 0
    """First states: a CSV file with ``id`` and ``state``, or with ``id`` and the chance of each state in a column of
    its name; one state for all; or a list."""


class CheckSection(_Section):
    """What the model must still answer: its own regression test."""

    state: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    optimum: float
    tolerance: float = Field(default=1e-4, gt=0)


class ModelFile(_Section):
    """The top of a model file; the other sections are read by their kinds."""

    format: Literal[1]
    title: str = Field(min_length=1)
    about: str = ""
    source: str = ""
    problem: dict[str, Any]
    constraints: dict[str, dict[str, Any]] = Field(default_factory=dict)
    columns: str = "arms"
    objective: dict[str, Any] = Field(default_factory=lambda: {"kind": "immediate"})
    solver: str = "default"
    tables: Conventions = Conventions()
    check: CheckSection | None = None


# ------------------------------------------------------------------------------------------------------------- reading
def load(name: str | Path, **overrides: Any) -> Model:
    """Read a model by name or path.

    Parameters
    ----------
    name
        A shipped model's name (see ``rmab-opt models``), or the path of a model file or its folder.
    overrides
        Values in place of the file's: ``n_arms=40`` where the key occurs once, or a whole path, as in
        ``load("scheduling", **{"problem.n_arms": 40})``.

    Raises
    ------
    ModelError
        Listing every fault of the file with its line; unknown keys with the nearest known one.

    Examples
    --------
    >>> model = load("budget", n_arms=8)
    >>> len(model.problem.arms)
    8
    """
    path = locate(name)
    content, lines = read_yaml(path)
    for key, value in overrides.items():
        _override(content, key, value, path)
    return _build(content, lines, path)


def load_with(name: str | Path, sets: Sequence[str] | None) -> Model:
    """A model by name or path with values as a person writes them, ``n_arms=40``.

    Raises
    ------
    ModelError
        When an entry is not KEY=VALUE, or as :func:`load` does.
    """
    overrides = {}
    for entry in sets or []:
        key, sign, value = entry.partition("=")
        if not sign or not key.strip():
            raise ModelError(f"--set {entry!r}", "write --set key=value, for example --set n_arms=40.")
        overrides[key.strip()] = read_value(value, f"--set {entry!r}")
    return load(name, **overrides)


def check_names(model: Model) -> None:
    """Look up the names that a model's further sections give and that are used only in training.

    Apart from :func:`load`, because networks cannot be listed without importing torch; a name that is spelled in the
    source of a module that brings networks is known without it.

    Raises
    ------
    ModelError
        When a network or a solver profile is unknown; names the section.
    """
    for name in registry.names("section"):
        section = model.settings.get(name)
        if not isinstance(section, dict):
            continue
        try:
            if "network" in section and not registry.spelled("network", section["network"]):
                registry.find("network", section["network"])
            if "solver" in section:
                load_profile(section["solver"])
        except ModelError as error:
            raise ModelError(f"{model.path}: {name}: {error.message}", error.fix, needs=error.needs) from None


def _override(content: dict[str, Any], key: str, value: Any, path: Path) -> None:
    """Set one value: by its whole path, or by any end of the path that occurs once."""
    parts = tuple(key.split("."))
    places = [place for place in _places(content) if place[-len(parts) :] == parts and place[0] != "check"]
    if parts in (("preset",), ("train", "preset")):
        # A preset stands for the whole section: the file's own values would otherwise go over it.
        content["train"] = {"preset": deepcopy(value)}
        return
    if not places and key in ModelFile.model_fields:
        places = [parts]
    if not places and len(parts) == 1 and "domain" in (content.get("problem") or ()):
        places = [("problem", key)]
    if len(places) > 1 and parts in places:
        places = [parts]
    if not places and len(parts) > 1:
        here: Any = content
        for part in parts[:-1]:
            if not isinstance(here, dict) or not isinstance(here.get(part), dict):
                raise ModelError(f"set {key}: {path.name} has no section {part!r}", nearest(part, list(here)))
            here = here[part]
        places = [parts]
    if len(places) != 1:
        known = [".".join(place) for place in _places(content)]
        what = (
            f"stands in several places ({', '.join('.'.join(p) for p in places)})" if places else "is not in the file"
        )
        raise ModelError(f"set {key}: {what}", f"write the whole path; {nearest(key, known)}")
    here = content
    for part in places[0][:-1]:
        here = here[part]
    here[places[0][-1]] = deepcopy(value)


def _places(content: Mapping[str, Any], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in content.items():
        found.append((*at, key))
        if isinstance(value, dict):
            found += _places(value, (*at, key))
    return found


class _Reader:
    """Collects faults with their lines while the sections are read."""

    def __init__(self, path: Path, lines: Lines) -> None:
        self.path, self.lines = path, lines
        self.faults: list[tuple[int, str]] = []
        self.needs: list[str] = []

    def line(self, place: tuple[Any, ...]) -> int:
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def add(self, place: tuple[Any, ...], what: str, fix: str = "") -> None:
        name = f"{'.'.join(str(part) for part in place)}: " if place else ""
        self.faults.append((self.line(place), f"{name}{what}" + (f"; to fix, {fix}" if fix else "")))

    def add_error(self, place: tuple[Any, ...], error: ModelError) -> None:
        self.needs += [name for name in error.needs if name not in self.needs]
        message = error.message
        if not place:
            # What is made of several sections names the one that is wrong.
            named, _, said = message.partition(": ")
            if tuple(named.split(".")) in self.lines:
                place, message = tuple(named.split(".")), said
        self.add(place, message, error.fix.rstrip("."))

    def validate(self, place: tuple[Any, ...], schema: Any, given: Mapping[str, Any], context: Any = None) -> Any:
        """A pydantic model of the values that stand at a place; None with the faults noted."""
        keys = list(schema.model_fields)
        before = len(self.faults)
        for name in keys:
            # pydantic reads true as 1; a person who writes `at_most: true` means something else.
            if _stray_boolean(given.get(name), schema.model_fields[name].annotation):
                self.add((*place, name), "is true or false, not a number or a text", "write the value")
        if len(self.faults) > before:
            return None
        return self.attempt(place, lambda: schema.model_validate(given, context=context), keys)

    def attempt(self, place: tuple[Any, ...], make: Callable[[], Any], keys: list[str] | None = None) -> Any:
        """Value of ``make``; None when it raised, with the faults noted."""
        try:
            return make()
        except ValidationError as error:
            self.add_all(place, error, keys)
        except ModelError as error:
            self.add_error(place, error)
        return None

    def add_all(self, place: tuple[Any, ...], error: ValidationError, keys: list[str] | None) -> None:
        for fault in error.errors():
            inner = fault["loc"]
            where = (*place, *inner)
            if fault["type"] == "extra_forbidden":
                self.add(where, "unknown key", nearest(str(inner[-1]), _known(keys, inner)))
            elif fault["type"] == "missing":
                self.add(where, "is missing", "add it")
            else:
                message = fault["msg"].removeprefix("Value error, ")
                value = fault["input"]
                shown = f" (is {value!r})" if isinstance(value, str | int | float | bool | None) else ""
                self.add(where, message[0].lower() + message[1:] + shown)

    def find(self, kind: str, place: tuple[Any, ...], name: Any) -> registry.Entry | None:
        """A registered thing by the name that stands at a place; None with the fault noted."""
        if name is None:
            self.add(place, "is missing", f"use one of {', '.join(registry.names(kind))}")
            return None
        try:
            return registry.find(kind, name)
        except ModelError as error:
            if error.needs or not error.message.startswith("no "):
                self.add_error(place, error)
            else:
                self.add(place, f"unknown {place[-1]} {name!r}", error.fix.rstrip("."))
        return None

    def made(
        self, kind: str, place: tuple[Any, ...], section: Mapping[str, Any], *context: Any, key: str = "kind"
    ) -> Any:
        """What a section names under ``key``, made with its other keys as arguments; None with the faults noted."""
        entry = self.find(kind, (*place, key), section.get(key))
        if entry is None:
            return None
        given = {name: value for name, value in section.items() if name != key}
        arguments = self.attempt(place, lambda: entry.check(given), list(entry.schema.model_fields))
        return None if arguments is None else self.attempt(place, lambda: entry.make(*context, **arguments))

    def raise_if_any(self) -> None:
        if self.faults:
            findings = Findings(str(self.path))
            for line, text in sorted(self.faults, key=lambda fault: fault[0]):
                findings.lines.append(f"{self.path}:{line}: {text}")
            try:
                findings.raise_if_any(50)
            except ModelError as error:
                raise ModelError(error.message, error.fix, needs=tuple(self.needs)) from None


def _stray_boolean(value: Any, annotation: Any) -> bool:
    """Whether true or false stands where a field of this type takes none."""
    if isinstance(value, list):
        return any(_stray_boolean(inner, annotation) for inner in value)
    said = str(annotation)
    return isinstance(value, bool) and not any(word in said for word in ("bool", "Any", "Table"))


def _known(keys: list[str] | None, inner: tuple[Any, ...]) -> list[str]:
    return list(CheckSection.model_fields) if inner[:1] == ("check",) and len(inner) > 1 else list(keys or [])


def _build(content: dict[str, Any], lines: Lines, path: Path) -> Model:
    reader = _Reader(path, lines)
    told = content.get("tables")
    if isinstance(told, dict):
        told = reader.validate(("tables",), Conventions, told)
    with readings(told if isinstance(told, Conventions) else None) as read:
        return _made(content, lines, path, reader, read)


def _made(content: dict[str, Any], lines: Lines, path: Path, reader: _Reader, read: Readings) -> Model:
    sections = {key: value for key, value in content.items() if key not in ModelFile.model_fields}
    for name in list(sections):
        try:
            entry = registry.find("section", name)
        except ModelError as error:
            if error.needs:
                reader.add_error((name,), error)
            else:
                known = [*ModelFile.model_fields, *registry.names("section")]
                reader.add((name,), "unknown key", nearest(name, known))
            continue
        if isinstance(content[name], dict):
            reader.attempt((name,), lambda entry=entry, name=name: entry.make(dict(content[name])))  # type: ignore[misc]
        else:
            reader.add((name,), "is no mapping", "write keys and values below it")
    own = {
        key: value
        for key, value in content.items()
        if key not in sections and not (key == "tables" and isinstance(value, dict))
    }
    top = reader.validate((), ModelFile, own)
    problem_section = content.get("problem")
    instance: Instance | None = None
    if isinstance(problem_section, dict):
        if "domain" in problem_section:
            instance = reader.made("domain", ("problem",), problem_section, key="domain")
        else:
            instance = _from_tables(problem_section, path.parent, reader)
    actions = objective = None
    constraints = content.get("constraints") or {}
    if isinstance(constraints, dict):
        tables = {} if instance is None else instance.tables
        made = {name: _constraint(name, section, path.parent, tables, reader) for name, section in constraints.items()}
        if instance is not None and all(constraint is not None for constraint in made.values()):
            columns = _columns(content, instance, reader)
            actions = None if columns is None else reader.attempt((), lambda: ActionSet(columns, made))
    section = content.get("objective", {"kind": "immediate"})
    if isinstance(section, dict):
        if instance is not None and actions is not None:
            objective = reader.made("objective", ("objective",), section, instance.problem, actions, path.parent)
        else:
            reader.find("objective", ("objective", "kind"), section.get("kind"))
    solver: Any = content.get("solver", "default")
    if isinstance(solver, str):
        if solver.endswith(".toml"):
            solver = path.parent / solver
        reader.attempt(("solver",), lambda: load_profile(solver))
    reader.raise_if_any()
    assert top is not None
    assert instance is not None
    assert actions is not None
    assert objective is not None
    again = None
    if isinstance(problem_section, dict) and "domain" in problem_section:
        # A function with a name, so that a model travels to worker processes.
        again = partial(_another, content, lines, path)

    return Model(
        problem=instance.problem,
        actions=actions,
        objective=objective,
        solver=solver,
        title=top.title,
        about=top.about,
        source=top.source,
        path=path,
        settings=content,
        tables=tuple(read.tables),
        instance=again,
    )


def _another(content: dict[str, Any], lines: Lines, path: Path, seed: int) -> Model:
    """The file's model with another seed of its domain."""
    changed = deepcopy(content)
    changed["problem"]["seed"] = seed
    return replace(_build(changed, lines, path), instance=None)


def _columns(content: Mapping[str, Any], instance: Instance, reader: _Reader) -> Columns | None:
    problem = instance.problem
    if instance.columns is not None:
        ids, effect = instance.columns
        table = Table({"id": ids, **instance.attributes}, source="columns")
        found: Columns | None = reader.attempt(
            ("columns",), lambda: Columns(problem.arms, table, sparse.csr_array(effect))
        )
        return found
    entry = reader.find("columns", ("columns",), content.get("columns", "arms"))
    made: Columns | None = None if entry is None else reader.attempt((), lambda: entry.make(problem))
    return made


def _constraint(name: str, section: Any, folder: Path, tables: Mapping[str, Table], reader: _Reader) -> Any:
    place = ("constraints", name)
    if not isinstance(section, dict):
        reader.add(place, "is no mapping", "write `{kind: budget, at_most: 8}`")
        return None
    entry = reader.find("constraint", (*place, "kind"), section.get("kind"))
    if entry is None:
        return None
    fields = {key: value for key, value in section.items() if key != "kind"}
    context = {"folder": folder, "tables": tables}
    return reader.validate(place, entry.schema, fields, context)


def _from_tables(section: Mapping[str, Any], folder: Path, reader: _Reader) -> Instance | None:
    read: ProblemSection | None = reader.validate(("problem",), ProblemSection, section)
    if read is None:
        return None
    arms: Arms | None = reader.attempt(("problem", "arms"), lambda: _arms(read, folder))
    others = "ignore" if read.first or arms is None else "refuse"
    if arms is None:
        arms = _salvaged(read, folder)
    if arms is None:
        for file in (read.dynamics.get("file"), read.start):
            if isinstance(file, str):
                reader.attempt(("problem",), lambda file=file: Table.read(folder / file))  # type: ignore[misc]
        return None
    dynamics = reader.made("dynamics", ("problem", "dynamics"), read.dynamics, arms, folder, others)
    if dynamics is None:
        return None
    problem: Problem | None = reader.attempt(("problem",), lambda: Problem(arms, dynamics, read.horizon, read.discount))
    if problem is None:
        return None

    def started() -> Problem:
        if isinstance(read.start, str):
            start = problem.read_start(folder / read.start, others=others)
        else:
            start = np.full(len(arms), read.start) if isinstance(read.start, int) else np.array(read.start)
        return replace(problem, start=start)

    complete = reader.attempt(("problem", "start"), started)
    return None if complete is None else Instance(complete, {})


def _salvaged(section: ProblemSection, folder: Path) -> Arms | None:
    """A cohort of the rows that are right, so that the faults of the other files are found in the same reading."""
    try:
        table = Table.read(folder / section.arms, needed=(section.id,))
        first: dict[str, int] = {}
        for row, name in enumerate(table.text(section.id)):
            if name:
                first.setdefault(name, row)
        return Arms(table.take(first.values()), section.id)
    except ModelError:
        return None


def _arms(section: ProblemSection, folder: Path) -> Arms:
    return Arms.read(folder / section.arms, section.id, first=section.first)
