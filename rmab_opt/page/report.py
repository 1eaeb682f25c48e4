"""A decision as one page for the people who carry it out: a list by worker and slot, then what was proven."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rmab_opt.decisions.decision import Decision
from rmab_opt.decisions.model import Model
from rmab_opt.report import Figure, Part, static_page
from rmab_opt.report.words import words

__all__ = ["decision_page"]

MOST_DETAILS = 6
"""Attributes of an arm on the list; more would not fit on paper."""


Shown = Callable[[str], Mapping[str, str]]
"""Cells of a column, by its id."""


def decision_page(model: Model, decision: Decision, more: Sequence[Part] = (), shown: Shown | None = None) -> str:
    """The decision as a self-contained HTML page.

    Parameters
    ----------
    model
        That was decided on: gives the arms' attributes, their states in words and the constraints' sentences.
    more
        Further parts before the proof; see :func:`rmab_opt.report.static_page`.
    shown
        What stands beside an id, e.g. a name; by default the first attributes of its column, and its state.

    Notes
    -----
    The page holds no date and no time: the same decision gives the same page, byte for byte.
    """
    finite = np.isfinite(decision.bound)
    gap = f"gap {decision.gap:.4g} ({100 * decision.relative_gap:.2g} %)" if finite else "gap open"
    t = words("en")
    figures = [
        Figure(t("week.value"), f"{decision.value:.6g}", t("week.value_meaning")),
        Figure(t("week.bound"), f"{decision.bound:.6g}" if finite else "-", t("week.bound_meaning")),
        Figure(
            t("week.gap"), f"{round(100 * decision.relative_gap, 4):.2g} %" if finite else "-", t("week.gap_meaning")
        ),
    ]
    head: list[Part] = [
        ("", figures),
        ("", f"{len(decision.chosen)} of {len(decision.ids)} chosen, round {decision.period}."),
    ]
    if decision.status == "limit":
        head.append(("", f"! The solver stopped at a limit: this is the best list found, {gap}."))
    for name, said in decision.violations.items():
        relaxed = ", relaxed on request" if name == decision.relaxed else ""
        head.append(("", f"! {name} is not kept{relaxed}: {'; '.join(said)}"))
    describe = model.actions.describe()
    constraints = [
        {"constraint": name, "says": sentence, "used up": ", ".join(decision.tight.get(name, []))}
        for name, sentence in describe.items()
    ]
    proof = {
        "value": f"{decision.value:.6g}",
        "bound": f"{decision.bound:.6g} (proven by {decision.proof.words()}), {gap}" if finite else "none proven",
        **{name: f"{said:.6g}" if isinstance(said, float) else str(said) for name, said in decision.notes.items()},
        "re-checked": f"constraints {'ok' if not decision.violations else 'broken'}, value recomputed without a solver",
        "solver": decision.solver,
    }
    title = f"Decision · {decision.title}" if decision.title else "Decision"
    return static_page(
        title, [*head, *_lists(model, decision, shown), *more, ("Constraints", constraints), ("How good it is", proof)]
    )


def _lists(model: Model, decision: Decision, shown: Shown | None) -> list[Part]:
    """One table for each worker (or route), in the order of the work; a single one where nobody is named."""
    details = _details(model, decision) if shown is None else [dict(shown(name)) for name in decision.chosen]
    served = dict(zip(decision.chosen, details, strict=True))
    visits = decision.assignment or [{"column": name} for name in decision.chosen]
    by: dict[str, list[dict[str, str]]] = {}
    for visit in visits:
        whom = next((_heading(key, visit[key]) for key in ("worker", "route") if key in visit), "Chosen")
        when = {key: value for key, value in visit.items() if key not in ("column", "constraint", "worker", "route")}
        by.setdefault(whom, []).append({**when, "id": visit["column"], **served[visit["column"]], "done": "☐"})
    named = {visit["column"] for visit in visits}
    left = [{"id": name, **row, "done": "☐"} for name, row in served.items() if name not in named]
    parts: list[Part] = [(f"{whom} · {len(rows)}", rows) for whom, rows in by.items()]
    return [*parts, *([("Without a worker", left)] if left else [])]


def _heading(kind: str, name: str) -> str:
    return name if name.casefold().startswith(kind) else f"{kind.capitalize()} {name}"


def _details(model: Model, decision: Decision) -> list[dict[str, str]]:
    """Attributes of the chosen columns, and the state of the arm where a column acts on one."""
    columns = model.actions.columns
    names = [name for name in columns.names if name != "id"][:MOST_DETAILS]
    cells = {name: columns.text(name) for name in names}
    states = list(getattr(model.problem.dynamics, "state_names", ()))
    effect, rows = columns.effect, []
    for c in columns.indices(list(decision.chosen)).tolist():
        row = {name: cells[name][c] for name in names}
        arms = effect.indices[effect.indptr[c] : effect.indptr[c + 1]]
        if len(arms) == 1 and states:
            row["state"] = str(states[int(decision.state[arms[0]])])
        rows.append(row)
    return rows
