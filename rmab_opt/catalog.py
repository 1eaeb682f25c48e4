"""Model files: YAML and tables in, a :class:`Model` out, every fault of a file at once with its line.

A file composes registered kinds and runs no code. What the kinds cannot say is twelve lines of Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from scipy import sparse

from rmab_opt import registry
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.decisions import Model, Situation, decide
from rmab_opt.errors import Findings, ModelError
from rmab_opt.instances import Instance
from rmab_opt.problem import Arms, Problem, Table
from rmab_opt.problem.table import nearest
from rmab_opt.records import write_atomically
from rmab_opt.solver import load_profile

__all__ = ["check_model", "copy_model", "load", "model_folder", "model_names"]


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
    """First states: a CSV file with ``id`` and ``state``, one state for all, or a list."""


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
    check: CheckSection | None = None


# ------------------------------------------------------------------------------------------------------ finding files
def model_folder() -> Path:
    """Folder of the shipped models: inside the installed package, else beside the source tree."""
    packaged = Path(str(files("rmab_opt"))) / "models"
    return packaged if packaged.is_dir() else Path(str(files("rmab_opt"))).parent / "models"


def model_names() -> list[str]:
    """Names of the shipped models."""
    folder = model_folder()
    return sorted(
        [path.stem for path in folder.glob("*.yaml")] + [path.parent.name for path in folder.glob("*/model.yaml")]
    )


def copy_model(name: str, folder: str | Path) -> list[Path]:
    """Copy a shipped model with its tables into a new folder; the model file comes first.

    Raises
    ------
    ModelError
        When the folder holds something already.
    """
    source, folder = _locate(name), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder}: exists and is not empty", "name a new folder.")
    tables = sorted(source.parent.glob("*.csv")) if source.name == "model.yaml" else []
    written = []
    for file in [source, *tables]:
        target = folder / ("model.yaml" if file is source else file.name)
        write_atomically(target, file.read_bytes())
        written.append(target)
    return written


def check_model(name: str | Path) -> tuple[float, float, float]:
    """A model's own regression test: (optimum stated in ``check``, found by enumeration, found by ``decide``).

    Enumeration is judged by the independent checkers and valued without a program; arms with a random
    start are taken in their most likely state.

    Raises
    ------
    ModelError
        When the model has no ``check`` section or its set is too large to enumerate.
    """
    section = load(name).settings.get("check")
    if section is None:
        raise ModelError(f"{name}: has no check section", "add `check: {optimum: ...}`.")
    stated = CheckSection.model_validate(section)
    model = load(name, **stated.set)
    assert model.problem.start is not None
    state = model.state(stated.state)
    if state is None:
        state = model.problem.start_distribution.argmax(axis=1)
    candidates = model.actions.enumerate()
    if candidates is None:
        raise ModelError(f"{name}: its check is too large to enumerate", "make it smaller by `check.set`.")
    situation = Situation(model.problem, model.actions.columns, state)
    values = model.objective.batch_value(candidates.astype(np.int64), situation)
    return stated.optimum, float(values.max()), decide(model, state, solver="exact").value


def _locate(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.parent != Path("."):
        path = path / "model.yaml" if path.is_dir() else path
        if not path.is_file():
            raise ModelError(f"{path}: no such model file", "check the path, or see `rmab-opt models`.")
        return path
    for candidate in (model_folder() / f"{name}.yaml", model_folder() / str(name) / "model.yaml"):
        if candidate.is_file():
            return candidate
    raise ModelError(f"no model {str(name)!r}", nearest(str(name), model_names()))


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
    path = _locate(name)
    content, lines = _read_yaml(path)
    for key, value in overrides.items():
        _override(content, key, value, path)
    return _build(content, lines, path)


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[Any, ...], int]]:
    """Plain content and the line of every key."""
    yaml = YAML(typ="rt", pure=True)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        problem = " ".join(str(error.problem or error.context or "is not YAML").split("\n")[0].split())
        raise ModelError(f"{path}:{line}: {problem}", "repair the YAML at this line.") from None
    except (YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ModelError(
            f"{path}: is not a YAML text ({str(error).splitlines()[0]})", "write it as UTF-8 YAML 1.2."
        ) from None
    if not isinstance(document, CommentedMap):
        raise ModelError(f"{path}: holds no mapping", "start with `format: 1`.")
    lines: dict[tuple[Any, ...], int] = {}

    def plain(node: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(node, TaggedScalar) or (
            isinstance(node, CommentedMap | CommentedSeq)
            and node.tag.value not in (None, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
        ):
            raise ModelError(
                f"{path}:{lines.get(place, 1)}: tags such as {node.tag.value} are not read", "write plain values."
            )
        if isinstance(node, CommentedMap):
            for key in node:
                lines[(*place, key)] = node.lc.key(key)[0] + 1
            return {str(key): plain(value, (*place, key)) for key, value in node.items()}
        if isinstance(node, CommentedSeq):
            for number in range(len(node)):
                lines[(*place, number)] = node.lc.item(number)[0] + 1
            return [plain(value, (*place, number)) for number, value in enumerate(node)]
        for kind in (bool, int, float, str):
            if isinstance(node, kind):
                return kind(node)
        if node is None:
            return None
        raise ModelError(
            f"{path}:{lines.get(place, 1)}: {node!r} is no text, number, list or mapping", "put it in quotes."
        )

    return plain(document, ()), lines


def _override(content: dict[str, Any], key: str, value: Any, path: Path) -> None:
    """Set one value: by its whole path, or by any end of the path that occurs once."""
    parts = tuple(key.split("."))
    places = [place for place in _places(content) if place[-len(parts) :] == parts and place[0] != "check"]
    if parts in (("preset",), ("train", "preset")):
        # A preset stands for the whole section: the file's own values would otherwise go over it.
        content["train"] = {"preset": deepcopy(value)}
        return
    if not places and len(parts) == 1 and "domain" in content.get("problem", {}):
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

    def __init__(self, path: Path, lines: Mapping[tuple[Any, ...], int]) -> None:
        self.path, self.lines, self.faults = path, lines, []  # type: ignore[var-annotated]

    def line(self, place: tuple[Any, ...]) -> int:
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def add(self, place: tuple[Any, ...], what: str, fix: str = "") -> None:
        name = ".".join(str(part) for part in place)
        self.faults.append((self.line(place), f"{name}: {what}" + (f"; to fix, {fix}" if fix else "")))

    def add_error(self, place: tuple[Any, ...], error: ModelError) -> None:
        self.add(place, error.message, error.fix.rstrip("."))

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
            unknown = error.message.startswith("no ")
            self.add(place, f"unknown {place[-1]} {name!r}" if unknown else error.message, error.fix.rstrip("."))
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
            findings.raise_if_any(50)


def _known(keys: list[str] | None, inner: tuple[Any, ...]) -> list[str]:
    return list(CheckSection.model_fields) if inner[:1] == ("check",) and len(inner) > 1 else list(keys or [])


def _build(content: dict[str, Any], lines: Mapping[tuple[Any, ...], int], path: Path) -> Model:
    reader = _Reader(path, lines)
    sections = {key: value for key, value in content.items() if key not in ModelFile.model_fields}
    for name in list(sections):
        try:
            entry = registry.find("section", name)
        except ModelError as error:
            if not error.message.startswith("no "):
                reader.add((name,), error.message, error.fix.rstrip("."))
            else:
                known = [*ModelFile.model_fields, *registry.names("section")]
                reader.add((name,), "unknown key", nearest(name, known))
            continue
        if isinstance(content[name], dict):
            reader.attempt((name,), lambda entry=entry, name=name: entry.make(dict(content[name])))  # type: ignore[misc]
        else:
            reader.add((name,), "is no mapping", "write keys and values below it")
    own = {key: value for key, value in content.items() if key not in sections}
    top = reader.attempt((), lambda: ModelFile.model_validate(own), list(ModelFile.model_fields))
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

        def again(seed: int) -> Model:
            changed = deepcopy(content)
            changed["problem"]["seed"] = seed
            return replace(_build(changed, lines, path), instance=None)

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
        instance=again,
    )


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
    return reader.attempt(
        place, lambda: entry.schema.model_validate(fields, context=context), list(entry.schema.model_fields)
    )


def _from_tables(section: Mapping[str, Any], folder: Path, reader: _Reader) -> Instance | None:
    read: ProblemSection | None = reader.attempt(
        ("problem",), lambda: ProblemSection.model_validate(section), list(ProblemSection.model_fields)
    )
    if read is None:
        return None
    arms: Arms | None = reader.attempt(("problem", "arms"), lambda: _arms(read, folder))
    if arms is None:
        return None
    others = "ignore" if read.first else "refuse"
    dynamics = reader.made("dynamics", ("problem", "dynamics"), read.dynamics, arms, folder, others)
    if dynamics is None:
        return None
    problem: Problem | None = reader.attempt(("problem",), lambda: Problem(arms, dynamics, read.horizon, read.discount))
    if problem is None:
        return None

    def started() -> Problem:
        if isinstance(read.start, str):
            start = problem.read_state(folder / read.start, others=others)
        else:
            start = np.full(len(arms), read.start) if isinstance(read.start, int) else np.array(read.start)
        return replace(problem, start=start)

    complete = reader.attempt(("problem", "start"), started)
    return None if complete is None else Instance(complete, {})


def _arms(section: ProblemSection, folder: Path) -> Arms:
    table = Table.from_csv(folder / section.arms)
    if section.first is not None:
        table = table.head(section.first)
    return Arms(table, section.id)
