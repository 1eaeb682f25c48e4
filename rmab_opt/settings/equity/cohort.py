"""What a fair plan is made for: arms with tables, their groups, what couples them, and what was collected before."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.errors import ModelError
from rmab_opt.planning.coupling import Coupling
from rmab_opt.planning.occupancy import Polyhedron, polyhedron
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.settings.equity.groups import Groups

if TYPE_CHECKING:
    from rmab_opt.settings.equity.guarantees import Guarantee

__all__ = ["Cohort", "Limits", "in_unit"]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Arms, groups and resources over the rounds that are planned.

    Parameters
    ----------
    transition, reward
        P[n, a, s, s'] (N, A, S, S), r[n, s, a] (N, S, A).
    start
        First states (N,), or their probabilities (N, S).
    groups
        May overlap.
    rows
        What couples the arms in a round: resources or an action set's polyhedron.
    horizon, discount
        Rounds and discount in (0, 1].
    past
        Mean reward each group has collected in earlier rounds, (K,): what is equalised is the outcome at the end.

    Raises
    ------
    ModelError
        When shapes disagree.
    """

    transition: np.ndarray
    reward: np.ndarray
    start: np.ndarray
    groups: Groups
    rows: Coupling | Polyhedron
    horizon: int
    discount: float = 1.0
    past: np.ndarray = None  # type: ignore[assignment]
    ids: tuple[str, ...] = ()
    """Names of the arms, where they have any."""

    def __post_init__(self) -> None:
        n_arms, n_actions, n_states, _ = self.transition.shape
        start = np.asarray(self.start)
        start = np.eye(n_states)[start] if start.ndim == 1 else start.astype(float)
        past = np.zeros(len(self.groups)) if self.past is None else np.asarray(self.past, dtype=float)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "past", past)
        shapes = self.reward.shape, start.shape, self.groups.member.shape[1], past.shape
        if shapes != ((n_arms, n_states, n_actions), (n_arms, n_states), n_arms, (len(self.groups),)):
            raise ModelError(
                f"tables {self.transition.shape} and {self.reward.shape}, first states {start.shape}, groups of "
                f"{self.groups.member.shape[1]} arms, past {past.shape} disagree",
                "give (N, A, S, S), (N, S, A), (N, S), (K, N) and (K,).",
            )

    @classmethod
    def of(
        cls,
        problem: Problem,
        actions: ActionSet,
        groups: Groups | str,
        *,
        state: np.ndarray | None = None,
        period: int = 0,
        past: np.ndarray | None = None,
    ) -> Cohort:
        """The cohort of a problem before round ``period``, in ``state`` (N,), under its own action set."""
        transition, reward = require_tabular(problem.dynamics, "fair plans")
        start = problem.start_distribution if state is None else problem.check_state(state)
        named = Groups.of(problem.arms, groups) if isinstance(groups, str) else groups
        left = max(1, problem.horizon - period)
        rows = polyhedron(actions, reward.shape[2])
        return cls(transition, reward, start, named, rows, left, problem.discount, past, tuple(problem.arms.ids))  # type: ignore[arg-type]

    @property
    def coupling(self) -> Coupling | None:
        """The rows as resources, None where they bring variables of their own."""
        return self.rows if isinstance(self.rows, Coupling) else self.rows.coupling(*self.transition.shape[:2])


@dataclass(frozen=True, eq=False)
class Limits:
    """What a plan has to keep beyond the action set; each makes it one of a smaller class than all policies.

    Parameters
    ----------
    floors
        Least value of each group, (K,).
    arm_floors
        Least value of single arms, (N,), -inf for none.
    gini, ratio
        Ceiling on the Gini coefficient of the group values; least ratio of any group's value to any other's.
    mode, whole
        How one budget is shared, and whether in whole numbers; see
        :class:`~rmab_opt.settings.equity.program.EquityProgram`.
    services
        Guaranteed services, see :class:`~rmab_opt.settings.equity.guarantees.Guarantee`.
    """

    floors: np.ndarray | None = None
    arm_floors: np.ndarray | None = None
    gini: float | None = None
    ratio: float | None = None
    mode: str = "step"
    whole: bool = False
    services: tuple[Guarantee, ...] = ()

    @property
    def least(self) -> np.ndarray | None:
        """Floors as numbers."""
        return None if self.floors is None else np.asarray(self.floors, dtype=float)

    @property
    def of_program(self) -> list[str]:
        """Those that prices do not know."""
        found = [f"mode={self.mode!r}"] if self.mode != "step" else []
        found += ["whole"] if self.whole else []
        return found + (["services"] if self.services else [])

    def in_words(self) -> tuple[str, ...]:
        """What makes a plan one of a smaller class than all policies."""
        found = [f"mode {self.mode}"] if self.mode != "step" else []
        found += ["whole budgets"] if self.whole else []
        found += ["floors of groups"] if self.least is not None and np.isfinite(self.least).any() else []
        found += ["floors of arms"] if self.arm_floors is not None else []
        found += [f"Gini at most {self.gini:g}"] if self.gini is not None else []
        found += [f"ratio at least {self.ratio:g}"] if self.ratio is not None else []
        return (*found, *(service.in_words() for service in self.services))


def in_unit(cohort: Cohort, limits: Limits, unit: float) -> tuple[Cohort, Limits]:
    """Rewards and what is compared with them in another unit."""
    floors = None if limits.floors is None else np.asarray(limits.floors, dtype=float) / unit
    arms = None if limits.arm_floors is None else np.asarray(limits.arm_floors, dtype=float) / unit
    return (
        dataclasses.replace(cohort, reward=cohort.reward / unit, past=cohort.past / unit),
        dataclasses.replace(limits, floors=floors, arm_floors=arms),
    )
