"""A model: arms, action set and objective together, with the solver profile and where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import Immediate, Objective
from rmab_opt.errors import ModelError
from rmab_opt.problem import Problem, Table
from rmab_opt.problem.table import Conventions, TableLike, is_table_like
from rmab_opt.report import notebook_html
from rmab_opt.solver import Profile, repeatable

__all__ = ["Model"]


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

    def counted(self, services: np.ndarray) -> Model:
        """The model after rounds in which arms had services, int (rounds, N); itself where nothing counts them."""
        actions = self.actions.counted(services)
        return self if actions is self.actions else replace(self, actions=actions)

    def later(self, first: int, start: np.ndarray, shared: np.ndarray | None = None) -> Model:
        """The rounds that are left from round ``first`` on, as a model of its own; its limits by round go along.

        Parameters
        ----------
        start
            States (N,) then, or chances (N, S).
        shared
            The shared state (K,) then; None where the arms share none.

        Raises
        ------
        ModelError
            When no round is left.
        """
        left = self.problem.horizon - first
        if left < 1:
            raise ModelError(f"round {first + 1} of {self.problem.horizon}: none is left", "set problem.horizon.")
        problem = replace(self.problem, start=start, horizon=left, start_shared=shared)
        # Other instances by seed would begin at their own first round.
        return replace(self, problem=problem, actions=self.actions.later(first), instance=None)

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
