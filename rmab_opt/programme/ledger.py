"""What was done and observed, round by round: an append-only log that the next round starts from.

One file a round, written whole under its name or not at all, never changed afterwards; see
:mod:`rmab_opt.records.log` for how a missing or altered round is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rmab_opt.decisions import Model
from rmab_opt.errors import CapabilityError, Findings, ModelError
from rmab_opt.problem import Season, Table
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.problem.table import nearest
from rmab_opt.records import Entry, Log

__all__ = ["Ledger", "Round", "Standing"]

DONE = {"yes": True, "1": True, "true": True, "done": True, "no": False, "0": False, "false": False, "failed": False}


@dataclass(frozen=True)
class Standing:
    """Where the rounds recorded so far leave the cohort."""

    period: int
    """Round to decide next, counted from 0."""
    belief: np.ndarray
    """Probability of each state of each arm, (N, S); one state is certain where it was observed."""
    ids: tuple[str, ...]
    shared: Mapping[str, float] = field(default_factory=dict)
    """Shared values by name, as observed at the end of the last round."""

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


class Round(Entry):
    """One round as it is kept; ``info.context`` of its reading is the model."""

    newest: ClassVar[int] = 4

    model: str
    period: int = Field(ge=0)
    ids: tuple[str, ...]
    state: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...]
    """State of every arm that was decided for."""
    decided: tuple[str, ...]
    done: tuple[str, ...]
    observed: dict[str, int]
    """State at the round's end, of the arms that were seen."""
    shared: dict[str, FiniteFloat] = Field(default_factory=dict)
    """Shared values that were decided for, by name."""
    shared_after: dict[str, FiniteFloat] = Field(default_factory=dict)
    """Shared values at the round's end."""
    decision: str = ""
    """SHA-256 of the saved decision, so that a repeated record is told from another decision of the same content."""

    belief: dict[str, tuple[FiniteFloat, ...]] = Field(default_factory=dict)
    """Chances of the states of members whose state was not known when it was decided."""
    attributes: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Cells of the round's members by id and column, so that an earlier round stays readable whoever belongs later."""
    explored: str = ""
    """On which draw of the transitions the round was planned, where it was to find things out."""

    @field_validator("ids")
    @classmethod
    def _distinct(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(ids)) < len(ids):
            raise ValueError("names a member twice")
        return ids

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Round:
        if len(self.state) != len(self.ids):
            raise ValueError(f"{len(self.state)} states of {len(self.ids)} members")
        model: Model | None = info.context
        if model is None:
            return self
        problem, columns = model.problem, model.actions.columns
        n_states = problem.dynamics.n_states
        for name, state in zip(self.ids, self.state, strict=True):
            if not 0 <= state < n_states:
                raise ValueError(f"state of {name!r} is {state}; states are 0 to {n_states - 1}")
        members = set(self.ids)
        # A round of other members is no error: who has left stays in the ledger under the names of then.
        known = members | set(columns.ids)
        for part, names in (("decided", self.decided), ("done", self.done)):
            for name in names:
                if name not in known:
                    raise ValueError(f"{part} names {name!r}, which the model does not have")
        for name, seen in self.observed.items():
            if name not in members or not 0 <= seen < n_states:
                raise ValueError(f"observed state of {name!r} is {seen}; states are 0 to {n_states - 1}")
        for part, values in (("shared", self.shared), ("shared_after", self.shared_after)):
            if set(values) != set(problem.shared_names):
                raise ValueError(f"{part} names {sorted(values)}, the model {sorted(problem.shared_names)}")
        return self


class _Saved(BaseModel):
    """What the ledger needs of a saved decision."""

    model_config = ConfigDict(extra="ignore", strict=True)

    ids: tuple[str, ...]
    state: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...]
    action: tuple[str, ...]
    period: int = Field(ge=0, lt=2**31)
    relaxed: str | None = None
    shared: dict[str, FiniteFloat] = Field(default_factory=dict)
    belief: dict[str, tuple[FiniteFloat, ...]] = Field(default_factory=dict)
    notes: dict[str, Any] = Field(default_factory=dict)
    assignment: list[dict[str, str]] = Field(default_factory=list)


class Ledger:
    """Recorded rounds of a cohort that may come and go.

    Parameters
    ----------
    folder
        Holds ``round-0001.json`` and so on; made when the first round is recorded.
    model
        The cohort as it is now, with its dynamics. Rounds are matched to it by id: members may have joined, left or
        stand in another order since.
    keep
        Columns of the cohort that each round keeps, e.g. village and type.

    Notes
    -----
    :attr:`model` counts what the rounds recorded so far brought (guarantees), so it decides the next one.

    Raises
    ------
    ModelError
        When a round is missing, altered or unreadable; names the file.
    """

    def __init__(self, folder: str | Path, model: Model, *, keep: tuple[str, ...] = ()) -> None:
        self.folder, self._declared, self.keep = Path(folder), model, keep
        # Format 1 was written before a head file protected the newest round.
        self._log: Log[Round] = Log(self.folder, Round, stem="round", context=model, headless=(1,))
        self.rounds: list[dict[str, Any]] = []
        self._counted: tuple[int, Model] | None = None
        for number, found in enumerate(self._log.entries):
            self._take(found, number)

    @property
    def model(self) -> Model:
        """The model as it stands after the rounds recorded."""
        if self._counted is None or self._counted[0] != len(self.rounds):
            self._counted = len(self.rounds), self.before(len(self.rounds))
        return self._counted[1]

    def before(self, period: int) -> Model:
        """The model as it stood before a round, counted from 0: what its constraints count is what came before."""
        columns = self._declared.actions.columns
        services = np.zeros((period, self._declared.problem.n_arms), dtype=np.int64)
        for number, found in enumerate(self.rounds[:period]):
            # Who has left is in no column any more.
            services[number] = columns.arm_action(np.isin(columns.ids, found["done"]).astype(np.int64)) > 0
        return self._declared.counted(services)

    def _take(self, found: Round, number: int) -> None:
        if found.period != number:
            raise ModelError(
                f"{self._log.path(number + 1)}: period is {found.period}, not {number}",
                "put back the original file from a copy.",
            )
        self.rounds.append(found.model_dump(mode="json"))

    def record(self, decision: Mapping[str, Any], outcomes: Table) -> Path:
        """Add a round: what was decided, what of it was done, which states were observed at its end.

        Parameters
        ----------
        decision
            A saved decision (``decide --out week.json``).
        outcomes
            Columns ``id``; ``done`` (yes or no; empty or no column: as decided) and ``state`` (a name or a number;
            empty or no row: not observed). A row ``shared:NAME`` has the shared value at the round's end in ``state``;
            a model with a shared state needs all of them.

        Returns
        -------
        pathlib.Path
            The round's file, complete and on disk. Recording the same round again changes nothing.

        Raises
        ------
        ModelError
            Listing every row with an unknown id or word; or when the decision is of another cohort or round, or is
            not allowed by the model.
        """
        saved = self._saved(decision)
        done, observed, after = self._outcomes(saved, outcomes)
        self._check_season(saved, done, after)
        entry = Round(
            format=Round.newest,
            model=self.model.title,
            period=saved.period,
            ids=self.model.problem.arms.ids,
            belief=saved.belief,
            attributes=self._attributes(),
            state=saved.state,
            decided=saved.action,
            done=tuple(done),
            observed=observed,
            shared=saved.shared,
            shared_after=after,
            explored=str(saved.notes.get("explored", "")),
            decision=hashlib.sha256(json.dumps(dict(decision), sort_keys=True).encode("utf-8")).hexdigest(),
        )
        if self.rounds and _same(self._log.entries[-1], entry):
            return self._log.path(len(self.rounds))
        if entry.period != len(self.rounds):
            raise ModelError(
                f"period is {entry.period}: the decision is for round {entry.period + 1}, "
                f"the ledger stands before round {len(self.rounds) + 1}",
                "decide with `--ledger`, which takes the round from there.",
            )
        path = self._log.append(entry)
        self._take(entry, len(self.rounds))
        return path

    def _check_season(self, saved: _Saved, done: list[str], after: Mapping[str, float]) -> None:
        """What is left of a season goes down by what was done, and by nothing else."""
        dynamics: Any = self.model.problem.dynamics
        if not isinstance(dynamics, Season):
            return
        name = dynamics.shared_names[0]
        left = max(saved.shared[name] - len(done), 0.0)
        if abs(after[name] - left) > 1e-6:
            raise ModelError(
                f"shared:{name} is {after[name]:g} after the round; {len(done)} done of {saved.shared[name]:g} leave "
                f"{left:g}",
                "correct the row, or who was done.",
            )

    def _attributes(self) -> dict[str, dict[str, str]]:
        """Cells of the cohort that the ledger keeps: those in :attr:`keep`, none by default."""
        arms = self.model.problem.arms
        columns = {name: arms.text(name) for name in self.keep if name in arms.table.columns}
        return (
            {member: {name: cells[row] for name, cells in columns.items()} for row, member in enumerate(arms.ids)}
            if columns
            else {}
        )

    def _saved(self, decision: Mapping[str, Any]) -> _Saved:
        """The decision, held against the model: its cohort, its state, and what the constraints allow."""
        try:
            saved = _Saved.model_validate_json(json.dumps(dict(decision)))
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise ModelError(
                f"the decision's {where}: {fault['msg']}", "record what `rmab-opt decide --out FILE.json` wrote."
            ) from None
        model = self.before(saved.period) if saved.period <= len(self.rounds) else self.model
        problem, actions = model.problem, model.actions
        columns = actions.columns
        if saved.ids != columns.ids or len(saved.state) != problem.n_arms:
            raise ModelError(
                "the decision is of another model: its ids or its state are not this cohort's",
                "name the model that it was made with.",
            )
        problem.check_state(np.array(saved.state), "the decision's state")
        unknown = [name for name in saved.action if name not in columns]
        if unknown:
            raise ModelError(
                f"the decision's action names {unknown[0]!r}, which the model does not have",
                nearest(unknown[0], columns.ids),
            )
        shared = problem.shared_array(saved.shared, "the decision's shared")
        action = np.isin(columns.ids, saved.action).astype(np.int64)
        broken = actions.at(saved.period, problem.shared_values(shared)).violations(action, saved.assignment)
        for name, sentences in broken.items():
            if name != saved.relaxed:
                raise ModelError(
                    f"the decision's action breaks {name}: {sentences[0]}", "record a decision of this model."
                )
        return saved

    def _outcomes(self, saved: _Saved, outcomes: Table) -> tuple[list[str], dict[str, int], dict[str, float]]:
        """Ids of the columns that were done, observed states by arm, shared values at the end by name."""
        problem, columns = self.model.problem, self.model.actions.columns
        _misspelt(outcomes)
        outcomes, after = problem.split_shared(outcomes)
        done = dict.fromkeys(saved.action, True)
        known, names = problem.states_by_name, problem.state_names
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
        return [name for name in columns.ids if done.get(name)], observed, after

    def standing(self) -> Standing | None:
        """Where the next round starts; None before the first.

        Unobserved arms move by their dynamics under what was really done. Arms of a contact graph are taken as
        independent before each round; what a contact's observed state says about them is not used.

        Raises
        ------
        CapabilityError
            When arms are unobserved and the dynamics can say nothing about them.
        """
        if not self.rounds:
            return None
        # Who was in no round yet starts as the model says; who was away for rounds moved passively meanwhile.
        belief = np.array(self.model.problem.start_distribution)
        met = np.zeros(len(belief), dtype=bool)
        for found in self.rounds:
            belief = self._after(belief, met, found)
            met |= np.isin(self.model.problem.arms.ids, list(found["ids"]))
        return Standing(
            len(self.rounds), belief, tuple(self.model.problem.arms.ids), self._log.entries[-1].shared_after
        )

    def _after(self, belief: np.ndarray, met: np.ndarray, found: Mapping[str, Any]) -> np.ndarray:
        """Beliefs after a round, from those before it; ``met`` says who was in an earlier round."""
        problem, columns = self.model.problem, self.model.actions.columns
        certain = np.eye(problem.dynamics.n_states)
        decided_for = dict(zip(found["ids"], found["state"], strict=True))
        here = np.array([name in decided_for for name in problem.arms.ids], dtype=bool)
        decided_at = np.array([decided_for.get(name, 0) for name in problem.arms.ids])
        # Where the plan used the ledger's own estimate, its doubt stays; another state is a person's knowledge.
        doubted = met & (belief.argmax(axis=1) == decided_at)
        before = np.where((here & ~doubted)[:, None], certain[decided_at], belief)
        for name, chances in found["belief"].items():
            if name in problem.arms:
                before[problem.arms.index(name)] = chances
        moving = here | met
        arms = [problem.arms.index(name) for name in found["observed"] if name in problem.arms]
        after = np.zeros_like(before)
        if len(arms) < problem.n_arms:
            action = columns.arm_action(np.isin(columns.ids, found["done"]).astype(np.int64))
            forecast = getattr(problem.dynamics, "forecast", None)
            if problem.shared_names:
                after = self._after_shared(before, action, found)
            elif forecast is not None:
                after = forecast(before, action)
            else:
                transition, _ = require_tabular(problem.dynamics, "states of arms that were not observed")
                after = np.einsum("ns,nst->nt", before, transition[np.arange(problem.n_arms), action])
        after = np.where(moving[:, None], after, before)
        after[arms] = certain[[seen for name, seen in found["observed"].items() if name in problem.arms]]
        return np.asarray(after)

    def _after_shared(self, before: np.ndarray, action: np.ndarray, found: Mapping[str, Any]) -> np.ndarray:
        """Chances of the next states at the round's shared values; exact only where all states were known."""
        dynamics: Any = self.model.problem.dynamics
        if isinstance(dynamics, Season):
            # What is left of a season limits the acts and moves nobody.
            transition, _ = dynamics.frozen_tabular()
            return np.asarray(np.einsum("ns,nst->nt", before, transition[np.arange(len(before)), action]))
        if (before.max(axis=1) < 1.0 - 1e-12).any():
            raise CapabilityError(
                "chances of arms whose state was unknown",
                dynamics,
                ("observe every arm in each round", "decide with --state, which gives every arm's state"),
            )
        shared = self.model.problem.shared_array(found["shared"])
        return np.asarray(dynamics.p_next(before.argmax(axis=1), action, shared))


def _same(kept: Round, entry: Round) -> bool:
    """Whether a round is recorded once more; format 1 did not keep which decision it was."""
    bare = {"format", "previous", *(() if kept.decision else ("decision",))}
    return kept.model_dump(exclude=bare) == entry.model_dump(exclude=bare)


def _misspelt(outcomes: Table) -> None:
    """Refuse a column that is nearly ``id``, ``done`` or ``state``; others are a programme's own notes."""
    for name in outcomes.columns:
        meant = get_close_matches(name.strip().lower(), ("id", "done", "state"), n=1, cutoff=0.7)
        if meant and name != meant[0]:
            raise ModelError(f"{outcomes.source}: column {name!r}", f"call it {meant[0]!r}, or rename it altogether.")
