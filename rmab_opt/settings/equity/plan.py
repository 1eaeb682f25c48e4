"""Fair plans: the best welfare of group values that any policy can reach on average, with the prices that prove it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.errors import CapabilityError, CertificateError, InfeasibleError, ModelError
from rmab_opt.planning.coupling import Coupling
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.report import cell, frame, notebook_html, table_text
from rmab_opt.settings.equity.cohort import Cohort, Limits, in_unit
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.guarantees import Guarantee
from rmab_opt.settings.equity.levels import Level, solve_levels
from rmab_opt.settings.equity.prices import PricedGroups, check_gap
from rmab_opt.settings.equity.program import EquityProgram
from rmab_opt.settings.equity.welfare import Welfare, gini
from rmab_opt.solver.session import power_of_two

__all__ = ["Capacity", "Cohort", "FairPlan", "Level", "Limits", "fair_plan", "fair_plan_arrays", "smallest_budget"]

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
    levels: tuple[Level, ...] = ()
    """Of ``leximin``: each settled level with its limit."""
    complete: bool = True
    """Whether all levels were settled and the gap closed, or the time was over before."""
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
        """What the limit says, and of whom; the scale of a welfare that bends means nothing to people."""
        if not self.welfare.lowest_first and self.welfare.alpha > 0:
            near = f"{self.welfare.name} within {100 * self.relative_gap:.2g} % of its limit"
            if not self.limits:
                return f"best for every policy: {near}"
            return f"best plan of this kind ({', '.join(self.limits)}), no plan of this kind above: {near}"
        if not self.limits:
            return f"no policy above {cell(self.upper)}"
        kind = ", ".join(self.limits)
        return (
            f"best plan of this kind ({kind}), no plan of this kind above {cell(self.upper)} · "
            f"every policy at most {cell(self.over_all)}, so these limits cost at most {cell(self.cost)}"
        )

    @property
    def cost(self) -> float:
        """Welfare that the limits cost at most: the limit of every policy less what the plan reaches."""
        return max(0.0, self.over_all - self.lower) if self.limits else 0.0

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
            "limits_cost_at_most": self.cost,
            "complete": self.complete,
            "levels": [
                {
                    "value": level.value,
                    "at_most": level.upper,
                    "groups": [self.groups.names[g] for g in level.groups],
                    "seconds": level.seconds,
                }
                for level in self.levels
            ],
            "relative_gap": self.relative_gap,
            "mean": self.mean,
            "worst": float(self.values.min()),
            "gini": float(gini(self.values)),
            "method": self.method,
            "groups": self.rows(),
        }

    def _head(self) -> str:
        worst = int(self.values.argmin())
        head = (
            f"{self.welfare.name}: worst group {self.groups.names[worst]} {cell(float(self.values[worst]))}"
            f" · mean {cell(self.mean)} · Gini {cell(float(gini(self.values)))} · {self.promise} · {self.method}"
        )
        if not self.complete:
            head += f" · stopped: {len(self.levels)} levels settled, first gap {100 * self.relative_gap:.2g} %"
        return head

    def _shown(self) -> tuple[list[dict[str, Any]], str]:
        """Rows of all groups or the worst ten, and what else is to be said."""
        from rmab_opt.settings.equity.outcomes import MOST_ROWS, spread_in_words, worst_ten

        said = [spread_in_words(self.values)] if len(self.values) > MOST_ROWS else []
        return worst_ten(self.rows(), "value"), "\n".join([*said, *([self.groups.small] if self.groups.small else [])])

    def __str__(self) -> str:
        rows, said = self._shown()
        return f"{self._head()}\n{table_text(rows)}" + (f"\n{said}" if said else "")

    def _repr_html_(self) -> str:
        rows, said = self._shown()
        return notebook_html("Fair plan", [("", self._head()), ("", rows), *([("", said)] if said else [])])

    def to_frame(self, backend: str | None = None) -> Any:
        """:meth:`rows` as a data frame, pandas before polars unless ``backend`` names one."""
        return frame(self.rows(), backend)


def fair_plan(
    problem: Problem,
    actions: ActionSet,
    groups: Groups | str = "group",
    *,
    state: np.ndarray | None = None,
    period: int = 0,
    past: np.ndarray | None = None,
    **options: Any,
) -> FairPlan:
    """The relaxed equity problem of a cohort under its own action set.

    Parameters
    ----------
    groups
        Columns of the cohort's table (see :meth:`Groups.of`), or any :class:`Groups`.
    state, period
        States (N,) before round ``period``; the problem's start by default.
    past
        Mean reward each group has collected in earlier rounds, (K,): what is equalised is the outcome at the end.
    options
        The fields of :class:`Limits`, such as ``floors`` or ``gini``, and the options of :func:`fair_plan_arrays`.
        Guarantees of the action set are kept beside them.

    Raises
    ------
    CapabilityError
        When the dynamics have no tables, or a column acts on several arms.
    """
    cohort = Cohort.of(problem, actions, groups, state=state, period=period, past=past)
    names = {item.name for item in dataclasses.fields(Limits)}
    limits = Limits(**{name: options.pop(name) for name in names & options.keys()})
    services = (*limits.services, *Guarantee.declared(actions, period))
    return fair_plan_arrays(cohort, dataclasses.replace(limits, services=services), **options)


def fair_plan_arrays(
    cohort: Cohort,
    limits: Limits | None = None,
    *,
    welfare: str | float | Welfare = "leximin",
    method: str = "auto",
    tolerance: float = 1e-7,
    seconds: float | None = None,
    on_level: Callable[[Level], None] | None = None,
) -> FairPlan:
    """:func:`fair_plan` on arrays.

    Parameters
    ----------
    limits
        What a plan has to keep beyond the action set.
    welfare
        ``leximin``, ``max_min``, ``nash``, ``nash_groups``, ``utilitarian``, or a number for alpha-fairness.
    method
        ``prices``: decomposition, for any number of arms; ``program``: one linear program over all arms, which alone
        knows the limits ``mode``, ``whole`` and ``services``; ``auto``: prices where they do.
    tolerance
        Relative gap.
    seconds
        When they are over, the best plan so far is returned with what is proven of it.
    on_level
        Called with each level of ``leximin`` as it settles.

    Raises
    ------
    InfeasibleError
        When floors, ceilings and limits cannot be kept together; names those at fault and the least change.
    """
    begun = time.perf_counter()
    check_gap(tolerance)
    limits = limits or Limits()
    if method not in METHODS:
        raise ModelError(f"method is {method!r}", f"use one of {', '.join(METHODS)}.")
    if method == "prices" and limits.of_program:
        raise CapabilityError(
            f"{' and '.join(limits.of_program)} by prices", PricedGroups, ("use method='program'", "drop them")
        )
    if method == "auto":
        method = "program" if limits.of_program else "prices"
    kind = Welfare.of(welfare)
    until = None if seconds is None else begun + seconds
    unit = _Unit.of(cohort, kind)
    inner, kept = in_unit(cohort, limits, unit.size)
    backend = (EquityProgram if method == "program" else PricedGroups)(inner, kept)
    told = None if on_level is None else (lambda level: on_level(_level(level, unit)))
    try:
        found = solve_levels(
            backend, cohort.groups, kind, floors=kept.least, tolerance=tolerance, until=until, on_level=told
        )
    except InfeasibleError:
        from rmab_opt.settings.equity.blame import blame

        if (fault := blame(cohort, limits)) is None:
            raise
        raise fault.error() from None
    words = limits.in_words()
    free = partial(fair_plan_arrays, cohort, welfare=kind, tolerance=max(tolerance, FREE))
    return FairPlan(
        groups=cohort.groups,
        welfare=kind,
        values=found.last.values * unit.size,
        lower=unit.welfare(found.first.lower),
        upper=unit.welfare(found.first.upper),
        weights=found.first.weights * (unit.factor / unit.size),
        prices=found.first.prices * unit.factor,
        use=found.last.use,
        budgets=backend.budgets if isinstance(backend, EquityProgram) else None,
        method=method,
        rounds=found.first.rounds,
        seconds=time.perf_counter() - begun,
        limits=words,
        levels=tuple(_level(level, unit) for level in found.settled),
        complete=found.complete,
        _free=free if words else None,
    )


@dataclass(frozen=True)
class _Unit:
    """A power of two that brings rewards near one, so that no tolerance of a solver knows theirs, and the way back."""

    size: float
    factor: float = 1.0
    """Welfare and prices are multiplied by this: the unit itself, or its power 1 - alpha where the welfare bends."""
    shift: float = 0.0
    """Added to a welfare of logarithms."""

    @classmethod
    def of(cls, cohort: Cohort, kind: Welfare) -> _Unit:
        size = power_of_two(float(np.abs(cohort.reward).max(initial=0.0)))
        if kind.lowest_first or kind.alpha == 0.0:
            return cls(size, size)
        if kind.alpha == 1.0:
            return cls(size, 1.0, float(kind.weights(cohort.groups).sum()) * float(np.log(size)))
        return cls(size, size ** (1.0 - kind.alpha))

    def welfare(self, value: float) -> float:
        """A welfare of scaled values as one of the values themselves."""
        return value * self.factor + self.shift


def _level(level: Level, unit: _Unit) -> Level:
    return dataclasses.replace(level, value=unit.welfare(level.value), upper=unit.welfare(level.upper))


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
        When no budget is enough for some target; says what can be had.
    """
    transition, reward = require_tabular(problem.dynamics, "capacity planning")
    if reward.shape[2] != 2:
        raise CapabilityError("capacity of several actions", problem.dynamics, ("use two actions", "plan by floors"))
    named = Groups.of(problem.arms, groups) if isinstance(groups, str) else groups
    start = (
        problem.start_distribution if state is None else np.eye(problem.dynamics.n_states)[problem.check_state(state)]
    )
    budget = Coupling.budgets([float(problem.n_arms)])
    cohort = Cohort(transition, reward, start, named, budget, problem.horizon, problem.discount)
    program = EquityProgram(cohort, Limits(mode="capacity", whole=whole))
    price = np.broadcast_to(np.asarray(cost, dtype=float), (problem.horizon,))
    wanted = np.broadcast_to(np.asarray(targets, dtype=float), (len(named),))
    try:
        budgets, answer = program.smallest_budget(wanted, price, constant=constant)
    except InfeasibleError:
        from rmab_opt.settings.equity.blame import blame

        if (fault := blame(cohort, Limits(floors=wanted, mode="capacity"))) is None:
            raise
        raise fault.error() from None
    return Capacity(budgets, float(price @ budgets), answer.values, answer.floor_price, named)
