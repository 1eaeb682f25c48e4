"""What was done and observed, round by round: an append-only folder that the next round starts from.

One file a round, written whole under its name or not at all, never changed afterwards; each names the digest of the
one before, so that a missing or altered round is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.decisions import Model
from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem import Table
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.problem.table import nearest
from rmab_opt.records import write_atomically

__all__ = ["Ledger", "Standing"]

DONE = {"yes": True, "1": True, "true": True, "done": True, "no": False, "0": False, "false": False, "failed": False}


@dataclass(frozen=True)
class Standing:
    """Where the rounds recorded so far leave the cohort."""

    period: int
    """Round to decide next, counted from 0."""
    belief: np.ndarray
    """Probability of each state of each arm, (N, S); one state is certain where it was observed."""
    ids: tuple[str, ...]

    @property
    def state(self) -> np.ndarray:
        """The most probable state of each arm, int64 (N,)."""
        return np.asarray(self.belief.argmax(axis=1), dtype=np.int64)

    @property
    def estimated(self) -> dict[str, float]:
        """Probability of the most probable state, by arm, where it is not certain; the least sure first."""
        sure = self.belief.max(axis=1)
        arms = [int(arm) for arm in np.argsort(sure, kind="stable") if sure[arm] < 1.0 - 1e-12]
        return {self.ids[arm]: float(sure[arm]) for arm in arms}

    def __str__(self) -> str:
        unsure = self.estimated
        text = f"round {self.period + 1}, {len(self.ids)} arms"
        if not unsure:
            return f"{text}, all states observed"
        name, sure = next(iter(unsure.items()))
        return f"{text}, {len(unsure)} states estimated from earlier rounds; least sure {name} ({100 * sure:.0f} %)"


class Ledger:
    """Recorded rounds of one cohort.

    Parameters
    ----------
    folder
        Holds ``round-0001.json`` and so on; made when the first round is recorded.
    model
        Cohort and dynamics the rounds belong to.

    Raises
    ------
    ModelError
        When a round is missing, altered, unreadable or of another cohort; names the file.
    """

    def __init__(self, folder: str | Path, model: Model) -> None:
        self.folder, self.model = Path(folder), model
        self.rounds: list[dict[str, Any]] = []
        self._digest = ""
        names = sorted(path.name for path in self.folder.glob("round-*.json"))
        for number, name in enumerate(names, start=1):
            self._read(name, number)

    def _read(self, name: str, number: int) -> None:
        path = self.folder / name
        data = path.read_bytes()
        try:
            found = json.loads(data)
            previous, ids = found["previous"], found["ids"]
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{path}: is no recorded round", "move the file out of the ledger.") from None
        if name != self._name(number) or previous != self._digest:
            raise ModelError(
                f"{path}: does not follow the round before it; one is missing or was altered",
                "put back the original files from a copy.",
            )
        if ids != list(self.model.problem.arms.ids):
            raise ModelError(f"{path}: is of another cohort", "name the model that the rounds were recorded for.")
        self.rounds.append(found)
        self._digest = hashlib.sha256(data).hexdigest()

    @staticmethod
    def _name(number: int) -> str:
        return f"round-{number:04d}.json"

    def record(self, decision: Mapping[str, Any], outcomes: Table) -> Path:
        """Add a round: what was decided, what of it was done, which states were observed at its end.

        Parameters
        ----------
        decision
            A saved decision (``decide --out week.json``).
        outcomes
            Columns ``id``; ``done`` (yes or no; empty or no column: as decided) and ``state`` (a name or a number;
            empty or no row: not observed).

        Returns
        -------
        pathlib.Path
            The round's file, complete and on disk. Recording the same round again changes nothing.

        Raises
        ------
        ModelError
            Listing every row with an unknown id or word; or when the decision is of another cohort or round.
        """
        done, observed = self._outcomes(decision, outcomes)
        entry: dict[str, Any] = {
            "format": 1,
            "model": self.model.title,
            "period": int(decision["period"]),
            "ids": list(self.model.problem.arms.ids),
            "state": [int(s) for s in decision["state"]],
            "decided": list(decision["action"]),
            "done": done,
            "observed": observed,
        }
        if self.rounds and {key: self.rounds[-1].get(key) for key in entry} == entry:
            return self.folder / self._name(len(self.rounds))
        if entry["period"] != len(self.rounds):
            raise ModelError(
                f"the decision is for round {entry['period'] + 1}, "
                f"the ledger stands before round {len(self.rounds) + 1}",
                "decide with `--ledger`, which takes the round from there.",
            )
        path = self.folder / self._name(len(self.rounds) + 1)
        text = json.dumps({**entry, "previous": self._digest}, indent=1, ensure_ascii=False) + "\n"
        try:
            write_atomically(path, text, replace=False)
        except FileExistsError:
            raise ModelError(
                f"{path}: was written by somebody else just now", "look at it, then record again."
            ) from None
        self._read(path.name, len(self.rounds) + 1)
        return path

    def _outcomes(self, decision: Mapping[str, Any], outcomes: Table) -> tuple[list[str], dict[str, int]]:
        """Ids of the columns that were done, and observed states by arm."""
        problem, columns = self.model.problem, self.model.actions.columns
        if list(decision.get("ids", [])) != list(columns.ids) or len(decision["state"]) != problem.n_arms:
            raise ModelError("the decision is of another model", "name the model that it was made with.")
        done = dict.fromkeys(decision["action"], True)
        known = {str(number): number for number in range(problem.dynamics.n_states)}
        names = list(getattr(problem.dynamics, "state_names", known))
        known.update({name: number for number, name in enumerate(names)})
        observed: dict[str, int] = {}
        findings, rows = Findings(outcomes.source), outcomes.text("id")
        blank = [""] * len(rows)
        cells = {name: outcomes.text(name) if name in outcomes.columns else blank for name in ("done", "state")}
        seen: set[str] = set()
        for row, (name, word, state) in enumerate(zip(rows, cells["done"], cells["state"], strict=True)):
            place = outcomes.place(row)
            if name in seen:
                findings.add(place, f"{name!r} stands twice", "keep one row an arm")
            elif name not in problem.arms and name not in columns.ids:
                findings.add(place, f"no arm {name!r} in the cohort", nearest(name, problem.arms.ids))
            seen.add(name)
            if word and word.lower() not in DONE:
                findings.add(place, f"done of {name!r} is {word!r}", "write yes, no or nothing")
            elif word and name not in columns.ids:
                findings.add(place, f"{name!r} cannot be done: it is an arm, not a column", "name the column")
            elif word:
                done[name] = DONE[word.lower()]
            if state and state not in known:
                findings.add(place, f"state of {name!r} is {state!r}", f"use one of {', '.join(names)}, or nothing")
            elif state and name not in problem.arms:
                findings.add(place, f"{name!r} has no state: it is no arm", "name the arm")
            elif state:
                observed[name] = known[state]
        findings.raise_if_any()
        return [name for name in columns.ids if done.get(name)], observed

    def standing(self) -> Standing | None:
        """Where the next round starts; None before the first.

        Unobserved arms move by their dynamics under what was really done. Arms of a contact graph are taken as
        independent before each round; what a contact's observed state says about them is not used.

        Raises
        ------
        CapabilityError
            When arms are unobserved and the dynamics can say nothing about them.
        """
        belief: np.ndarray | None = None
        for found in self.rounds:
            belief = self._after(belief, found)
        return None if belief is None else Standing(len(self.rounds), belief, tuple(self.model.problem.arms.ids))

    def _after(self, belief: np.ndarray | None, found: Mapping[str, Any]) -> np.ndarray:
        problem, columns = self.model.problem, self.model.actions.columns
        n_states = problem.dynamics.n_states
        certain, decided_at = np.eye(n_states), np.array(found["state"])
        before = certain[decided_at]
        if belief is not None:
            # Where the plan used the ledger's own estimate, its doubt stays; another state is a person's knowledge.
            kept = belief.argmax(axis=1) == decided_at
            before[kept] = belief[kept]
        arms = [problem.arms.index(name) for name in found["observed"]]
        after = np.zeros_like(before)
        if len(arms) < problem.n_arms:
            action = columns.arm_action(np.isin(columns.ids, found["done"]).astype(np.int64))
            forecast = getattr(problem.dynamics, "forecast", None)
            if forecast is not None:
                after = forecast(before, action)
            else:
                transition, _ = require_tabular(problem.dynamics, "states of arms that were not observed")
                after = np.einsum("ns,nst->nt", before, transition[np.arange(problem.n_arms), action])
        after[arms] = certain[list(found["observed"].values())]
        return np.asarray(after)
