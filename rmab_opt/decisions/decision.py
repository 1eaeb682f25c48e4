"""The answer with its reasons: action, value, bound, gap, re-check; saved, printed and verified."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.proof import NONE, Proof
from rmab_opt.decisions.question import Question
from rmab_opt.decisions.saved import FORMAT, digests_of
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError, SolverError
from rmab_opt.records import write_atomically
from rmab_opt.report import frame, notebook_html, table_csv, tree, visible, workbook

__all__ = ["Decision"]


@dataclass(frozen=True)
class Decision:
    """One round's action with its certificate.

    ``value`` is the objective re-computed without the program, ``bound`` an upper limit of every allowed action's
    value that numpy has computed from ``proof`` (infinite when nothing was proven), ``gap = bound - value``.
    ``solver_bound`` is what the solver or the search says, and counts for nothing here. ``base`` is the value of the
    least action: what is decided is counted from there, in ``relative_gap`` too. ``encoding_error`` is the difference
    between the program's claim and the re-computed value. ``violations`` is empty unless a constraint was relaxed on
    request. ``status`` is ``optimal`` (proven within the profile's gap, checked again), ``solver_optimal`` (closed by
    the solver or the search, not proven here), ``limit`` (best found, gap open) or ``heuristic``.
    """

    ids: tuple[str, ...]
    action: np.ndarray
    state: np.ndarray
    value: float
    bound: float
    encoding_error: float
    violations: dict[str, list[str]]
    status: str
    solver: str
    seconds: float
    base: float = 0.0
    solver_bound: float | None = None
    proof: Proof = NONE
    unit: float = 1.0
    """Power of two near the largest coefficient: what the prices and the tree's target of ``proof`` are counted in."""
    assignment: list[dict[str, str]] = field(default_factory=list)
    tight: dict[str, list[str]] = field(default_factory=dict)
    relaxed: str | None = None
    nodes: int = 0
    period: int = 0
    title: str = ""
    shared: dict[str, float] = field(default_factory=dict)
    """Shared values that were decided for, by name; empty where the arms share no state."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What else is known: guarantees, estimates out of sample, as name to text or number."""
    _question: Question | None = field(default=None, repr=False, compare=False)
    """What it answers, frozen: asked again, it is answered the same whatever was decided since."""
    _answer: Callable[[Question], Decision] | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        # A decision travels by itself; what could answer further questions stays where it was made.
        return {**self.__dict__, "_question": None, "_answer": None}

    @property
    def chosen(self) -> tuple[str, ...]:
        """Ids of the chosen columns."""
        return tuple(name for name, taken in zip(self.ids, self.action, strict=True) if taken)

    @property
    def gap(self) -> float:
        """bound - value, never negative."""
        return max(0.0, self.bound - self.value)

    @property
    def relative_gap(self) -> float:
        """Gap as a share of what is decided: the larger of value and bound, counted from the least action's value.

        0 where all actions are worth the same but for rounding: nothing is decided there.
        """
        decided = max(abs(self.value - self.base), abs(self.bound - self.base))
        rounding = ROUNDING * max(abs(self.value), abs(self.base))
        return 0.0 if decided <= rounding else _share(self.gap, decided)

    @property
    def total_gap(self) -> float:
        """Gap as a share of the larger of value and bound, the part that no action changes included."""
        return _share(self.gap, max(abs(self.value), abs(self.bound)))

    @property
    def solver_gap(self) -> float:
        """What the solver says is open, as a share of what is decided; infinite when it says nothing."""
        if self.solver_bound is None:
            return np.inf
        open_ = max(0.0, self.solver_bound - self.value)
        return _share(open_, max(abs(self.value - self.base), abs(self.solver_bound - self.base)))

    @property
    def bound_kind(self) -> str:
        """By what the bound is proven: a kind of :class:`rmab_opt.decisions.proof.Proof`."""
        return self.proof.kind

    def summary(self) -> dict[str, Any]:
        """The certificate as plain values, for JSON."""
        return {
            "title": self.title,
            "action": list(self.chosen),
            "assignment": self.assignment,
            "value": self.value,
            "bound": _plain(self.bound),
            "bound_kind": self.bound_kind,
            "solver_bound": None if self.solver_bound is None else _plain(self.solver_bound),
            "base": self.base,
            "gap": _plain(self.gap),
            "relative_gap": _plain(self.relative_gap),
            "proof": {"kind": self.proof.kind, "leaves": self.proof.leaves, "seconds": self.proof.seconds},
            "violations": self.violations,
            "relaxed": self.relaxed,
            "tight": self.tight,
            "encoding_error": self.encoding_error,
            "status": self.status,
            "solver": self.solver,
            "nodes": self.nodes,
            "seconds": self.seconds,
            "period": self.period,
            **({"shared": self.shared} if self.shared else {}),
            **({"notes": self.notes} if self.notes else {}),
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """Everything, with the state decided for, so that :func:`verify` can re-check it; written atomically."""
        document = {
            **self.summary(),
            "format": FORMAT,
            "unit": self.unit,
            "wanted": self._wanted(),
            "ids": list(self.ids),
            "state": [int(s) for s in self.state],
            "proof": self.proof.file().model_dump(exclude_none=True) | {"proven_bound": _plain(self.proof.bound)},
            "digests": {} if self._question is None else digests_of(self._question),
        }
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        if path is not None:
            write_atomically(path, text)
        return text

    def _wanted(self) -> dict[str, float]:
        """The gaps at which the profile calls a decision optimal."""
        if self._question is None:
            return {}
        profile = self._question.profile
        return {"relative_gap": profile.relative_gap, "absolute_gap": profile.absolute_gap}

    def rows(self) -> list[dict[str, str]]:
        """One row a visit (or a chosen column without one): ``id``, who, when, as constraints say; routes in order."""
        served: dict[str, list[dict[str, str]]] = {name: [] for name in self.chosen}
        for row in self.assignment:
            served[row["column"]].append(
                {key: cell for key, cell in row.items() if key not in ("column", "constraint")}
            )
        keys = list(dict.fromkeys(key for rows in served.values() for row in rows for key in row))
        listed = [
            {"id": name, **{key: row.get(key, "") for key in keys}}
            for name, rows in served.items()
            for row in (rows or [{}])
        ]
        if {"route", "stop"} <= {*keys}:
            # Who drives reads from the first stop to the last.
            listed.sort(key=lambda row: [int(row[key]) if row[key].isdecimal() else -1 for key in ("route", "stop")])
        return listed

    def sheet_rows(self) -> list[dict[str, Any]]:
        """As :meth:`rows`, with what the cohort's table says of each column behind: a list to work from."""
        rows: list[dict[str, Any]] = [dict(row) for row in self.rows()]
        if self._question is None:
            return rows
        columns = self._question.actions.columns
        for row in rows:
            at = columns.index(row["id"])
            for name in columns.names:
                if name not in row:
                    row[name] = columns.sheet.cells(name)[at]
        return rows

    def to_csv(self, path: str | Path | None = None) -> str:
        """The action list with the attributes of each column as CSV text; written atomically when a path is given."""
        text = table_csv(self.sheet_rows())
        if path is not None:
            # With a mark at its front a spreadsheet reads it as UTF-8, whatever the machine's own encoding.
            write_atomically(path, "\ufeff" + text)
        return text

    def to_excel(self, path: str | Path) -> None:
        """The action list and the certificate as two sheets of an XLSX file; text in it is never a formula."""
        rows = self.sheet_rows()
        proof = [
            [key, value if isinstance(value, int | float | str) else json.dumps(value, ensure_ascii=False)]
            for key, value in self.summary().items()
            if key not in ("action", "assignment")
        ]
        names = list(rows[0]) if rows else ["id"]
        shown = [[key, visible(value) if isinstance(value, str) else value] for key, value in proof]
        listed = [names, *([row[name] for name in names] for row in rows)]
        write_atomically(path, workbook({"actions": listed, "certificate": shown}))

    def why_not(self, name: str) -> str:
        """What choosing ``name`` as well would cost, and whom it would displace.

        Raises
        ------
        InfeasibleError
            When no action contains it; names the clashing constraints.
        """
        if name in self.chosen:
            return f"{name} is chosen."
        forced = self._ask(force=(name,))
        out = [other for other in self.chosen if other not in forced.chosen]
        into = [other for other in forced.chosen if other not in self.chosen and other != name]
        cost = self.value - forced.value
        text = f"Choosing {name} costs {cost:.4g} of {self.value:.4g}"
        text += f" and displaces {', '.join(out)}" if out else " and displaces nobody"
        text += f" (with it comes {', '.join(into)})." if into else "."
        if forced.status not in ("optimal", "solver_optimal"):
            most = forced.bound if forced.solver_bound is None else min(forced.bound, forced.solver_bound)
            text += f" The solver stopped at a limit: the cost is at least {max(0.0, self.value - most):.4g}."
        return text

    def alternatives(self, count: int = 2, *, within: float = 0.01, differ: float = 0.2) -> Alternatives:
        """Other plans, at most a share ``within`` worse, no two alike.

        From all before, each differs in at least as many entries as the share ``differ`` of what those chose, and in
        one. Fewer than ``count`` come back with the sentence why in ``reason``.
        """
        if not 0 < differ <= 1 or within < 0:
            raise ModelError(f"within={within:g}, differ={differ:g}", "give within >= 0 and differ in (0, 1].")
        found: list[Decision] = [self]
        least = self.value - within * abs(self.value)
        while len(found) <= count:
            try:
                plan = self._ask(avoid=tuple(d.action for d in found), differ=differ)
            except InfeasibleError:
                return Alternatives(found[1:], "none other differs enough, says the solver")
            except SolverError as error:
                return Alternatives(found[1:], f"none other found: {error.message}")
            if plan.value < least:
                return Alternatives(found[1:], f"none other within {100 * within:g} %{_said_by(plan, least)}")
            found.append(plan)
        return Alternatives(found[1:], None)

    def under(self, actions: ActionSet) -> Decision:
        """The answer to this decision's question under another set of actions over the same columns: a what-if.

        Raises
        ------
        InfeasibleError
            When that set is empty; names the clashing constraints.
        """
        question = self._question
        if question is None:
            return self._ask()
        shared = question.problem.shared_values(question.shared)
        return self._ask(actions=actions.at(question.period, shared))

    @property
    def question(self) -> Question:
        """What this decision answers, frozen; CapabilityError where it was read from a file."""
        return self._question if self._question is not None else self._ask()._question  # type: ignore[return-value]

    def _ask(self, **change: Any) -> Decision:
        """The answer to this decision's own question, changed."""
        if self._answer is None or self._question is None:
            raise CapabilityError(
                "deciding again",
                self,
                ("call it on the decision that decide() returned", "decide again from the model"),
            )
        return self._answer(replace(self._question, start=None, ready=None, watch=None, **change))

    def proven(self) -> str:
        """What is proven of the value, by what, and what only the solver says."""
        by = self.proof.words()
        if not np.isfinite(self.bound):
            said = "nothing proven of it" if self.status == "heuristic" else "not proven"
            return said + self._solver_says()
        if self.status == "optimal":
            gap = "gap 0" if self.relative_gap <= 1e-9 else f"gap {100 * self.relative_gap:.2g} %"
            again = f", checked again in {self.proof.seconds:.2g} s" if self.proof.kind == "tree" else f" ({gap})"
            return f"optimal: proven by {by}{again}"
        if self.status == "solver_optimal":
            return f"proven at most {self.bound:.6g} by {by}{self._solver_says()}"
        return f"best found; nothing above {self.bound:.6g} by {by}{self._solver_says()}"

    def _solver_says(self) -> str:
        if self.solver_bound is None:
            return ""
        if self.status == "solver_optimal":
            return f" · solver says {self.value:.6g} is best"
        return f" · solver says at most {self.solver_bound:.6g}"

    def open_gap(self) -> str:
        """The proven gap, of what is decided, and the share of the total where it differs."""
        if not np.isfinite(self.bound):
            return "open: nothing proven; the search's word was not checked again"
        decided = max(abs(self.value - self.base), abs(self.bound - self.base))
        text = f"{100 * self.relative_gap:.2g} % of what is decided ({decided:.6g}) proven open"
        if abs(self.total_gap - self.relative_gap) > 0.05 * self.relative_gap:
            text += f", {100 * self.total_gap:.2g} % of the total"
        return text + ("; the solver's search closes it" if self.status == "solver_optimal" else "")

    def _lines(self) -> dict[str, str]:
        checks = (
            "constraints ok" if not self.violations else "; ".join(f"{k}: {v[0]}" for k, v in self.violations.items())
        )
        lines = {
            "chosen": f"{' '.join(self.chosen[:20])}{' ...' if len(self.chosen) > 20 else ''}    "
            f"{len(self.chosen)} of {len(self.ids)}",
            "value": f"{self.value:.6g}   {self.proven()}",
        }
        if self.status == "solver_optimal" or (self.status == "limit" and np.isfinite(self.bound)):
            lines["gap"] = self.open_gap()
        if self.tight:
            lines["tight"] = " · ".join(
                f"{name} {', '.join(rows[:4])}{', ...' if len(rows) > 4 else ''}" for name, rows in self.tight.items()
            )
        if self.relaxed:
            lines["relaxed"] = f"{self.relaxed}, by the least change that leaves any action"
        lines.update(
            {name: f"{said:.6g}" if isinstance(said, float) else str(said) for name, said in self.notes.items()}
        )
        lines["re-checked"] = (
            f"yes: {checks} · value recomputed {self.value:.6g} (difference {self.encoding_error:.1e})"
        )
        limit = " · stopped at a limit, best found" if self.status == "limit" else ""
        lines["solved"] = f"{self.seconds:.2g} s · {self.nodes} nodes · {self.solver}{limit}"
        return lines

    def _name(self) -> str:
        return f"Decision · {self.title}" if self.title else "Decision"

    def __str__(self) -> str:
        return tree(self._name(), self._lines())

    def _repr_html_(self) -> str:
        rows = self.rows()
        more = [("", f"and {len(rows) - MOST_SHOWN} more: rows(), to_frame()")] if len(rows) > MOST_SHOWN else []
        return notebook_html(self._name(), [("", self._lines()), ("", rows[:MOST_SHOWN]), *more])

    def to_frame(self, backend: str | None = None) -> Any:
        """:meth:`rows` as a data frame, pandas before polars unless ``backend`` names one."""
        return frame(self.rows(), backend)


ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Values that differ by less, relative to their size, differ by the rounding of their sums."""

MOST_SHOWN = 20
"""Rows of a decision in a notebook."""


def _share(gap: float, whole: float) -> float:
    """gap / whole, where nothing of nothing is 0."""
    if not np.isfinite(gap):
        return np.inf
    return gap / whole if whole > 0 else (0.0 if gap == 0 else np.inf)


class Alternatives(list[Decision]):
    """Other plans, and why there are no more of them; None when there are as many as were asked for."""

    def __init__(self, plans: Iterable[Decision], reason: str | None) -> None:
        super().__init__(plans)
        self.reason = reason


def _said_by(plan: Decision, least: float) -> str:
    """Who says that nothing better than the next plan exists."""
    if plan.bound < least:
        return f", proven: the next is worth at most {plan.bound:.6g}"
    if plan.solver_bound is not None and plan.solver_bound < least:
        return f", says the solver: the next is worth at most {plan.solver_bound:.6g}"
    return f", not proven: the next found is worth {plan.value:.6g}"


def _plain(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
