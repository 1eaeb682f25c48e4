"""`decide`: put the question, let the ways answer it in turn, certify the first answer that holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.bench import WHOLE, Bench, Embedded
from rmab_opt.decisions.certify import certify
from rmab_opt.decisions.decision import Decision
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import LinearObjective, NetworkObjective, Objective
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.decisions.resort import last_resort
from rmab_opt.decisions.scale import Unit, scaled
from rmab_opt.decisions.ways import METHODS, allowed_start, refuse, ways
from rmab_opt.encoder import bounds
from rmab_opt.errors import (
    CapabilityError,
    CertificateError,
    LimitError,
    ModelError,
    SolverError,
    UnsettledError,
)
from rmab_opt.overdue import given_up_at
from rmab_opt.parallel import pmap
from rmab_opt.problem import Problem
from rmab_opt.problem.table import TableLike
from rmab_opt.search import climb_all, slopes
from rmab_opt.solver import Profile, load_profile

__all__ = ["METHODS", "Chooser", "decide"]

CHUNK = 32
"""States that ``batch_decide`` looks at together and that travel to a worker together, however many workers."""

MOMENT = 0.2
"""Seconds that ways have however late it is."""

BENCHES_KEPT = 16
"""Sets at different limits whose programs a chooser keeps compiled."""


class Chooser:
    """Decides on one problem under one action set; programs are compiled once and re-solved for every state.

    Parameters
    ----------
    problem, actions, objective
        What is decided on.
    solver
        Profile: a name, a TOML file or a :class:`Profile`.
    relax
        Name of a constraint that is loosened by its least change when no action exists.
    method
        ``program``: the mixed-integer program; ``search``: the exact search of
        :mod:`rmab_opt.search.branch_and_bound`, for networks; ``prices``: the exact assignment of
        :mod:`rmab_opt.planning.assignment`, for linear objectives under plain budgets; ``listing``: the value of every
        allowed action, one matrix product, for small sets (:attr:`ActionSet.listed`); ``greedy``: one by one by
        the objective's gains, for objectives that offer it, with the bound that diminishing gains prove; ``packing``:
        rosters and loads that are too large for a program, by prices of rows and what they want found room for;
        ``auto``: the first of :mod:`rmab_opt.decisions.ways` that applies. A decision's ``solver`` line says which it
        was. Questions about a decision (forced or other plans) go to the program whatever the method.
    title
        Stands over the printed decision.
    seed
        Of the local search that starts the solver.
    many
        Whether many decisions will follow, so that listing a small set once (a second or two) pays.
    """

    def __init__(
        self,
        problem: Problem,
        actions: ActionSet,
        objective: Objective,
        solver: str | Path | Profile = "default",
        *,
        relax: str | None = None,
        method: str = "auto",
        title: str = "",
        seed: int = 0,
        many: bool = True,
    ) -> None:
        if len(actions.columns.arms) != problem.n_arms:
            raise ModelError(
                f"the action set is over {len(actions.columns.arms)} arms, the problem has {problem.n_arms}",
                "build both from one cohort.",
            )
        if relax is not None and relax not in actions.constraints:
            raise ModelError(f"relax: no constraint {relax!r}", f"name one of {', '.join(actions.constraints)}.")
        if method not in METHODS:
            raise ModelError(f"method is {method!r}", f"use one of {', '.join(METHODS)}.")
        if method == "prices" and not isinstance(objective, LinearObjective):
            raise CapabilityError("assignment by prices", objective, ("use method 'program'", "use scores"))
        if method == "search" and not isinstance(objective, NetworkObjective):
            raise CapabilityError("exact search", objective, ("use method 'program'", "use a network objective"))
        self.method = method
        self.problem, self.actions, self.objective = problem, actions, objective
        self.profile = load_profile(solver)
        self.relax, self.title, self.seed, self.many = relax, title, seed, many
        self._bench = Bench(actions, self.profile)
        self._benches: dict[ActionSet, Bench] = {}

    # ---- asking
    def question(
        self,
        state: np.ndarray | None = None,
        period: int = 0,
        *,
        start: np.ndarray | None = None,
        force: Sequence[str] = (),
        deadline: float | None = None,
        shared: np.ndarray | None = None,
    ) -> Question:
        """The question at a state, with the objective frozen there; parameters as in :meth:`decide`."""
        if state is None:
            assert self.problem.start is not None
            if self.problem.start.ndim != 1:
                raise ModelError("no state given and the start is random", "give the state to decide for.")
            state = self.problem.start
        shared = self.problem.check_shared(self.problem.start_shared if shared is None else shared)
        actions = self.actions.at(period, self.problem.shared_values(shared))
        asked = Question(
            self.problem,
            actions,
            self.objective,
            self.problem.check_state(state),
            self.profile,
            period,
            self.method,
            self.many,
            self.seed,
            self.title,
            start=None if start is None else allowed_start(actions, start, self.relax),
            force=tuple(force),
            relax=self.relax,
            deadline=deadline,
            shared=shared,
        )
        return asked.about(self.objective)

    def answer(self, question: Question) -> Decision:
        """The certified decision of the first way that answers; depends on nothing but the question.

        Raises
        ------
        ModelError, InfeasibleError, SolverError, CertificateError
            As :meth:`decide`.
        """
        clock = perf_counter()
        self.actions.demand_agreement(question.actions)
        unit, asked = scaled(question)
        if question.watch is not None:
            asked = replace(asked, watch=question.watch.in_unit(unit.size, unit.base))
        method, late = question.method if question.plain else "program", None
        # Ways end by themselves before the deadline; what does not is given up. A moment is always there: some need no
        # more for an exact answer.
        end = max(asked.until, clock + MOMENT)
        # Sets too large for a program answer questions about a decision as they made it.
        also = "packing" if not question.plain and question.method == "auto" else method
        for way in ways(self._bench_of(question.actions)):
            if method != "auto" and way.name not in (method, also):
                continue
            if way.applies(asked) is not None:
                if method == way.name:
                    raise refuse(way.name, question)
                continue
            try:
                with given_up_at(end):
                    proposal = way.propose(asked)
            except CertificateError:
                if way.final or method == way.name:
                    raise
                continue
            except LimitError as error:
                late = error
                if asked.seconds == 0.0:
                    break
                continue
            if proposal is None:
                continue
            proposal = replace(proposal, by=f"{proposal.by} · profile {self.profile.name}")
            try:
                return certify(
                    question,
                    unit.back(proposal),
                    seconds=perf_counter() - clock,
                    answer=self.answer,
                    in_unit=(unit, asked),
                )
            except CertificateError:
                if way.final or method == way.name:
                    raise
            except UnsettledError as error:
                late = LimitError(f"the re-check was not settled: {error.message}", error.fix)
                break
        if late is None:
            raise refuse(method, question)
        return self._last_resort(question, unit, asked, late, clock)

    def best(self, question: Question) -> np.ndarray:
        """The action of :meth:`answer` without its certificate, of equal worth: for many questions that are counted.

        Where the objective knows a best action, or the linear relaxation has an allowed action as its optimum, no
        mixed-integer program is solved.
        """
        objective, situation = question.objective, question.situation
        known = objective.choice(question.actions, situation) if question.plain else None
        if known is not None and question.actions.allows(known):
            return known
        if question.plain and isinstance(objective, LinearObjective) and objective.linear(situation):
            asked = scaled(question)[1]
            assert isinstance(asked.objective, LinearObjective)
            gain, _ = asked.objective.coefficients(situation)
            limit = None if question.deadline is None else question.seconds
            found = self._bench_of(question.actions).vertex(gain, limit)
            if found is not None:
                return found
        return self.answer(question).action

    def _last_resort(self, question: Question, unit: Unit, asked: Question, late: LimitError, clock: float) -> Decision:
        """An allowed action although no way has found one in time; where there is none, the sentence that says so."""
        if not question.plain or self.profile.at_limit == "raise":
            raise late
        proposal = last_resort(asked, self._bench_of(question.actions), late.message)
        spent = perf_counter() - clock
        if proposal is None:
            raise SolverError(
                f"no allowed action found in {spent:.2g} s; not proven that none exists ({late.message})",
                "give more seconds, or loosen the constraints.",
            )
        return certify(question, unit.back(proposal), seconds=spent, answer=self.answer, in_unit=(unit, asked))

    def _bench_of(self, actions: ActionSet) -> Bench:
        """What is kept for a set: limits that depend on the situation make sets of their own, one at a time."""
        if actions is self._bench.actions:
            return self._bench
        if actions not in self._benches:
            while len(self._benches) >= BENCHES_KEPT:
                del self._benches[next(iter(self._benches))]
            self._benches[actions] = Bench(actions, self.profile)
        return self._benches[actions]

    def settle(self, question: Question, offered: Proposal | Question, by: str) -> Decision:
        """What a policy hands over, certified: a question is answered here; of a proposal only its action counts.

        Raises
        ------
        CertificateError
            When the action breaks a constraint; names the policy and the constraint.
        """
        if isinstance(offered, Question):
            return self.answer(offered)
        return certify(question, offered.bare(by))

    # ---- deciding
    def decide(
        self,
        state: np.ndarray | None = None,
        period: int = 0,
        *,
        start: np.ndarray | None = None,
        force: Sequence[str] = (),
        shared: np.ndarray | None = None,
    ) -> Decision:
        """The best allowed action at a state.

        Parameters
        ----------
        state
            int (N,); the problem's first state by default.
        period
            Round counted from 0.
        start
            An allowed action to begin from; otherwise a local search's where that pays.
        force
            Ids that must be chosen, on top of the constraints.
        shared
            Shared state (K,) where the arms have one; the problem's first by default.

        Raises
        ------
        InfeasibleError
            When no action is allowed; names a minimal set of clashing constraints and their least relaxation.
        SolverError
            When a limit left no action at all, or the profile says to raise at a limit, or the solver failed.
        CertificateError
            When the answer does not survive its re-check.
        """
        return self.answer(self.question(state, period, start=start, force=force, shared=shared))

    def batch_decide(
        self, states: np.ndarray, period: int = 0, *, n_jobs: int | None = None, shared: np.ndarray | None = None
    ) -> list[Decision]:
        """One decision a state, in order, none of which depends on the others: what a fresh chooser would decide.

        Networks' local search for starts moves all states of a chunk at once; sets, bounds and programs are made
        once a worker. Equally good actions within the profile's gap may differ from those of single decisions.

        Parameters
        ----------
        states
            Shape (M, N).
        period
            Round of all of them.
        n_jobs
            As in :func:`rmab_opt.parallel.pmap`; the decisions do not depend on it.
        shared
            Shared states (M, K) where the arms have one; the problem's first for all by default.

        Raises
        ------
        TaskLostError
            When a worker process died three times.
        ModelError, InfeasibleError, SolverError, CertificateError
            As :meth:`decide`.
        """
        given = np.asarray(states)
        if given.ndim != 2:
            raise ModelError(f"states have shape {given.shape}", "give one state a row, shape (M, N).")
        pieces = [slice(first, first + CHUNK) for first in range(0, len(given), CHUNK)]
        chunks = [(given[piece], None if shared is None else np.asarray(shared)[piece]) for piece in pieces]
        found = dict(pmap(_Worker(self, period), chunks, n_jobs=n_jobs))
        made = [decision for number in range(len(chunks)) for decision in found[number]]
        # What came from another process is given its question again, so that it can be asked about.
        return [
            decision
            if decision._answer is not None
            else replace(decision, _question=self._asked_of(decision), _answer=self.answer)
            for decision in made
        ]

    def _asked_of(self, decision: Decision) -> Question:
        shared = self.problem.shared_array(decision.shared)
        return self.question(decision.state, decision.period, shared=shared)

    def _decide_chunk(self, states: np.ndarray, shared: np.ndarray | None, period: int) -> list[Decision]:
        """Decisions at states (m, N) and shared states (m, K), none started from another's."""
        beside = [None] * len(states) if shared is None else list(shared)
        asked = [self.question(state, period, shared=now) for state, now in zip(states, beside, strict=True)]
        return [self.answer(each) for each in self._started(asked)]

    def _started(self, asked: list[Question]) -> list[Question]:
        """The same questions with their networks and actions to begin from, found by one local search for all."""
        if (
            not isinstance(self.objective, NetworkObjective)
            or self.relax is not None
            or any(each.actions is not self.actions for each in asked)
            or not self.actions.growable
            or self.method in ("listing", "greedy")
            or (self.method == "auto" and self.many and self.actions.listed is not None)
        ):
            return asked
        support = self._bench.support
        in_unit = [scaled(each) for each in asked]
        networks = [each.objective.network(each.situation) for _, each in in_unit]  # type: ignore[attr-defined]
        ready = [Embedded(network, bounds(network, support, "linear"), climbed=True) for network in networks]
        first = self._bench.samples(self.seed)
        values = np.stack([network(first) for network in networks])
        begun = first[values.argmax(axis=1)]
        # One step to the set's maximiser of the slopes there saves most of the climb, where it is allowed.
        ahead = np.floor(support(slopes(networks, begun)).points + WHOLE).astype(np.int64)
        good = np.array([self.actions.allows(action) for action in ahead])
        begun = np.where(good[:, None], ahead, begun)
        ceilings = np.array([each.ceiling for each in ready])
        enough = ceilings - np.maximum(self.profile.absolute_gap, self.profile.relative_gap * np.abs(ceilings))
        starts, _ = climb_all(networks, begun, self.actions.plain_rows.allow, self.actions.allows, ceilings=enough)
        return [
            replace(each, start=s, ready=(unit, replace(own, start=s, ready=r)))
            for each, (unit, own), s, r in zip(asked, in_unit, starts, ready, strict=True)
        ]

    def forget(self) -> None:
        """Drop the compiled programs; the next decision makes its own and is the same."""
        self._bench = Bench(self.actions, self.profile)
        self._benches = {}


class _Worker:
    """Decides chunks of states; in another process with the chooser that it kept from the call's first chunk."""

    def __init__(self, chooser: Chooser, period: int) -> None:
        self.chooser, self.period, self.call = chooser, period, uuid4().hex

    def __call__(self, chunk: tuple[np.ndarray, np.ndarray | None]) -> list[Decision]:
        return self.chooser._decide_chunk(*chunk, self.period)

    def __reduce__(self) -> tuple[Any, ...]:
        return _away, (self.chooser, self.period, self.call)


_AT_WORK: dict[str, Chooser] = {}
"""The chooser that this worker process decides with, by call of ``batch_decide``; one at a time."""


def _away(chooser: Chooser, period: int, call: str) -> _Worker:
    if call not in _AT_WORK:
        _AT_WORK.clear()
        _AT_WORK[call] = chooser
    return _Worker(_AT_WORK[call], period)


def decide(
    model: Model,
    state: np.ndarray | TableLike | None = None,
    *,
    objective: Objective | None = None,
    solver: str | Path | Profile | None = None,
    period: int = 0,
    start: np.ndarray | None = None,
    relax: str | None = None,
    method: str = "auto",
    shared: np.ndarray | Mapping[str, float] | None = None,
    seconds: float | None = None,
) -> Decision:
    """Best allowed action of a model at one state, with its certificate.

    Parameters
    ----------
    model
        From :func:`rmab_opt.load`, or ``Model(problem, actions, objective)``.
    state
        int (N,), a file or a data frame with columns ``id`` and ``state``, or the model's own start by default.
    objective, solver
        In place of the model's own.
    period, start, relax, method
        See :class:`Chooser`.
    shared
        Shared values by name, or (K,), where the arms share a state; by default those of the state's file, else the
        model's own first.
    seconds
        Until the answer is due, on the wall: rows, start, program and proof together. When nothing was found by then an
        allowed action comes back all the same and says what it is.

    Raises
    ------
    ModelError, InfeasibleError, SolverError, CertificateError
        See :meth:`Chooser.decide`.
    """
    deadline = None if seconds is None else perf_counter() + seconds
    chooser = Chooser(
        model.problem,
        model.actions,
        model.objective if objective is None else objective,
        model.solver if solver is None else solver,
        relax=relax,
        method=method,
        title=model.title,
        many=False,
    )
    given, beside = model.state(state), model.shared(state, shared)
    return chooser.answer(chooser.question(given, period, start=start, deadline=deadline, shared=beside))
