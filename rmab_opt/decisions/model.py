"""A model: arms, action set and objective together, with the solver profile and where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt import planning
from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import Immediate, Objective
from rmab_opt.errors import ModelError
from rmab_opt.planning import Bound
from rmab_opt.planning.relaxation import StatisticalBound, decoupled_bound
from rmab_opt.problem import Problem, Table
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.problem.table import Conventions, TableLike, is_table_like
from rmab_opt.report import notebook_html
from rmab_opt.solver import Profile, repeatable

__all__ = ["Model", "bound", "margin"]


@dataclass(frozen=True)
class Model:
    """Everything that one decision needs; what :func:`rmab_opt.load` returns and the verbs take.

    Parameters
    ----------
    problem
        Arms, dynamics, horizon, start.
    actions
        What may be done.
    objective
        What one decision maximises; the expected reward of the round by default.
    solver
        Default profile of this model's decisions.
    title, about, source
        For people.
    path
        The model file, when there is one; tables named in calls are looked up beside it too.
    settings
        The file's resolved content, for run records.
    tables
        Those that were read from files for it.
    instance
        Another instance of a generated model by seed; None for a given cohort.
    """

    problem: Problem
    actions: ActionSet
    objective: Objective = field(default_factory=Immediate)
    solver: str | Path | Profile = "default"
    title: str = "model"
    about: str = ""
    source: str = ""
    path: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = field(default=(), repr=False, compare=False)
    instance: Callable[[int], Model] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.actions.columns.arms) != self.problem.n_arms:
            raise ModelError(
                f"the action set is over {len(self.actions.columns.arms)} arms, the problem has {self.problem.n_arms}",
                "build both from one cohort.",
            )

    def _repr_html_(self) -> str:
        problem = self.problem
        lines = {
            "arms": f"{problem.n_arms} of {problem.dynamics.n_states} states and {problem.dynamics.n_actions} actions",
            "columns": f"{len(self.actions)}",
            "horizon": f"{problem.horizon} rounds, discount {problem.discount:g}",
            "objective": type(self.objective).__name__,
            "solver": f"profile {self.solver}",
        }
        rows = [{"constraint": name, "what": said} for name, said in self.actions.describe().items()]
        return notebook_html(f"Model · {self.title}", [("", self.about), ("", lines), ("", rows)])

    def with_objective(self, objective: Objective) -> Model:
        """The same model deciding by another objective."""
        return replace(self, objective=objective)

    def by_nodes(self) -> Model:
        """The same model with node limits in place of a shipped profile's clock, for numbers that must repeat.

        A profile of the user's own keeps its clock: it was asked for.
        """
        return replace(self, solver=repeatable(self.solver))

    def state(self, given: np.ndarray | TableLike | None) -> np.ndarray | None:
        """A state as int64 (N,): an array as it is, a table or CSV file read by ids; None stays None."""
        if given is None:
            return None
        if is_table_like(given):
            return self.problem.read_state(self._beside(given))
        return self.problem.check_state(np.asarray(given))

    def shared(
        self,
        state: np.ndarray | TableLike | None = None,
        given: np.ndarray | Mapping[str, float] | None = None,
    ) -> np.ndarray | None:
        """The shared state (K,): as given, or from the state's file, or the first; None where the arms share none."""
        if isinstance(given, Mapping):
            return self.problem.shared_array(given)
        if given is not None:
            return self.problem.check_shared(np.asarray(given))
        if is_table_like(state):
            return self.problem.read_shared(self._beside(state))
        return self.problem.start_shared

    def _beside(self, given: TableLike) -> Table:
        """A table of states; a file is looked for beside the model file too, and read as the model says."""
        if not isinstance(given, str | Path):
            return Table.read(given, source="state")
        path = Path(given)
        if not _exists(path) and self.path is not None and _exists(self.path.parent / path):
            path = self.path.parent / path
        told = Conventions.model_validate(self.settings.get("tables") or {})
        return Table.read(path, needed=("id", "state"), told=told)


def _exists(path: Path) -> bool:
    """Whether a file is there; a name that cannot be one is not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def bound(model: Model, state: np.ndarray | TableLike | None = None, **options: Any) -> Bound | StatisticalBound:
    """Upper limit on what any policy can earn from a state, or from the model's start; certified.

    Coupled arms without tables get the limit that their dynamics bring (``bound``), or one that holds with 99 %
    confidence where they say ``chances_between``.

    Parameters
    ----------
    model
        Its action set couples the arms by its own linear relaxation.
    state
        As in :func:`rmab_opt.decide`.
    options
        ``kind``, ``method``, ``tolerance``, ``seconds`` and more: see :func:`rmab_opt.planning.bound`.

    Raises
    ------
    CapabilityError
        When the dynamics offer no ``tabular()``.
    """
    given = model.state(state)
    start = model.problem.start if given is None else given
    own = None if start is None else model.objective.bound(model.problem, model.actions, start)
    if own is not None:
        return own
    dynamics = model.problem.dynamics
    brought = getattr(dynamics, "bound", None)
    if not hasattr(dynamics, "tabular") and callable(brought):
        _known(options)
        found: StatisticalBound = brought(model.problem, model.actions, given)
        return found
    if not hasattr(dynamics, "tabular") and hasattr(dynamics, "chances_between"):
        return decoupled_bound(model.problem, model.actions, state=given, **_known(options))
    return planning.bound(model.problem, model.actions, state=given, **options)


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Options of the bound by relaxed information; those of the other bound at their defaults are left out."""
    usual = {"kind": "auto", "coupling": "auto", "method": "auto"}
    # A limit on seconds is of no use here: the paths take one or two.
    asked = {name: value for name, value in options.items() if usual.get(name) != value and name != "seconds"}
    unknown = sorted(set(asked) - {"paths", "seed"})
    if unknown:
        raise ModelError(
            f"{unknown[0]}={asked[unknown[0]]!r} is no option of a bound for coupled arms", "give paths or seed."
        )
    return asked


def margin(
    model: Model, found: Bound, state: np.ndarray | TableLike | None = None, most: int = 10
) -> list[dict[str, Any]]:
    """Arms whose service in the first round is worth about its price, nearest first: who one more unit would reach.

    Returns
    -------
    list of dict
        ``arm, action, worth, price, margin``; random starts are taken at each arm's most likely state.

    Raises
    ------
    ModelError
        When the bound has no prices of resources (constraints with variables of their own).
    """
    transition, reward = require_tabular(model.problem.dynamics, "prices")
    rows = planning.polyhedron(model.actions, reward.shape[2]).coupling(*transition.shape[:2])
    if rows is None or found.prices is None:
        raise ModelError("this bound has no resource prices", "ask for the margin of a model with plain rows only.")
    given = model.state(state)
    here = model.problem.start_distribution.argmax(axis=1) if given is None else given
    horizon, discount = model.problem.horizon, model.problem.discount
    near = planning.marginal_arms(transition, reward, here, found, rows, horizon=horizon, discount=discount, most=most)
    names = model.problem.arms.ids
    return [
        {"arm": names[a.arm], "action": a.action, "worth": a.worth, "price": a.price, "margin": a.margin} for a in near
    ]
