"""The answer with its reasons: action, value, bound, gap, re-check; saved, printed and verified."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import Objective, Situation
from rmab_opt.decisions.question import Question
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError
from rmab_opt.problem import Problem
from rmab_opt.records import write_atomically
from rmab_opt.report import table_csv, tree, visible, workbook

__all__ = ["VALUE_TOLERANCE", "Decision", "Verification", "verify"]

VALUE_TOLERANCE = 1e-4
"""Claimed against re-computed value, absolute plus relative: a hundred times the solver's feasibility tolerance."""

BOUND_KINDS = {
    "dual": "proven by the solver",
    "search": "proven by exact search",
    "prices": "proven by prices",
    "listing": "proven by listing all",
    "submodular": "proven by diminishing gains",
    "none": "not proven",
}


@dataclass(frozen=True)
class Decision:
    """One round's action with its certificate.

    ``value`` is the objective re-computed without the program, ``bound`` a proven upper limit of it
    (infinite when none was proven), ``gap = bound - value``. ``encoding_error`` is the difference between
    the program's claim and the re-computed value. ``violations`` is empty unless a constraint was relaxed
    on request. ``status`` is ``optimal`` (within the profile's gap) or ``limit`` (best found, gap open).
    """

    ids: tuple[str, ...]
    action: np.ndarray
    state: np.ndarray
    value: float
    bound: float
    bound_kind: str
    encoding_error: float
    violations: dict[str, list[str]]
    status: str
    solver: str
    seconds: float
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
        """Gap divided by max(1, |bound|), so that near zero the absolute gap counts."""
        return self.gap / max(1.0, abs(self.bound)) if np.isfinite(self.bound) else np.inf

    def summary(self) -> dict[str, Any]:
        """The certificate as plain values, for JSON."""
        return {
            "title": self.title,
            "action": list(self.chosen),
            "assignment": self.assignment,
            "value": self.value,
            "bound": _plain(self.bound),
            "bound_kind": self.bound_kind,
            "gap": _plain(self.gap),
            "relative_gap": _plain(self.relative_gap),
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
        document = {"format": 1, **self.summary(), "ids": list(self.ids), "state": [int(s) for s in self.state]}
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        if path is not None:
            write_atomically(path, text)
        return text

    def rows(self) -> list[dict[str, str]]:
        """One row a visit (or a chosen column without one): ``id`` and who, when, as constraints say."""
        served: dict[str, list[dict[str, str]]] = {name: [] for name in self.chosen}
        for row in self.assignment:
            served[row["column"]].append(
                {key: cell for key, cell in row.items() if key not in ("column", "constraint")}
            )
        keys = list(dict.fromkeys(key for rows in served.values() for row in rows for key in row))
        return [
            {"id": name, **{key: row.get(key, "") for key in keys}}
            for name, rows in served.items()
            for row in (rows or [{}])
        ]

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
        if forced.status != "optimal":
            text += f" The solver stopped at a limit: the cost is at least {max(0.0, self.value - forced.bound):.4g}."
        return text

    def alternatives(self, count: int = 2, *, within: float = 0.01, differ: float = 0.2) -> list[Decision]:
        """Other plans, at most a share ``within`` worse, each differing from all before in a share of its arms.

        Fewer than ``count`` come back when no more exist.
        """
        if not 0 < differ <= 1 or within < 0:
            raise ModelError(f"within={within:g}, differ={differ:g}", "give within >= 0 and differ in (0, 1].")
        found: list[Decision] = [self]
        least = self.value - within * max(1.0, abs(self.value))
        while len(found) <= count:
            try:
                plan = self._ask(avoid=tuple(d.action for d in found), differ=differ)
            except InfeasibleError:
                break
            if plan.value < least:
                break
            found.append(plan)
        return found[1:]

    def _ask(self, **change: Any) -> Decision:
        """The answer to this decision's own question, changed."""
        if self._answer is None or self._question is None:
            raise CapabilityError(
                "deciding again",
                self,
                ("call it on the decision that decide() returned", "decide again from the model"),
            )
        return self._answer(replace(self._question, start=None, ready=None, **change))

    def __str__(self) -> str:
        proof = BOUND_KINDS[self.bound_kind]
        gap = f"gap {self.gap:.4g} ({100 * self.relative_gap:.2g} %)" if np.isfinite(self.bound) else "gap open"
        bound = f"bound {self.bound:.6g} ({proof})" if np.isfinite(self.bound) else "no bound proven"
        checks = (
            "constraints ok" if not self.violations else "; ".join(f"{k}: {v[0]}" for k, v in self.violations.items())
        )
        lines = {
            "chosen": f"{' '.join(self.chosen[:20])}{' ...' if len(self.chosen) > 20 else ''}    "
            f"{len(self.chosen)} of {len(self.ids)}",
            "value": f"{self.value:.6g}   {bound}   {gap}",
        }
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
        return tree(f"Decision · {self.title}" if self.title else "Decision", lines)


def _plain(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


@dataclass(frozen=True)
class Verification:
    """Outcome of an independent re-check; ``ok`` only when every line of ``problems`` is absent."""

    problems: tuple[str, ...]
    value: float

    @property
    def ok(self) -> bool:
        """Whether the decision is what it says."""
        return not self.problems

    def __str__(self) -> str:
        if self.ok:
            return f"verified without a solver: constraints ok, value {self.value:.6g}"
        return "NOT verified:\n" + "\n".join(f"  {line}" for line in self.problems)


def verify(
    decision: Decision | Mapping[str, Any] | str | Path, problem: Problem, actions: ActionSet, objective: Objective
) -> Verification:
    """Re-check a decision, or a saved one, without a solver.

    Raises
    ------
    ModelError
        When the file is not a saved decision or names other columns than the model.
    """
    if isinstance(decision, Decision):
        document: Mapping[str, Any] = json.loads(decision.to_json())
    elif isinstance(decision, Mapping):
        document = decision
    else:
        document = _read(Path(decision))
    missing = [key for key in ("ids", "state", "action", "value", "bound", "violations") if key not in document]
    if missing:
        raise ModelError(f"decision lacks {', '.join(missing)}", "give a file written by `decide --out FILE.json`.")
    if tuple(document["ids"]) != actions.columns.ids:
        raise ModelError("the decision was made for other columns than this model has", "verify it with its own model.")
    unknown = [name for name in document["action"] if name not in actions.columns]
    if unknown:
        raise ModelError(
            f"the decision names {unknown[0]!r}, which the model does not have", "verify it with its own model."
        )
    action = np.zeros(len(actions), dtype=np.int64)
    action[actions.columns.indices(list(document["action"]))] = 1
    state = problem.check_state(np.asarray(document["state"]))
    shared = problem.shared_array(document.get("shared", {}), "the decision's shared")
    situation = Situation(problem, actions.columns, state, int(document.get("period", 0)), shared)
    actions = actions.at(situation.period, problem.shared_values(shared))
    value = objective.value(action, situation)
    tolerance = VALUE_TOLERANCE * (1.0 + abs(value))
    problems = []
    relaxed = document.get("relaxed")
    for name, sentences in actions.violations(action).items():
        if name != relaxed:
            problems += [f"{name}: {sentence}" for sentence in sentences]
    if not abs(value - float(document["value"])) <= tolerance:
        problems.append(f"value is {value:.6g}, the decision says {float(document['value']):.6g}")
    bound = document["bound"]
    if bound is not None and not value <= float(bound) + tolerance:
        problems.append(f"value {value:.6g} is above the bound {float(bound):.6g} that the decision claims")
    return Verification(tuple(problems), value)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file", "give the file that `decide --out` wrote.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, OSError) as error:
        raise ModelError(
            f"{path}: is not a saved decision ({error})", "give the file that `decide --out` wrote."
        ) from None
    if not isinstance(document, Mapping):
        raise ModelError(f"{path}: is not a saved decision", "give the file that `decide --out` wrote.")
    return document
