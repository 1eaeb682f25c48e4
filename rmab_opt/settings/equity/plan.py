"""Fair plans: the best welfare of group values that any policy can reach on average, with the prices that prove it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.errors import CapabilityError, CertificateError, ModelError
from rmab_opt.planning.coupling import Coupling
from rmab_opt.planning.occupancy import Polyhedron, polyhedron
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.report import cell, frame, notebook_html, table_text
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.prices import PricedGroups, check_gap
from rmab_opt.settings.equity.program import EquityProgram
from rmab_opt.settings.equity.relaxed import Answer, Stage
from rmab_opt.settings.equity.welfare import Welfare, gini

__all__ = ["Capacity", "FairPlan", "fair_plan", "fair_plan_arrays", "smallest_budget", "solve_stages"]

LARGE_PROGRAM = 120_000
"""Frequencies above which prices are faster than one linear program."""

SLACK = 1e-8
"""How far a level reached before may be missed by a later stage, relative: below what the solver tells apart."""

ORDER = 1e-7
"""Slack, as a share of the values, in the order of the limits of a smaller and a larger class of plans."""

FREE = 1e-5
"""Gap to which the limit of all policies beside a restricted plan is solved; it is a limit at any gap."""

METHODS = ("auto", "program", "prices")


@dataclass(frozen=True, eq=False)
class FairPlan:
    """Outcome of relaxed planning: what groups can get together, at most.

    Parameters
    ----------
    groups, welfare
        What was planned for.
    values
        Mean total of an arm of each group, past included, (K,), attained by the relaxation.
    lower, upper
        Welfare of ``values`` and the proven limit of every policy's welfare (of its expected group means); of plans
        under ``limits`` only, when there are any.
    weights
        Multiplier of each group's mean, (K,): the same plan is optimal for the weighted sum with these.
    prices
        (T, R) multipliers of the coupling rows, in the round's units; with ``weights`` they make the arms independent.
    use
        Expected arms of each group acted on, (T, K).
    budgets
        Budget of each group where the mode gives one, (K,), else None.
    method, rounds, seconds
        How it was found.
    limits
        What restricts the plan beyond the action set, in words: a way to share the budget, whole budgets, floors,
        ceilings. A policy that does not keep them may be above ``upper``.
    """

    groups: Groups
    welfare: Welfare
    values: np.ndarray
    lower: float
    upper: float
    weights: np.ndarray
    prices: np.ndarray
    use: np.ndarray
    budgets: np.ndarray | None
    method: str
    rounds: int
    seconds: float
    limits: tuple[str, ...] = ()
    _free: Callable[[], FairPlan] | None = field(default=None, repr=False)
    """The same plan without the limits, when somebody asks for it."""

    @cached_property
    def over_all(self) -> float:
        """Proven limit of every policy's welfare, whether it keeps ``limits`` or not; solved when first asked for.

        Raises
        ------
        CertificateError
            When a plan of the smaller class lies above it.
        """
        if self._free is None:
            return self.upper
        found = self._free().upper
        # Budgets on totals are no smaller class: they may also be shifted between rounds.
        if not any(word.startswith("mode total") for word in self.limits):
            size = abs(found) + float(np.abs(self.values).max(initial=0.0))
            if self.lower > found + ORDER * size:
                raise CertificateError(
                    f"the plan under {', '.join(self.limits)} reaches {self.lower:.9g}, above the limit of every "
                    f"policy {found:.9g}",
                    "report this with the model file.",
                )
        return found

    @property
    def promise(self) -> str:
        """What the limit says, and of whom."""
        if not self.limits:
            return f"no policy above {cell(self.upper)}"
        kind = ", ".join(self.limits)
        return f"no plan of this kind above {cell(self.upper)} ({kind}) · every policy at most {cell(self.over_all)}"

    @property
    def gap(self) -> float:
        """``upper - lower``."""
        return max(0.0, self.upper - self.lower)

    @property
    def relative_gap(self) -> float:
        """Gap as a share of max(1, |upper|)."""
        return self.gap / max(1.0, abs(self.upper))

    @property
    def mean(self) -> float:
        """Mean total over all arms of groups that do not overlap; over group means weighted by size otherwise."""
        return float(self.groups.sizes @ self.values / self.groups.sizes.sum())

    def rows(self) -> list[dict[str, Any]]:
        """One row a group."""
        share = self.use.mean(axis=0)
        return [
            {
                "group": name,
                "arms": int(self.groups.sizes[g]),
                "value": float(self.values[g]),
                "weight": float(self.weights[g]),
                "acted_on_a_round": float(share[g]),
            }
            for g, name in enumerate(self.groups.names)
        ]

    def summary(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        return {
            "welfare": self.welfare.name,
            "lower": self.lower,
            "upper": self.upper,
            "limits": list(self.limits),
            "over_all_policies": self.over_all,
            "relative_gap": self.relative_gap,
            "mean": self.mean,
            "worst": float(self.values.min()),
            "gini": float(gini(self.values)),
            "method": self.method,
            "groups": self.rows(),
        }

    def _head(self) -> str:
        return (
            f"{self.welfare.name} {cell(self.lower)} · {self.promise} · mean {cell(self.mean)}"
            f" · worst {cell(float(self.values.min()))} · Gini {cell(float(gini(self.values)))} · {self.method}"
        )

    def __str__(self) -> str:
        return f"{self._head()}\n{table_text(self.rows())}"

    def _repr_html_(self) -> str:
        return notebook_html("Fair plan", [("", self._head()), ("", self.rows())])

    def to_frame(self, backend: str | None = None) -> Any:
        """:meth:`rows` as a data frame, pandas before polars unless ``backend`` names one."""
        return frame(self.rows(), backend)


def fair_plan(
    problem: Problem,
    actions: ActionSet,
    groups: Groups | str = "group",
    *,
    welfare: str | float | Welfare = "leximin",
    state: np.ndarray | None = None,
    **options: Any,
) -> FairPlan:
    """The relaxed equity problem of a cohort under its own action set.

    Parameters
    ----------
    groups
        Column of the cohort's table, or any :class:`Groups`.
    welfare
        ``leximin``, ``max_min``, ``nash``, ``nash_groups``, ``utilitarian``, or a number for alpha-fairness.
    state
        First states (N,); the problem's start by default.
    options
        See :func:`fair_plan_arrays`.

    Raises
    ------
    CapabilityError
        When the dynamics have no tables, or a column acts on several arms.
    """
    transition, reward = require_tabular(problem.dynamics, "fair plans")
    start = (
        problem.start_distribution if state is None else np.eye(problem.dynamics.n_states)[problem.check_state(state)]
    )
    named = Groups.of(problem.arms, groups) if isinstance(groups, str) else groups
    options = {"horizon": problem.horizon, "discount": problem.discount, **options}
    return fair_plan_arrays(
        transition, reward, start, named, polyhedron(actions, reward.shape[2]), welfare=welfare, **options
    )


def fair_plan_arrays(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    groups: Groups,
    rows: Coupling | Polyhedron,
    *,
    horizon: int,
    discount: float = 1.0,
    welfare: str | float | Welfare = "leximin",
    past: np.ndarray | None = None,
    floors: np.ndarray | None = None,
    method: str = "auto",
    tolerance: float = 1e-7,
    mode: str = "step",
    **limits: Any,
) -> FairPlan:
    """:func:`fair_plan` on arrays.

    Parameters
    ----------
    past
        Mean reward each group has collected in earlier rounds, (K,): what is equalised is the outcome at the end.
    floors
        Least value of each group, (K,).
    method
        ``program``: one linear program; ``prices``: decomposition, for many arms; ``auto``.
    tolerance
        Relative gap.
    mode, limits
        ``gini``, ``ratio`` and ``arm_floors``, by either method; ``mode`` and ``whole`` of :class:`EquityProgram` by
        the program only.

    Raises
    ------
    InfeasibleError
        When floors, ceilings and limits cannot be kept together.
    """
    begun = time.perf_counter()
    check_gap(tolerance)
    if method not in METHODS:
        raise ModelError(f"method is {method!r}", f"use one of {', '.join(METHODS)}.")
    kind = Welfare.of(welfare)
    limits = {name: value for name, value in limits.items() if value is not None and value is not False}
    start = np.eye(transition.shape[2])[start] if np.ndim(start) == 1 else np.asarray(start)
    priced = {name: limits[name] for name in ("gini", "ratio", "arm_floors") if name in limits}
    other = [*(limits.keys() - priced.keys()), *([f"mode={mode!r}"] if mode != "step" else [])]
    if method == "prices" and other:
        raise CapabilityError(
            f"{' and '.join(sorted(other))} by prices", PricedGroups, ("use method='program'", "drop them")
        )
    if method == "auto":
        method = _choose(transition, rows, groups, horizon, bool(other))
    common: dict[str, Any] = {"horizon": horizon, "discount": discount, "past": past}
    backend: EquityProgram | PricedGroups
    if method == "program":
        backend = EquityProgram(transition, reward, start, groups, rows, mode=mode, **limits, **common)
    else:
        backend = PricedGroups(transition, reward, start, groups, rows, **priced, **common)
    words = _in_words(mode, floors, limits)
    free = partial(
        fair_plan_arrays,
        transition,
        reward,
        start,
        groups,
        rows,
        welfare=kind,
        tolerance=max(tolerance, FREE),
        **common,
    )
    least = np.full(len(groups), -np.inf) if floors is None else np.asarray(floors, dtype=float)
    first, last = solve_stages(backend, groups, kind, least, tolerance)
    if method == "program" and isinstance(backend, EquityProgram):
        budgets = backend.budgets
    else:
        budgets = None
    return FairPlan(
        groups=groups,
        welfare=kind,
        values=last.values,
        lower=first.lower,
        upper=first.upper,
        weights=first.weights,
        prices=first.prices,
        use=last.use,
        budgets=budgets,
        method=method,
        rounds=first.rounds,
        seconds=time.perf_counter() - begun,
        limits=words,
        _free=free if words else None,
    )


def _in_words(mode: str, floors: np.ndarray | None, limits: dict[str, Any]) -> tuple[str, ...]:
    """What makes a plan one of a smaller class than all policies."""
    found = [f"mode {mode}"] if mode != "step" else []
    if limits.get("whole"):
        found.append("whole budgets")
    if floors is not None and np.isfinite(floors).any():
        found.append("floors of groups")
    if "arm_floors" in limits:
        found.append("floors of arms")
    found += [f"Gini at most {limits['gini']:g}"] if "gini" in limits else []
    found += [f"ratio at least {limits['ratio']:g}"] if "ratio" in limits else []
    return tuple(found)


def _choose(
    transition: np.ndarray, rows: Coupling | Polyhedron, groups: Groups, horizon: int, only_program: bool
) -> str:
    coupling = rows if isinstance(rows, Coupling) else rows.coupling(*transition.shape[:2])
    if only_program or coupling is None:
        return "program"
    n_arms, n_actions, n_states, _ = transition.shape
    kinds = (
        len({(int(g), transition[n].tobytes()) for n, g in enumerate(groups.cells[0])}) if n_arms <= 5000 else n_arms
    )
    return "program" if kinds * n_actions * n_states * horizon <= LARGE_PROGRAM else "prices"


def solve_stages(
    backend: EquityProgram | PricedGroups, groups: Groups, kind: Welfare, floors: np.ndarray, tolerance: float
) -> tuple[Answer, Answer]:
    """The answer that carries the certificate, and the one whose values are reported."""
    plain = Welfare.of("utilitarian")
    if not kind.lowest_first:
        stage = Stage(floors, weights=kind.weights(groups), welfare=kind)
        answer = backend.solve(stage, tolerance=tolerance)
        return answer, answer
    floors, free = floors.copy(), np.ones(len(groups), dtype=bool)
    first: Answer | None = None
    while free.any():
        answer = backend.solve(Stage(floors, free=free), tolerance=tolerance)
        first = answer if first is None else first
        level = answer.lower - SLACK * max(1.0, abs(answer.lower))
        if kind.kind == "max_min":
            # Of all plans that lift the worst group as far as it goes, the one with the best mean.
            floors = np.maximum(floors, level)
            last = backend.solve(Stage(floors, weights=plain.weights(groups), welfare=plain), tolerance=tolerance)
            return first, last
        # A group with a positive multiplier binds in every optimal plan: its level is settled.
        near = answer.values <= answer.lower + 1e3 * tolerance * max(1.0, abs(answer.lower))
        settled = free & near & (answer.share > 1e-4)
        if not settled.any():
            settled = free & (answer.share >= answer.share[free].max())
        floors[settled] = np.maximum(floors[settled], level)
        free = free & ~settled
    assert first is not None
    return first, answer


@dataclass(frozen=True, eq=False)
class Capacity:
    """The cheapest budget that reaches a target in every group.

    ``budgets`` (T,) by round, ``cost`` in total, ``values`` (K,) reached, ``worth`` (K,) what one unit more of each
    target would cost.
    """

    budgets: np.ndarray
    cost: float
    values: np.ndarray
    worth: np.ndarray
    groups: Groups


def smallest_budget(
    problem: Problem,
    groups: Groups | str,
    targets: np.ndarray | float,
    *,
    state: np.ndarray | None = None,
    cost: np.ndarray | float = 1.0,
    constant: bool = True,
    whole: bool = False,
) -> Capacity:
    """Capacity planning, solved and not read off a curve: the smallest budget that lifts every group to its target.

    It is a limit from below: on average no policy reaches the targets with less; an integer policy may need a little
    more, which :func:`rmab_opt.settings.equity.fairness.compare_groups` shows.

    Parameters
    ----------
    targets
        Mean total of an arm, one for all groups or (K,).
    cost
        Of one unit in each round, a number or (T,).
    constant
        One budget for all rounds, or one a round.
    whole
        Whole numbers.

    Raises
    ------
    InfeasibleError
        When no budget is enough for some target.
    """
    transition, reward = require_tabular(problem.dynamics, "capacity planning")
    if reward.shape[2] != 2:
        raise CapabilityError("capacity of several actions", problem.dynamics, ("use two actions", "plan by floors"))
    named = Groups.of(problem.arms, groups) if isinstance(groups, str) else groups
    start = (
        problem.start_distribution if state is None else np.eye(problem.dynamics.n_states)[problem.check_state(state)]
    )
    program = EquityProgram(
        transition,
        reward,
        start,
        named,
        Coupling.budgets([float(problem.n_arms)]),
        horizon=problem.horizon,
        discount=problem.discount,
        mode="capacity",
        whole=whole,
    )
    price = np.broadcast_to(np.asarray(cost, dtype=float), (problem.horizon,))
    wanted = np.broadcast_to(np.asarray(targets, dtype=float), (len(named),))
    budgets, answer = program.smallest_budget(wanted, price, constant=constant)
    return Capacity(budgets, float(price @ budgets), answer.values, answer.floor_price, named)
