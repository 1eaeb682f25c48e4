"""Model files: YAML and tables in, a :class:`Model` out, every fault of a file at once with its line.

A file composes registered kinds and runs no code. What the kinds cannot say is twelve lines of Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from scipy import sparse

from rmab_opt.actions import KINDS, ActionSet, Columns
from rmab_opt.actions.kinds import VisitColumns
from rmab_opt.decisions import Immediate, Interpolated, Model, NetworkObjective, Objective, Scores, Situation, decide
from rmab_opt.decisions.cascade import CascadeObjective, most_chosen
from rmab_opt.decisions.inspection import VisitGains
from rmab_opt.domains import DOMAINS, Instance
from rmab_opt.domains.contacts import read_contacts
from rmab_opt.domains.inspection import inspection_arms
from rmab_opt.encoder import Network
from rmab_opt.encoder.bounds import Effort
from rmab_opt.errors import Findings, ModelError
from rmab_opt.planning import TABLES
from rmab_opt.problem import Arms, EncodedArms, Ladder, Problem, Table, Tabular
from rmab_opt.problem.cascade import Cascade
from rmab_opt.problem.table import nearest
from rmab_opt.report import write_atomically
from rmab_opt.solver import load_profile

__all__ = ["check_model", "copy_model", "load", "model_folder", "model_names", "register_objective"]


# ------------------------------------------------------------------------------------------------- the file's schema
class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TabularSection(_Section):
    """Arms by transition table."""

    kind: Literal["tabular"]
    file: str
    """CSV with columns: the one named by ``by``, ``state``, ``action``, one a state with its probability, and
    ``reward`` unless ``reward`` is given here."""
    by: str = "id"
    """Column that this table shares with the arms' table: ``id`` for a block of rows an arm, or e.g. ``type``."""
    reward: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = None
    """Reward of each state, by name; in place of the table's column."""
    paid_on: Literal["departure", "arrival"] = "departure"


class LadderSection(_Section):
    """Arms that climb and slip one rung at a time."""

    kind: Literal["ladder"]
    up: tuple[str, str]
    """Columns of the arms' table: probability to climb when passive, when acted on."""
    reward: tuple[str | float, ...] = Field(min_length=2)
    """Reward of arriving on each rung: numbers, or columns of the arms' table."""


class CascadeSection(_Section):
    """Arms that are active or not, and whose activity spreads along contacts."""

    kind: Literal["cascade"]
    contacts: str
    """CSV with one row a contact."""
    ends: tuple[str, str] = ("u", "v")
    """Its columns with the ids of the two arms."""
    probability: float | str = 0.05
    """That a contact passes activity on in a round: a number, or a column of the contacts' table."""
    directed: bool = False
    """Whether activity only goes from the first end to the second."""
    active: tuple[str, str, str, str] = ("p00", "p01", "p10", "p11")
    """Columns of the arms' table: probability to be active after the own move when inactive and left alone, inactive
    and acted on, active and left alone, active and acted on."""
    value: float | str = 1.0
    """Reward a round of an active arm: a number, or a column of the arms' table."""


class InspectionSection(_Section):
    """Arms known only when inspected, with windows: belief chains from two columns of the arms' table."""

    kind: Literal["inspection"]
    n_slots: int = Field(ge=1)
    """Slots of a period."""
    stay_good: str = "stay_good"
    """Column: probability that a good arm is good one slot later."""
    recover: str = "recover"
    """Column: probability that a bad arm is good one slot later."""
    window: str | None = "window"
    """Column with the open slots, ``2-4`` or ``0-1;6-7``; null for the whole period."""
    visits: int = Field(default=1, ge=1)
    """Inspections with an effect in each window."""
    given_for: int | None = Field(default=None, ge=1)
    """Slots a year the probabilities are meant for, when not ``n_slots``."""
    rule: Literal["limit", "step"] = "limit"
    tolerance: float = Field(default=0.01, gt=0)


class ProblemSection(_Section):
    """Arms from tables."""

    arms: str
    id: str = "id"
    first: int | None = Field(default=None, ge=1)
    """Only the first so many rows of the arms' table."""
    dynamics: Annotated[
        TabularSection | LadderSection | CascadeSection | InspectionSection, Field(discriminator="kind")
    ]
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
    columns: Literal["arms", "arm_actions", "visits"] = "arms"
    objective: dict[str, Any] = Field(default_factory=lambda: {"kind": "immediate"})
    solver: str = "default"
    train: dict[str, Any] = Field(default_factory=dict)
    neural_index: dict[str, Any] = Field(default_factory=dict)
    records: dict[str, Any] = Field(default_factory=dict)
    check: CheckSection | None = None


_DYNAMICS = ("tabular", "ladder", "cascade", "inspection")
"""Kinds of dynamics: pydantic puts them into the places of faults, readers of a file do not."""


# ---------------------------------------------------------------------------------------------------------- objectives
OBJECTIVES: dict[str, Callable[..., Objective]] = {}
"""Makers by kind: called with the problem, the action set, the folder and the section's other keys."""


def register_objective(kind: str) -> Callable[[Callable[..., Objective]], Callable[..., Objective]]:
    """Register a maker ``make(problem, actions, folder, **keys) -> Objective`` for model files."""

    def register(make: Callable[..., Objective]) -> Callable[..., Objective]:
        OBJECTIVES[kind] = make
        return make

    return register


@register_objective("immediate")
def _immediate(problem: Problem, actions: ActionSet, folder: Path, *, points: int = 0) -> Objective:
    return Interpolated(points) if points else Immediate()


@register_objective("scores")
def _scores(problem: Problem, actions: ActionSet, folder: Path, *, column: str) -> Objective:
    return Scores(actions.columns.numbers(column))


@register_objective("index")
def _index(problem: Problem, actions: ActionSet, folder: Path, *, index: str = "lagrangian") -> Objective:
    if index not in TABLES:
        raise ModelError(f"objective.index is {index!r}", nearest(index, list(TABLES)))
    return Scores(TABLES[index](problem, actions).values)


@register_objective("network")
def _network(
    problem: Problem,
    actions: ActionSet,
    folder: Path,
    *,
    file: str,
    inputs: tuple[str, ...] = ("action", "state"),
    activation: str | None = None,
    effort: Effort = "auto",
) -> Objective:
    if file.endswith(".onnx"):
        network = Network.from_onnx(folder / file)
    else:
        network = Network.from_safetensors(folder / file, activation=activation)
    return NetworkObjective(_NetworkOnState(network, problem, len(actions), tuple(inputs)), effort=effort)


@register_objective("fair")
def _fair(
    problem: Problem, actions: ActionSet, folder: Path, *, group: str = "group", welfare: str = "leximin"
) -> Objective:
    from rmab_opt.decisions.equity import FairObjective

    return FairObjective(problem, actions, group, welfare=welfare)


class _NetworkOnState:
    """A network whose inputs are named blocks: ``action``, ``state``, ``state_one_hot``, ``time`` (share left)."""

    def __init__(self, network: Network, problem: Problem, n_columns: int, inputs: tuple[str, ...]) -> None:
        n_arms, n_states = problem.n_arms, problem.dynamics.n_states
        sizes = {"action": n_columns, "state": n_arms, "state_one_hot": n_arms * n_states, "time": 1}
        unknown = [name for name in inputs if name not in sizes]
        if unknown or inputs.count("action") != 1:
            what = f"names {unknown[0]!r}" if unknown else "does not name 'action' once"
            raise ModelError(f"objective.inputs {what}", f"use blocks of {', '.join(sizes)}.")
        wanted = sum(sizes[name] for name in inputs)
        if network.n_inputs != wanted:
            given = " + ".join(f"{name} {sizes[name]}" for name in inputs)
            raise ModelError(
                f"the network takes {network.n_inputs} inputs, {given} are {wanted}",
                "name the blocks it was trained on.",
            )
        self._network, self._inputs, self._sizes = network, inputs, sizes

    def __call__(self, situation: Situation) -> Network:
        problem = situation.problem
        values = {
            "state": situation.state.astype(float),
            "state_one_hot": np.eye(problem.dynamics.n_states)[situation.state].ravel(),
            "time": np.array([(problem.horizon - situation.period) / problem.horizon]),
        }
        positions, fixed, at = [], [], 0
        for name in self._inputs:
            if name != "action":
                positions.append(np.arange(at, at + self._sizes[name]))
                fixed.append(values[name])
            at += self._sizes[name]
        if not positions:
            return self._network
        return self._network.fold(np.concatenate(positions), np.concatenate(fixed))


@register_objective("cascade")
def _cascade_value(
    problem: Problem, actions: ActionSet, folder: Path, *, samples: int = 200, weights: str = "reward", seed: int = 0
) -> Objective:
    budget = float(most_chosen(actions)) if weights == "priced" else 0.0
    return CascadeObjective(samples, weights, seed=seed, budget=budget)


@register_objective("visit_gains")
def _visit_gains(
    problem: Problem, actions: ActionSet, folder: Path, *, weights: str = "gain", beyond: int = 0
) -> Objective:
    return VisitGains(weights, beyond)  # type: ignore[arg-type]


@register_objective("learned")
def _learned(problem: Problem, actions: ActionSet, folder: Path, *, run: str) -> Objective:
    from rmab_opt.learning import load_policy

    return load_policy(folder / run, Model(problem, actions)).chooser.objective


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
            inner = tuple(part for part in fault["loc"] if part not in _DYNAMICS or len(fault["loc"]) == 1)
            where = (*place, *inner)
            if fault["type"] == "extra_forbidden":
                self.add(where, "unknown key", nearest(str(inner[-1]), _known(keys, inner)))
            elif fault["type"] == "missing":
                self.add(where, "is missing", "add it")
            elif fault["type"] == "union_tag_invalid":
                context = fault.get("ctx", {})
                self.add(
                    (*where, "kind"), f"unknown kind {context.get('tag')}", f"known: {context.get('expected_tags')}"
                )
            else:
                message = fault["msg"].removeprefix("Value error, ")
                value = fault["input"]
                shown = f" (is {value!r})" if isinstance(value, str | int | float | bool | None) else ""
                self.add(where, message[0].lower() + message[1:] + shown)

    def raise_if_any(self) -> None:
        if self.faults:
            findings = Findings(str(self.path))
            for line, text in sorted(self.faults, key=lambda fault: fault[0]):
                findings.lines.append(f"{self.path}:{line}: {text}")
            findings.raise_if_any(50)


_FIELDS: dict[str, type[BaseModel]] = {"dynamics": TabularSection, "check": CheckSection}


def _known(keys: list[str] | None, inner: tuple[Any, ...]) -> list[str]:
    section = next((_FIELDS[part] for part in reversed(inner[:-1]) if part in _FIELDS), None)
    return list(section.model_fields) if section is not None else list(keys or [])


def _build(content: dict[str, Any], lines: Mapping[tuple[Any, ...], int], path: Path) -> Model:
    reader = _Reader(path, lines)
    top = reader.attempt((), lambda: ModelFile.model_validate(content), list(ModelFile.model_fields))
    problem_section = content.get("problem")
    instance: Instance | None = None
    if isinstance(problem_section, dict):
        make = _generated if "domain" in problem_section else _from_tables
        instance = make(problem_section, path.parent, reader)
    actions = objective = None
    constraints = content.get("constraints") or {}
    if isinstance(constraints, dict):
        tables = {} if instance is None else instance.tables
        made = {name: _constraint(name, section, path.parent, tables, reader) for name, section in constraints.items()}
        if instance is not None and all(constraint is not None for constraint in made.values()):
            actions = reader.attempt((), lambda: ActionSet(_columns(content, instance), made))
    section = content.get("objective", {"kind": "immediate"})
    if isinstance(section, dict):
        if section.get("kind") not in OBJECTIVES:
            reader.add(
                ("objective", "kind"),
                f"unknown kind {section.get('kind')!r}",
                nearest(str(section.get("kind")), list(OBJECTIVES)),
            )
        elif instance is not None and actions is not None:
            maker, keys = OBJECTIVES[section["kind"]], {key: value for key, value in section.items() if key != "kind"}
            _check_keys(maker, keys, ("objective",), reader, skip=3)
            if not any(text.startswith("objective") for _, text in reader.faults):
                objective = reader.attempt(
                    ("objective",), lambda: maker(instance.problem, actions, path.parent, **keys)
                )
    solver: Any = content.get("solver", "default")
    if isinstance(solver, str):
        if solver.endswith(".toml"):
            solver = path.parent / solver
        reader.attempt(("solver",), lambda: load_profile(solver))
    if isinstance(content.get("train"), dict):
        from rmab_opt.learning import DQNConfig

        reader.attempt(("train",), lambda: DQNConfig.from_mapping(content["train"]))
    if isinstance(content.get("neural_index"), dict):
        from rmab_opt.learning import NeuralIndexConfig

        reader.attempt(("neural_index",), lambda: NeuralIndexConfig.from_mapping(content["neural_index"]))
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


def _columns(content: Mapping[str, Any], instance: Instance) -> Columns:
    problem = instance.problem
    if instance.columns is not None:
        ids, effect = instance.columns
        return Columns(
            problem.arms, Table({"id": ids, **instance.attributes}, source="columns"), sparse.csr_array(effect)
        )
    if content.get("columns") == "visits":
        n_slots = getattr(problem.dynamics, "n_slots", None)
        if n_slots is None:
            raise ModelError("columns: visits need arms with slots", "use dynamics of kind inspection, or its domain.")
        return VisitColumns(problem.arms, n_slots)
    if content.get("columns") == "arm_actions":
        return Columns.of_arm_actions(problem.arms, problem.dynamics.n_actions)
    if problem.dynamics.n_actions > 2:
        raise ModelError(f"columns: the arms have {problem.dynamics.n_actions} actions", "set `columns: arm_actions`.")
    return Columns.of_arms(problem.arms)


def _constraint(name: str, section: Any, folder: Path, tables: Mapping[str, Table], reader: _Reader) -> Any:
    place = ("constraints", name)
    if not isinstance(section, dict):
        reader.add(place, "is no mapping", "write `{kind: budget, at_most: 8}`")
        return None
    kind = section.get("kind")
    if kind not in KINDS:
        reader.add(
            (*place, "kind"), f"unknown kind {kind!r}" if kind else "is missing", nearest(str(kind), list(KINDS))
        )
        return None
    fields = {key: value for key, value in section.items() if key != "kind"}
    context = {"folder": folder, "tables": tables}
    return reader.attempt(
        place, lambda: KINDS[kind].model_validate(fields, context=context), list(KINDS[kind].model_fields)
    )


def _check_keys(
    make: Callable[..., Any], keys: Mapping[str, Any], place: tuple[str, ...], reader: _Reader, skip: int
) -> None:
    """Note unknown, missing and mistyped keys of a maker, by its signature."""
    parameters = dict(list(inspect.signature(make).parameters.items())[skip:])
    for key, value in keys.items():
        if key not in parameters:
            reader.add((*place, key), "unknown key", nearest(key, list(parameters)))
            continue
        wanted = str(parameters[key].annotation)
        right: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
        if wanted in right and (not isinstance(value, right[wanted]) or isinstance(value, bool)):
            article = {"int": "a whole number", "float": "a number", "str": "text"}[wanted]
            reader.add((*place, key), f"is {value!r}", f"give {article}")
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in keys:
            reader.add((*place, key), "is missing", "add it")


def _generated(section: Mapping[str, Any], folder: Path, reader: _Reader) -> Instance | None:
    if section["domain"] not in DOMAINS:
        reader.add(
            ("problem", "domain"),
            f"unknown domain {section['domain']!r}",
            nearest(str(section["domain"]), list(DOMAINS)),
        )
        return None
    make, keys = DOMAINS[section["domain"]], {key: value for key, value in section.items() if key != "domain"}
    before = len(reader.faults)
    _check_keys(make, keys, ("problem",), reader, skip=0)
    if len(reader.faults) > before:
        return None
    made: Instance | None = reader.attempt(("problem",), lambda: make(**keys))
    return made


def _from_tables(section: Mapping[str, Any], folder: Path, reader: _Reader) -> Instance | None:
    read: ProblemSection | None = reader.attempt(
        ("problem",), lambda: ProblemSection.model_validate(section), list(ProblemSection.model_fields)
    )
    if read is None:
        return None
    arms: Arms | None = reader.attempt(("problem", "arms"), lambda: _arms(read, folder))
    if arms is None:
        return None
    section_of = read.dynamics

    def moved() -> Tabular | Ladder | Cascade | EncodedArms:
        if isinstance(section_of, InspectionSection):
            return inspection_arms(arms, **section_of.model_dump(exclude={"kind"}))
        if isinstance(section_of, CascadeSection):
            return _cascade(section_of, arms, folder, "ignore" if read.first else "refuse")
        return (
            _tabular(section_of, arms, folder) if isinstance(section_of, TabularSection) else _ladder(section_of, arms)
        )

    dynamics = reader.attempt(("problem", "dynamics"), moved)
    if dynamics is None:
        return None
    problem: Problem | None = reader.attempt(("problem",), lambda: Problem(arms, dynamics, read.horizon, read.discount))
    if problem is None:
        return None

    def started() -> Problem:
        if isinstance(read.start, str):
            start = problem.read_state(folder / read.start, others="ignore" if read.first else "refuse")
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


def _tabular(section: TabularSection, arms: Arms, folder: Path) -> Tabular:
    table = Table.from_csv(folder / section.file)
    findings = Findings(table.source)
    owners, states, actions = table.text(section.by), table.text("state"), table.numbers("action", minimum=0)
    names = list(dict.fromkeys(states))
    missing = [name for name in names if name not in table]
    if missing:
        raise ModelError(
            f"{table.source}: no column for state {missing[0]!r}", "give one column a state, named as in column state."
        )
    probabilities = np.stack([table.numbers(name, minimum=0, maximum=1) for name in names], axis=1)
    groups = {value: number for number, value in enumerate(dict.fromkeys(owners))}
    n_actions = int(actions.max()) + 1
    if n_actions < 2:
        raise ModelError(f"{table.source}: only action 0 has rows", "give rows for action 1.")
    transition = np.full((len(groups), n_actions, len(names), len(names)), np.nan)
    reward = np.zeros((len(groups), len(names), n_actions))
    paid = table.numbers("reward") if section.reward is None else np.zeros(len(table))
    for row, (owner, state, action) in enumerate(zip(owners, states, actions, strict=True)):
        if action != int(action):
            findings.add(table.place(row), f"action is {action:g}", "give a whole number")
            continue
        cell = (groups[owner], int(action), names.index(state))
        if not np.isnan(transition[cell]).all():
            findings.add(
                table.place(row),
                f"{section.by} {owner!r}, state {state!r}, action {int(action)} stands twice",
                "keep one row",
            )
        if abs(probabilities[row].sum() - 1.0) > 1e-6:
            findings.add(
                table.place(row), f"probabilities sum to {probabilities[row].sum():.9g}", "make the row sum to one"
            )
        # Twelve printed digits do not sum to one in the last place; the row is scaled to do so.
        transition[cell] = probabilities[row] / max(probabilities[row].sum(), 1e-300)
        reward[groups[owner], names.index(state), int(action)] = paid[row]
    for group, action, state in np.argwhere(np.isnan(transition).any(axis=3))[:5]:
        findings.add(
            "", f"no row for {section.by} {list(groups)[group]!r}, state {names[state]!r}, action {action}", "add it"
        )
    wanted = arms.ids if section.by == "id" else arms.text(section.by)
    for row, value in enumerate(wanted):
        if value not in groups:
            findings.add(
                "", f"no rows for {section.by} {value!r} of arm {arms.ids[row]!r}", nearest(value, list(groups))
            )
            break
    if section.reward is not None:
        if unknown := [name for name in section.reward if name not in names]:
            findings.add("", f"reward names state {unknown[0]!r}", nearest(unknown[0], names))
        if lacking := [name for name in names if name not in section.reward]:
            findings.add("", f"reward lacks state {lacking[0]!r}", "give every state's reward")
    findings.raise_if_any()
    member = np.array([groups[value] for value in wanted])
    if section.reward is not None:
        by_state = np.array([section.reward[name] for name in names])
        return Tabular(
            transition[member], np.tile(by_state, (len(arms), 1)), paid_on=section.paid_on, state_names=tuple(names)
        )
    if section.paid_on == "arrival":
        raise ModelError(
            "paid_on: arrival needs a reward a state", "give `reward: {state: number, ...}` in the model file."
        )
    return Tabular(transition[member], reward[member], state_names=tuple(names))


def _cascade(section: CascadeSection, arms: Arms, folder: Path, others: str) -> Cascade:
    graph = read_contacts(
        arms,
        folder / section.contacts,
        ends=section.ends,
        probability=section.probability,
        directed=section.directed,
        others=others,
    )
    chance = np.stack([arms.numbers(column, minimum=0, maximum=1) for column in section.active], axis=1)
    value = arms.numbers(section.value, minimum=0) if isinstance(section.value, str) else section.value
    return Cascade(graph, chance.reshape(-1, 2, 2), value)


def _ladder(section: LadderSection, arms: Arms) -> Ladder:
    up = np.stack([arms.numbers(column, minimum=0, maximum=1) for column in section.up], axis=1)
    reward = np.stack(
        [arms.numbers(cell) if isinstance(cell, str) else np.full(len(arms), cell) for cell in section.reward], axis=1
    )
    return Ladder(up, reward)
