"""Several ways to run a week side by side: other limits, one more nurse, a constraint less; what each is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy.special import stdtrit

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Scheduling
from rmab_opt.catalog import load, load_with
from rmab_opt.decisions import Decision, Model
from rmab_opt.errors import ModelError, RmabError
from rmab_opt.problem import Table
from rmab_opt.problem.table import nearest
from rmab_opt.programme.front_door import Outlook, Plan, ahead_of, choose_rule, plan_decision
from rmab_opt.programme.ledger import Ledger
from rmab_opt.report import table_text

__all__ = ["AS_IT_IS", "Case", "Comparison", "Standpoint", "altered", "changed", "compare", "standpoint"]

AS_IT_IS = "as it is"
"""Name of the case without a change."""

WORDS = ("without", "more", "less", "calls")
"""Changes that are no value of the model file: a constraint less, one more worker like a given one, one worker less,
other calls of a worker in every slot of theirs."""

DECIDING = 0.4
"""Share of a case's time for its list; the rest is for what lies ahead."""

MOST_NAMED = 8
"""Ids that a line names before it only counts."""


@dataclass(frozen=True, eq=False)
class Standpoint:
    """From where cases are compared: a model, what is known of the states, and the round.

    ``drawn`` makes another model of posterior draw k of the transitions; None where there is no estimate.
    """

    name: str | Path
    belief: np.ndarray
    period: int = 0
    shared: np.ndarray | None = None
    drawn: Callable[[Model, int], Model] | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """One way to run the week."""

    name: str
    model: Model
    plan: Plan
    decision: Decision | None
    """None where no action satisfies the constraints."""
    outlook: Outlook | None
    bound: float | None = None
    worth: Mapping[str, float] = field(default_factory=dict)
    said: str = ""
    """Why there is no decision, or what the time was not enough for."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Cases side by side; the first is the model as it is.

    ``spread`` has for each case the least and the largest change of the bound over posterior draws of the estimate.
    """

    cases: Sequence[Case]
    column: str = ""
    """Of the cohort's table, by whose values lists are counted."""
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def first(self) -> Case:
        return self.cases[0]

    def rows(self) -> list[dict[str, Any]]:
        """One row a case: list, expected total, bound, and both against the first case."""
        found, first = [], self.first
        valued = any(case.outlook is not None for case in self.cases)
        bounded = any(case.bound is not None for case in self.cases)
        for case in self.cases:
            ahead, made = case.outlook, case.decision
            row: dict[str, Any] = {"case": case.name, "list": None if made is None else len(made.chosen)}
            row["this round"] = None if made is None else made.value
            if valued:
                row["expected"] = None if ahead is None else f"{ahead.total:.2f}"
                row["+-"] = None if ahead is None else (ahead.high - ahead.low) / 2
                row["change"] = _difference(ahead, first.outlook)
            if bounded:
                row["bound"] = None if case.bound is None else f"{case.bound:.2f}"
                known = case.bound is not None and first.bound is not None
                row["its change"] = case.bound - first.bound if known else None  # type: ignore[operator]
            if valued:
                share = None if ahead is None else ahead.share_of_gain
                row["of the gain %"] = None if share is None else 100 * share
            found.append(row)
        return found

    def groups(self) -> list[dict[str, Any]]:
        """One row a case: how many of each group are on its list."""
        if not self.column:
            return []
        arms = self.first.model.problem.arms
        if self.column not in arms.table.columns:
            raise ModelError(f"no column {self.column!r} in the cohort", nearest(self.column, list(arms.table.columns)))
        cell = dict(zip(arms.ids, arms.text(self.column), strict=True))
        names = sorted(set(cell.values()))
        rows = []
        for case in self.cases:
            chosen = [] if case.decision is None else [cell.get(name, "") for name in case.decision.chosen]
            rows.append({"case": case.name, **{name or "-": chosen.count(name) for name in names}})
        return rows

    def changes(self) -> list[str]:
        """Who comes and who goes against the first case, a line a case."""
        if self.first.decision is None:
            return [f"{case.name}: no list; {case.said}" for case in self.cases if case.decision is None]
        base, lines = set(self.first.decision.chosen), []
        for case in self.cases[1:]:
            if case.decision is None:
                lines.append(f"{case.name}: no list; {case.said}")
                continue
            chosen = set(case.decision.chosen)
            parts = [
                f"{what} {_listed(sorted(who))}"
                for what, who in (("comes", chosen - base), ("goes", base - chosen))
                if who
            ]
            lines.append(f"{case.name}: {'; '.join(parts) or 'the same list'}")
        return lines + [f"{case.name}: {case.said}" for case in self.cases if case.decision is not None and case.said]

    def worth(self) -> list[str]:
        """What one more unit is worth: by the bound's prices, and between budgets that differ in one number."""
        lines = []
        for name, price in self.first.worth.items():
            lines.append(
                f"one more of {name} in every round: {price:.4g} to the horizon by the bound's prices; "
                "each further one adds no more than that"
            )
        for key, steps in self._steps().items():
            pairs = list(pairwise(steps))
            slopes = [(two[1] - one[1]) / (two[0] - one[0]) for one, two in pairs]
            said = ", ".join(
                f"{one[0]:g} to {two[0]:g}: {slope:.4g} a unit" for (one, two), slope in zip(pairs, slopes, strict=True)
            )
            falling = all(later <= sooner + 1e-6 * max(1.0, abs(sooner)) for sooner, later in pairwise(slopes))
            shape = "; each further one is worth less" if len(slopes) > 1 and falling else ""
            lines.append(f"{key}: {said} by the bound{shape}")
        for name, (low, high) in self.spread.items():
            lines.append(f"{name}: the bound changes by {low:.4g} to {high:.4g} over the estimate's draws")
        return lines

    def _steps(self) -> dict[str, list[tuple[float, float]]]:
        """Bounds by the number of cases that set one and the same key, ascending; from two numbers on."""
        found: dict[str, dict[float, float]] = {}
        for case in self.cases[1:]:
            key, _, value = case.name.partition("=")
            if case.bound is None or " and " in case.name:
                continue
            try:
                found.setdefault(key.strip(), {})[float(value)] = case.bound
            except ValueError:
                continue
        return {key: sorted(by.items()) for key, by in found.items() if len(by) > 1}

    def __str__(self) -> str:
        parts = [table_text(self.rows())]
        if self.column:
            parts.append(f"the list by {self.column}\n{table_text(self.groups())}")
        parts.append("\n".join([*self.changes(), *self.worth()]))
        return "\n\n".join(part for part in parts if part)

    def document(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "cases": [
                {
                    "case": case.name,
                    "chosen": None if case.decision is None else list(case.decision.chosen),
                    "value": None if case.decision is None else case.decision.value,
                    "horizon": None if case.outlook is None else case.outlook.summary(),
                    "bound": case.bound,
                    "rule": str(case.plan),
                    "said": case.said,
                }
                for case in self.cases
            ],
            "groups": self.groups(),
            "changes": self.changes(),
            "worth": self.worth(),
            "spread": {name: list(ends) for name, ends in self.spread.items()},
        }


def _difference(ahead: Outlook | None, first: Outlook | None) -> str | None:
    """What a case adds, with the interval of the paired runs."""
    if ahead is None or first is None or len(ahead.totals) != len(first.totals):
        return None
    apart = np.subtract(ahead.totals, first.totals)
    if len(apart) < 2:
        return f"{apart.mean():+.2f}"
    half = stdtrit(len(apart) - 1, 0.975) * apart.std(ddof=1) / np.sqrt(len(apart))
    return f"{apart.mean():+.2f} +- {half:.2f}"


def _listed(names: Sequence[str]) -> str:
    return " ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def standpoint(name: str, state: Path | None = None) -> Standpoint:
    """Where a model or a programme's folder stands now: its ledger's beliefs and round, else its own start.

    Raises
    ------
    ModelError
        As :func:`rmab_opt.load` and :class:`Ledger`.
    """
    folder = Path(name)
    in_programme = (folder / "standing.json").is_file()
    model = load(folder if in_programme else name)
    if state is not None:
        seen = model.state(state)
        assert seen is not None
        return Standpoint(name, np.eye(model.problem.dynamics.n_states)[seen], shared=model.shared(state))
    if not in_programme:
        return Standpoint(name, model.problem.start_distribution, shared=model.shared())
    from rmab_opt.programme.folder import drawn_models, read_standing

    found = Ledger(folder / "ledger", model).standing()
    belief = model.problem.start_distribution if found is None else found.belief
    shared = model.shared(None, None if found is None else found.shared or None)
    return Standpoint(folder, belief, read_standing(folder)["period"], shared, drawn_models(folder))


def changed(name: str | Path, change: str) -> Model:
    """The model with a change as a person writes it: ``weekly.at_most=67``, ``without=roster``, ``more=Ada``,
    ``less=Ada``, ``calls=Ada:3``; several joined by `` and ``.

    Raises
    ------
    ModelError
        When a key, a constraint or a worker is unknown; names it.
    """
    parts = [part.strip() for part in change.split(" and ")] if change else []
    values = [part for part in parts if part.partition("=")[0].strip() not in WORDS]
    model = load_with(name, [_full(name, part) for part in values])
    for part in parts:
        word, _, what = part.partition("=")
        if word.strip() in WORDS:
            model = _reworded(model, word.strip(), what.strip())
    return model


def altered(model: Model, change: str) -> Model:
    """The model with a change of its action set alone, as :func:`changed` writes it, without reading its files again.

    Raises
    ------
    ModelError
        When it names no limit, rule or worker of the model.
    """
    for part in [part.strip() for part in change.split(" and ")] if change else []:
        word, _, what = part.partition("=")
        name, constraints = word.strip(), dict(model.actions.declared)
        if name in WORDS:
            model = _reworded(model, name, what.strip())
            continue
        found = constraints.get(name)
        if found is None or "at_most" not in type(found).model_fields:
            raise ModelError(f"{part}: no limit {name!r}", nearest(name, list(constraints)))
        fields = {key: getattr(found, key) for key in type(found).model_fields}
        try:
            constraints[name] = type(found).model_validate(fields | {"at_most": float(what)})
        except ValueError:
            raise ModelError(f"{part}: {what!r} is no limit", "write NAME=NUMBER.") from None
        model = replace(model, actions=ActionSet(model.actions.columns, constraints))
    return model


def _full(name: str | Path, part: str) -> str:
    """``weekly=67`` means the limit of the constraint of that name."""
    key, sign, value = part.partition("=")
    if sign and key.strip().isidentifier():
        declared = load(name).settings.get("constraints") or {}
        if isinstance(declared.get(key.strip()), Mapping) and "at_most" in declared[key.strip()]:
            return f"constraints.{key.strip()}.at_most={value}"
    return part


def _reworded(model: Model, word: str, what: str) -> Model:
    constraints = dict(model.actions.declared)
    if word == "without":
        if what not in constraints:
            raise ModelError(f"without={what}: no constraint {what!r}", nearest(what, list(constraints)))
        del constraints[what]
        return replace(model, actions=ActionSet(model.actions.columns, constraints))
    rosters = {name: c for name, c in constraints.items() if isinstance(c, Scheduling)}
    if not rosters:
        raise ModelError(f"{word}={what}: the model has no roster", "name a constraint's limit instead.")
    asked = what
    what, _, calls = what.partition(":") if word == "calls" else (what, "", "")
    if word == "calls" and not calls.strip().isdigit():
        workers = sorted({name for one in rosters.values() for name in one.roster.text("worker")})
        raise ModelError(
            f"calls={asked}: no number of calls of a worker",
            f"write calls=WORKER:NUMBER with one of {', '.join(workers)}.",
        )
    for name, constraint in rosters.items():
        table = constraint.roster
        workers = table.text("worker")
        if what not in workers:
            raise ModelError(f"{word}={what}: no worker {what!r}", nearest(what, sorted(set(workers))))
        rows = {column: list(table.text(column)) for column in table.columns}
        theirs = [row for row, worker in enumerate(workers) if worker == what]
        if word == "calls":
            own = rows.get("calls", ["1"] * len(workers))
            rows["calls"] = [calls.strip() if row in theirs else cell for row, cell in enumerate(own)]
        elif word == "less":
            kept = [row for row in range(len(workers)) if row not in theirs]
            rows = {column: [cells[row] for row in kept] for column, cells in rows.items()}
        else:
            number = 2
            while f"{what} {number}" in workers:
                number += 1
            for column, cells in rows.items():
                cells += [f"{what} {number}" if column == "worker" else cells[row] for row in theirs]
        fields = {key: getattr(constraint, key) for key in type(constraint).model_fields}
        constraints[name] = type(constraint).model_validate(fields | {"roster": Table(rows, source=table.source)})
    return replace(model, actions=ActionSet(model.actions.columns, constraints))


def compare(
    here: Standpoint, changes: Sequence[str], *, episodes: int = 4, column: str = "", policy: str | None = None,
    draws: int = 0, until: float = np.inf,
) -> Comparison:  # fmt: skip
    """The model as it is beside each change, decided and valued with the same chance for all.

    Parameters
    ----------
    changes
        As :func:`changed` takes them.
    episodes
        Runs behind each expected total; the same draws in every case. 0: the bound and this round only.
    column
        Of the cohort's table: lists are counted by it.
    draws
        Posterior draws of the estimate over which the change of the bound is looked at.
    until
        Time of ``perf_counter`` at which it ends; what is left is shared among the cases, and each says what it lacks.

    Raises
    ------
    ModelError
        When a change does not fit the model.
    """
    # All changes are read before the first is decided, which takes a while.
    models = [(name, _model_of(here, name)) for name in (AS_IT_IS, *changes)]
    cases = []
    for waiting, (name, model) in zip(range(len(models), 0, -1), models, strict=True):
        now = perf_counter()
        cases.append(_case(here, name, model, episodes, policy, now + (until - now) / waiting))
    spread: dict[str, tuple[float, float]] = {}
    if draws and here.drawn is not None:
        moved: dict[str, list[float]] = {case.name: [] for case in cases[1:]}
        for k in range(draws):
            if perf_counter() > until:
                break
            bounds = [_bound_of(here, here.drawn(case.model, k), policy) for case in cases]
            for case, value in zip(cases[1:], bounds[1:], strict=True):
                if value is not None and bounds[0] is not None:
                    moved[case.name].append(value - bounds[0])
        spread = {name: (min(values), max(values)) for name, values in moved.items() if values}
    return Comparison(cases, column, spread)


def _model_of(here: Standpoint, name: str) -> Model:
    model = changed(here.name, "" if name == AS_IT_IS else name)
    if model.problem.n_arms != len(here.belief):
        raise ModelError(f"{name}: changes who is in the cohort", "compare cases over the same members.")
    return model


def _case(here: Standpoint, name: str, model: Model, episodes: int, policy: str | None, until: float = np.inf) -> Case:
    meant = plan = choose_rule(model, here.period, policy)
    left = until - perf_counter()
    if left <= 0:
        return Case(name, model, plan, None, None, said="not decided, the time was over: give more --seconds")
    belief = here.belief
    unsure = belief if (belief.max(axis=1) < 1.0).any() else None
    try:
        made, plan = plan_decision(
            model, plan, belief.argmax(axis=1), here.period, belief=unsure, shared=_shared(here, model), title=name,
            deadline=None if np.isinf(left) else until - (1.0 - DECIDING) * left,
        )  # fmt: skip
    except RmabError as error:
        return Case(name, model, plan, None, None, said=" ".join(error.message.split()))
    said = "" if plan is meant else plan.reason
    seen = ahead_of(model, plan, belief, here.period, shared=_shared(here, model), until=until)
    if seen is None:
        late = ["no bound, the time was over"] if perf_counter() > until else []
        return Case(name, model, plan, made, None, said="; ".join([*([said] if said else []), *late]))
    ahead = seen.outlook(episodes, until=until) if episodes > 0 else None
    return Case(name, model, plan, made, ahead, seen.bound, seen.worth, said)


def _shared(here: Standpoint, model: Model) -> np.ndarray | None:
    """What is left now; a changed total of a season changes what is left by as much."""
    if here.shared is None or model.problem.start_shared is None:
        return here.shared
    first = load(here.name).problem.start_shared
    assert first is not None
    return np.asarray(np.maximum(here.shared + model.problem.start_shared - first, 0.0))


def _bound_of(here: Standpoint, model: Model, policy: str | None) -> float | None:
    plan = choose_rule(model, here.period, policy)
    found = ahead_of(model, plan, here.belief, here.period, shared=_shared(here, model))
    return None if found is None else found.bound
