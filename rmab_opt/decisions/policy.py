"""Policies: how an action is chosen round after round, by name.

A new policy is a file in :mod:`rmab_opt.decisions.policies` with a line ``@policy("name")``; simulation, tables and
the command line find it by that name. A policy hands over an action, or a question for the kernel to answer (usually
the round's own about frozen scores); it never makes a decision and is never believed. What it remembers from round to
round is a value that is passed along, so that episodes run side by side and an earlier decision answers as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from rmab_opt import registry
from rmab_opt.decisions.chooser import Chooser
from rmab_opt.decisions.decision import Decision
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import Immediate, Objective, Scores
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.errors import CertificateError, ModelError, OverdueError, SolverError
from rmab_opt.overdue import checkpoint, given_up_at

__all__ = [
    "POLICIES",
    "ChooserPolicy",
    "Decider",
    "Greedy",
    "Memory",
    "Policy",
    "RulePolicy",
    "adapted",
    "known_policy",
    "make_policy",
    "policy",
    "round_of",
    "unhurried",
]

UNHURRIED = 0.5
"""With a limit in seconds: the share of what is left of it up to which a decision was not cut short."""

Memory = Any
"""What a policy carries from round to round within one episode: a value, replaced and never changed from outside."""


class Policy:
    """Base of policies; a subclass says :meth:`propose`, and :meth:`begin` where it remembers more than its chance.

    Parameters
    ----------
    model
        Cohort and constraints that are acted on.
    name
        Stands in tables and on decisions.
    """

    name = "policy"
    blind = False
    """Whether its actions depend on nothing but the round, so that its value follows from the arms' chains exactly."""

    def __init__(self, model: Model, name: str | None = None) -> None:
        self.model = model
        self.name = self.name if name is None else name

    def begin(self, rng: np.random.Generator) -> Memory:
        """Memory at the start of an episode; by default the episode's own generator, for policies that draw."""
        return rng

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        """An action, or a question for the kernel to answer, with the memory for the next round.

        Parameters
        ----------
        question
            The round's: its state, period and action set, asked about the expected reward of the round.
        """
        raise NotImplementedError

    def remember(self, memory: Memory, decision: Decision) -> Memory:
        """The memory with what was decided; called with what :meth:`propose` gave back. By default unchanged."""
        return memory

    @cached_property
    def chooser(self) -> Chooser:
        """Puts the rounds' questions and answers those that the policy asks."""
        model = self.model
        return Chooser(model.problem, model.actions, Immediate(), model.solver, title=model.title)

    def follow(
        self,
        state: np.ndarray,
        period: int,
        memory: Memory,
        shared: np.ndarray | None = None,
        *,
        deadline: float | None = None,
    ) -> tuple[Decision, Memory]:
        """The certified decision of a round, at a shared state (K,) where there is one, and the memory for the next.

        By ``deadline``, a time of ``perf_counter``, the round is answered with what is at hand.

        Raises
        ------
        CertificateError
            When what the policy hands over breaks a constraint or a claim does not hold; names the policy.
        """
        question = self.chooser.question(state, period, shared=shared, deadline=deadline)
        offered, kept = self.propose(question, memory)
        try:
            decision = self.chooser.settle(question, offered, self.name)
        except CertificateError as error:
            raise CertificateError(f"policy {self.name!r}: {error.message}", error.fix) from None
        return decision, self.remember(kept, decision)

    def act(
        self,
        state: np.ndarray,
        period: int,
        memory: Memory,
        shared: np.ndarray | None = None,
        *,
        deadline: float | None = None,
    ) -> tuple[np.ndarray, Memory]:
        """As :meth:`follow`, the action alone: for simulated rounds, where nobody reads a certificate."""
        if type(self).remember is Policy.remember:
            question = self.chooser.question(state, period, shared=shared, deadline=deadline)
            offered, kept = self.propose(question, memory)
            if isinstance(offered, Question):
                return self.chooser.best(offered), kept
            return self.chooser.settle(question, offered, self.name).action, kept
        decision, kept = self.follow(state, period, memory, shared, deadline=deadline)
        return decision.action, kept

    def decide(
        self,
        state: np.ndarray,
        period: int = 0,
        rng: np.random.Generator | None = None,
        shared: np.ndarray | None = None,
    ) -> Decision:
        """The decision at one state, as in an episode that begins there."""
        return self.follow(state, period, self.begin(np.random.default_rng(0) if rng is None else rng), shared)[0]

    def forget(self) -> None:
        """Drop what earlier decisions left compiled."""
        if "chooser" in self.__dict__:
            self.chooser.forget()


class Decider(Protocol):
    """The least that a policy of somebody's own must have; what it returns counts for its action alone."""

    name: str

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Any:
        """An action (C,), or something with an ``action``."""
        ...


class _Given(Policy):
    """Somebody's own object with a ``decide``."""

    def __init__(self, model: Model, inner: Decider) -> None:
        super().__init__(model, str(getattr(inner, "name", type(inner).__name__)))
        self.inner = inner

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        made = self.inner.decide(question.state.copy(), question.period, memory)
        return Proposal(np.asarray(getattr(made, "action", made)), by=self.name), memory


POLICIES: Mapping[str, Callable[..., Any]] = registry.Registered("policy")
"""Registered policies; register one by :func:`policy`."""


def policy(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a policy's factory: called with the model, its keyword-only parameters are the policy's arguments."""
    return registry.register("policy", name)


def make_policy(given: str | Policy | Decider, model: Model) -> Policy:
    """A policy by name, or the object itself; arguments follow a colon (``iterative_dqn:runs/a``).

    Raises
    ------
    ModelError
        When no policy has that name, naming the nearest one, or an argument is missing or unknown.
    """
    if not isinstance(given, str):
        return adapted(given, model)
    made = adapted(registry.make("policy", given, model), model)
    made.name = given
    return made


def adapted(given: Policy | Decider, model: Model) -> Policy:
    """The policy itself, or one around somebody's own object with a ``decide``.

    Raises
    ------
    ModelError
        When it has neither ``propose`` nor ``decide``.
    """
    if isinstance(given, Policy):
        return given
    if not callable(getattr(given, "decide", None)):
        raise ModelError(
            f"{type(given).__name__} is no policy", "give a name, a Policy, or an object with name and decide."
        )
    return _Given(model, given)


def known_policy(given: str) -> bool:
    """Whether :func:`make_policy` knows the name before a possible argument."""
    return registry.known("policy", given.partition(":")[0])


# ------------------------------------------------------------------------------------------------------ common policies
class ChooserPolicy(Policy):
    """Maximises an objective exactly each round; begins each search at the last round's action.

    Parameters
    ----------
    chooser
        Of the objective.
    model
        That it is of, for those who ask; made from the chooser by default.
    """

    def __init__(self, chooser: Chooser, name: str, model: Model | None = None) -> None:
        if model is None:
            model = Model(chooser.problem, chooser.actions, chooser.objective, chooser.profile, chooser.title)
        super().__init__(model, name)
        self.__dict__["chooser"] = chooser

    def begin(self, rng: np.random.Generator) -> Memory:
        return None

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        # Where limits change from round to round, the last action may not be allowed any more.
        fixed = question.actions is self.chooser.actions
        known = memory is not None and (fixed or question.actions.allows(memory))
        return replace(question, start=memory if known else None), memory

    def remember(self, memory: Memory, decision: Decision) -> Memory:
        return decision.action

    def act(
        self,
        state: np.ndarray,
        period: int,
        memory: Memory,
        shared: np.ndarray | None = None,
        *,
        deadline: float | None = None,
    ) -> tuple[np.ndarray, Memory]:
        if type(self.chooser.objective).choice is Objective.choice:
            return super().act(state, period, memory, shared, deadline=deadline)
        offered, _ = self.propose(self.chooser.question(state, period, shared=shared, deadline=deadline), memory)
        assert isinstance(offered, Question)
        action = self.chooser.best(offered)
        return action, action


class RulePolicy(Policy):
    """A rule of :mod:`rmab_opt.planning`: its scores become the objective, so that any action set holds exactly."""

    def __init__(self, model: Model, name: str, make: Callable[..., Any], **arguments: Any) -> None:
        super().__init__(model, name)
        self.rule = make(model.problem, model.actions, **arguments)
        self.note = getattr(self.rule, "note", "")

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        beside = {} if question.shared is None else {"shared": question.shared}
        scores = self.rule.scores(question.state, question.period, memory, **beside)
        return question.about(Scores(scores)), memory


class Greedy(Policy):
    """Adds the column with the largest gain in an objective, one by one, while something gains and fits.

    Where the constraints ask for a least number, it goes on with the smallest loss until they are met. Every column is
    looked at once as the best of a step, so it ends after at most C steps; it carries no guarantee.

    Parameters
    ----------
    objective
        What gains are measured in: the round's expected reward, a trained network.
    name
        Of the policy.

    Raises
    ------
    ModelError
        On deciding, when lower limits are left unmet.
    """

    def __init__(self, model: Model, objective: Objective, name: str) -> None:
        super().__init__(model, name)
        self.objective = objective

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        actions, plain, situation = question.actions, question.actions.plain_rows, question.situation
        action = np.zeros(len(actions), dtype=np.int64)
        value, open_columns = self.objective.value(action, situation), np.ones(len(actions), dtype=bool)
        while open_columns.any():
            checkpoint()
            candidates = np.flatnonzero(open_columns)
            trials = np.repeat(action[None], len(candidates), axis=0)
            trials[np.arange(len(candidates)), candidates] = 1
            used = trials.astype(np.float64) @ plain.matrix.T
            # Upper limits of rows that no column lowers must hold all along; the other rows only at the end.
            fits = (~actions.shape.lasting | (used <= plain.ceiling)).all(axis=1)
            values = np.where(fits, self.objective.batch_value(trials, situation), -np.inf)
            best = int(np.argmax(values))
            if not fits[best] or (values[best] <= value and plain.allow(action)):
                break
            open_columns[candidates[best]] = False
            if not any(actions.breaks(name, trials[best]) for name in actions.structured):
                action, value = trials[best], float(values[best])
        if not actions.allows(action):
            raise ModelError(
                f"policy {self.name!r} ended with {', '.join(actions.violations(action))} unmet", "use policy 'myopic'."
            )
        return Proposal(action, by=self.name), memory


@dataclass(frozen=True)
class Round:
    """Decisions of one round, one an episode, with the memories for the next and the seconds that each took."""

    decisions: list[Decision]
    memories: list[Memory]
    seconds: list[float]


def round_of(
    chosen: Policy,
    states: np.ndarray,
    period: int,
    memories: list[Memory],
    shared: np.ndarray | None = None,
    *,
    until: float = np.inf,
) -> Round:
    """One certified decision an episode at states (E, N) and shared states (E, K).

    Raises
    ------
    OverdueError
        When ``until``, a time of ``perf_counter``, came before the end, or near enough to have cut a decision short.
    SolverError
        When a relaxed action would be simulated, or as :meth:`Policy.follow`.
    """
    made, after, spent = [], [], []
    beside = [None] * len(states) if shared is None else list(shared)
    for state, memory, now in zip(states, memories, beside, strict=True):
        clock = perf_counter()
        with unhurried(until):
            decision, kept = chosen.follow(state, period, memory, now, deadline=None if np.isinf(until) else until)
        if decision.violations and decision.relaxed is None:
            raise SolverError(
                f"policy {chosen.name!r} chose a forbidden action: {decision.violations}", "repair the policy."
            )
        spent.append(perf_counter() - clock)
        made.append(decision)
        after.append(kept)
    return Round(made, after, spent)


@contextmanager
def unhurried(until: float) -> Iterator[None]:
    """A simulated decision, or what prepares one: it counts when it took at most :data:`UNHURRIED` of what was left.

    Later the clock may have ended a part of it early: what it then is depends on the machine.

    Raises
    ------
    OverdueError
        When ``until``, a time of ``perf_counter``, has come or was that near.
    """
    begun = perf_counter()

    def late() -> bool:
        return perf_counter() - begun > UNHURRIED * (until - begun)

    over = OverdueError("the time was over", "give more seconds.")
    try:
        with given_up_at(until):
            yield
    except SolverError:
        # What fails for want of time fails in many words.
        if late():
            raise over from None
        raise
    if late():
        raise over
