"""What is asked and what is offered in answer: frozen values that every way of deciding shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter
from typing import Any, Literal

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import Objective, Situation
from rmab_opt.decisions.priced import priced
from rmab_opt.problem import Problem
from rmab_opt.solver import Profile, Progress

__all__ = ["Claim", "Proposal", "Question", "Status"]

Claim = Literal["none", "prices", "search", "dual", "listing", "labels", "submodular"]
"""What a claimed bound rests on, as its proposer says; what is proven of it says :mod:`rmab_opt.decisions.proof`."""

Status = Literal["optimal", "solver_optimal", "limit", "heuristic"]
"""``optimal``: proven within the profile's gap, checked again; ``solver_optimal``: the solver or the search closed the
gap, the proof does not; ``limit``: best found, gap open; ``heuristic``: nothing is claimed."""


KEPT, LEAST_KEPT = 0.1, 0.2
"""Share of the time left, and seconds at least, that are kept for the proof and the re-check."""


@dataclass(frozen=True, eq=False)
class Question:
    """One decision to make, complete: whoever answers it later answers the same.

    Parameters
    ----------
    problem, actions
        What is decided on.
    objective
        What is maximised, frozen: its value of an action at this situation never changes.
    state
        int64 (N,).
    period
        Round counted from 0.
    shared
        Shared state (K,) where the arms have one; ``actions`` is the set at it.
    profile
        Of the solver: gaps and limits.
    method
        See :class:`rmab_opt.decisions.chooser.Chooser`.
    many
        Whether many decisions follow, so that listing a small set once pays.
    seed
        Of local searches for a start.
    start
        An allowed action to begin from; it changes the way to an answer, never what is proven of it.
    force
        Ids that must be chosen, on top of the constraints.
    avoid, differ
        Earlier plans (C,), of each of which at least a share ``differ`` of the chosen columns is left out.
    relax
        Name of a constraint that is loosened by its least change when no action exists.
    deadline
        ``time.perf_counter()`` at which the answer is due; None leaves limits to the profile.
    watch
        Sees value and bound as they move and may stop the way to an answer; the best so far is then certified.
    ready
        What a batch has worked out for it; leaving it out changes nothing but the time.
    """

    problem: Problem
    actions: ActionSet
    objective: Objective
    state: np.ndarray
    profile: Profile
    period: int = 0
    method: str = "auto"
    many: bool = False
    seed: int = 0
    title: str = ""
    start: np.ndarray | None = None
    force: tuple[str, ...] = ()
    avoid: tuple[np.ndarray, ...] = ()
    differ: float = 0.2
    relax: str | None = None
    deadline: float | None = None
    ready: Any = field(default=None, repr=False)
    shared: np.ndarray | None = None
    watch: Progress | None = field(default=None, repr=False)

    @cached_property
    def situation(self) -> Situation:
        """Where the objective is asked."""
        return Situation(self.problem, self.actions.columns, self.state, self.period, self.shared, self.actions)

    @property
    def plain(self) -> bool:
        """Whether any action of the set may answer: nothing is forced, avoided or loosened."""
        return not self.force and not self.avoid and self.relax is None

    @property
    def seconds(self) -> float | None:
        """Seconds for the way to an answer: the profile's, or what the deadline leaves beside the proof."""
        if self.deadline is None:
            return self.profile.seconds
        left = max(0.0, self.left - max(LEAST_KEPT, KEPT * self.left))
        return left if self.profile.seconds is None else min(left, self.profile.seconds)

    @property
    def until(self) -> float:
        """The deadline; infinite without one."""
        return np.inf if self.deadline is None else self.deadline

    @property
    def way_until(self) -> float:
        """Time until which the way to an answer may look for more, a moment from now at least; infinite without one.

        The proof is due after it.
        """
        return np.inf if self.deadline is None else perf_counter() + max(LEAST_KEPT, float(self.seconds or 0.0))

    @property
    def left(self) -> float:
        """Seconds until the deadline, the proof's included; infinite without one."""
        return max(0.0, self.until - perf_counter())

    def about(self, objective: Objective, **changes: Any) -> Question:
        """The same question about another objective, frozen here, less what preferences cost; ``changes`` of fields."""
        own = priced(objective.frozen(self.situation), self.actions)
        return replace(self, objective=own, ready=None, **changes)


@dataclass(frozen=True, eq=False)
class Proposal:
    """An action that somebody offers in answer to a question, with what is claimed of it; nothing here is believed.

    Parameters
    ----------
    action
        0/1, (C,).
    value
        What the proposer says the objective is; None claims nothing.
    bound
        Claimed upper limit of every action that may answer; infinite when none is claimed.
    proof
        What the bound rests on.
    data
        What a proof can be made of: ``prices`` (one a row of the program) and ``program`` (the rows, where they are
        not the set's own); ``labels`` of routes.
    status, nodes, by
        How the way to it ended, nodes looked at, who proposes it.
    remarks
        What the decision should say beside its numbers.
    witness
        Who does what, where the way has found it out, as :meth:`rmab_opt.actions.ActionSet.assignment` gives it.
    """

    action: np.ndarray
    value: float | None = None
    bound: float = np.inf
    proof: Claim = "none"
    data: Mapping[str, Any] = field(default_factory=dict)
    status: Status = "heuristic"
    nodes: int = 0
    by: str = ""
    remarks: Mapping[str, Any] = field(default_factory=dict)
    witness: tuple[Mapping[str, str], ...] = ()

    def bare(self, by: str) -> Proposal:
        """The action alone, without what was claimed: all that an outsider's proposal counts for."""
        return Proposal(self.action, by=by, remarks=self.remarks, witness=self.witness)
