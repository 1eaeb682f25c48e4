"""What deciding keeps between questions: compiled programs and the set's relaxation. A cache, and nothing but that.

Everything here is made from the problem, the action set and the profile; dropping it changes no answer, only the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import NetworkObjective
from rmab_opt.decisions.question import Question
from rmab_opt.encoder import Network, Record, Support, bounds
from rmab_opt.errors import OverdueError, UnsettledError
from rmab_opt.solver import Profile, Program, Result, Session, Sifting, load_profile, siftable

__all__ = ["Bench", "Embedded"]

WHOLE = 1e-9
"""Shares of columns nearer to one than this are taken whole."""

INSIDE = 50_000
"""Entries of a linear relaxation above which it is solved from inside. Of a roster of 20,400 families (186,000 entries)
that takes 0.6 to 2.5 CPU seconds where the dual simplex takes 5 to 20."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """A network at a situation, with linear bounds of its pre-activations and last of its output."""

    network: Network
    bounds: list[tuple[np.ndarray, np.ndarray]]
    climbed: bool = False
    """Whether a local search has found the action to begin from."""

    @property
    def ceiling(self) -> float:
        """No allowed action is worth more."""
        return float(self.bounds[-1][1][0])

    @property
    def unstable(self) -> int:
        """Neurons that can still bend."""
        return sum(int(((low < 0) & (high > 0)).sum()) for low, high in self.bounds[:-1])

    @property
    def largest(self) -> float:
        """Largest coefficient that an indicator row would need."""
        parts = [np.maximum(-low, high)[(low < 0) & (high > 0)] for low, high in self.bounds[:-1]]
        return float(np.concatenate(parts).max(initial=0.0)) if parts else 0.0


@dataclass(eq=False)
class Loaded:
    """A session that holds a question's program, the columns' places in it, and the network's record if it has one."""

    session: Session
    act: np.ndarray
    witness: Callable[[np.ndarray], tuple[Mapping[str, str], ...]]
    """Who does what in a solution, one value a column of the program."""
    record: Record | None = None


class Bench:
    """Programs of one action set under one profile.

    Parameters
    ----------
    actions
        The set.
    profile
        Of the sessions.
    """

    def __init__(self, actions: ActionSet, profile: Profile) -> None:
        self.actions, self.profile = actions, profile
        self._kept: tuple[Any, Session, np.ndarray, Any] | None = None
        self._embedded: tuple[Question, Embedded] | None = None
        self._samples: dict[int, np.ndarray] = {}
        self._relaxed: Session | Sifting | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Solvers' objects stay in their process; a copy compiles its own.
        return {
            "actions": self.actions,
            "profile": self.profile,
            "_kept": None,
            "_embedded": None,
            "_samples": {},
            "_relaxed": None,
        }

    @cached_property
    def support(self) -> Support:
        """The set as the encoder and the search see it."""
        model, session = self.actions.compiled
        return Support.from_program(session.program, session.index(model.act), names=self.actions.columns.ids)

    def samples(self, seed: int) -> np.ndarray:
        """A few allowed actions that local searches begin from, (3, C)."""
        if seed not in self._samples:
            self._samples[seed] = self.actions.sample(np.random.default_rng([seed, 0x57A127]), 3)
        return self._samples[seed]

    def prices(self, gain: np.ndarray, seconds: float | None = None) -> np.ndarray | None:
        """Row prices of the set's linear relaxation at the columns' values (C,), (m,); None when it was not solved."""
        try:
            return self.relaxed(gain, seconds).row_duals
        except OverdueError:
            # An action that was found stands without a bound.
            return None

    def relaxed(self, gain: np.ndarray, seconds: float | None = None) -> Result:
        """The linear relaxation's optimum at the columns' values (C,), see :attr:`ActionSet.program`."""
        return self._relaxation(gain, seconds)[0]

    def vertex(self, gain: np.ndarray, seconds: float | None = None) -> np.ndarray | None:
        """An allowed action (C,) at which the linear relaxation itself is best; None where its optimum is fractional.

        Nothing allowed is worth more than the relaxation, so no mixed-integer program is needed for it.
        """
        result, act = self._relaxation(gain, seconds)
        if result.x is None or result.status != "optimal":
            return None
        share = result.x[act]
        action = np.rint(share).astype(np.int64)
        if np.abs(share - action).max(initial=0.0) > WHOLE:
            return None
        try:
            return action if self.actions.allows(action) else None
        except UnsettledError:
            # A hint whose check is too hard is none.
            return None

    def _relaxation(self, gain: np.ndarray, seconds: float | None = None) -> tuple[Result, np.ndarray]:
        """The set's linear relaxation solved at the columns' values (C,), from the last basis; the columns' places."""
        program, act = self.actions.program
        if self._relaxed is None:
            self._relaxed = relaxation(program)
        self._relaxed.set_cost(act, gain)
        return self._relaxed.solve(seconds=seconds), act

    def embedded(self, question: Question) -> Embedded:
        """The question's network with its bounds; worked out once a question."""
        if isinstance(question.ready, Embedded):
            return question.ready
        if self._embedded is None or self._embedded[0] is not question:
            assert isinstance(question.objective, NetworkObjective)
            network = question.objective.network(question.situation)
            self._embedded = (question, Embedded(network, bounds(network, self.support, "linear")))
        return self._embedded[1]

    def load(self, question: Question, known: float | None) -> Loaded:
        """A session that holds the question's program; ``known`` is the value of an allowed action, if any."""
        if isinstance(question.objective, NetworkObjective):
            return self._load_network(question, question.objective, known)
        key = (question.objective.form(question.situation), question.relax)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, *self._compile(question))
        _, session, act, model = self._kept
        for name, values in question.objective.update(question.situation).items():
            session.parameters[f"objective_block.{name}"] = values
        return Loaded(session, act, self._witness(model, session))

    def _load_network(self, question: Question, objective: NetworkObjective, known: float | None) -> Loaded:
        """A network's rows put anew behind the set's own."""
        base, support, act = self._set(question.relax)
        record = objective.embed(question.situation, support, known)
        assert record.arrays is not None
        program = record.arrays.join(base, act)
        key = (("network",), question.relax)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, Session.from_arrays(program, self.profile), act, None)
        else:
            self._kept[1].load(program)
        return Loaded(self._kept[1], act, self._witness(*self.actions.compiled), record)

    def _witness(self, model: Any, session: Session) -> Callable[[np.ndarray], tuple[Mapping[str, str], ...]]:
        """Reads who does what from a solution; ``session`` knows where the model's variables stand in it."""

        def read(x: np.ndarray) -> tuple[Mapping[str, str], ...]:
            return tuple(self.actions.witness(model, lambda variable: x[session.index(variable)]))

        return read

    def _set(self, relax: str | None) -> tuple[Program, Support, np.ndarray]:
        """The set's own program, with ``relax`` loosened, what bounds come from, and the columns' places."""
        model, session = self.actions.compiled
        act = np.asarray(session.index(model.act), dtype=np.int64)
        if relax is None:
            return session.program, self.support, act
        rows, lower, upper = self._loosened(relax, model, session)
        program = session.program
        program.row_lower[rows], program.row_upper[rows] = lower, upper
        return program, Support.from_program(program, act, names=self.actions.columns.ids), act

    def _compile(self, question: Question) -> tuple[Session, np.ndarray, Any]:
        import pyomo.environ as pyo

        model = pyo.ConcreteModel()
        self.actions.build(model)
        model.objective_block = pyo.Block()
        expression = question.objective.build(model.objective_block, model.act, question.situation)
        model.objective = pyo.Objective(expr=expression, sense=pyo.maximize)
        session = Session(model, self.profile)
        if question.relax is not None:
            session.set_rows(*self._loosened(question.relax, model, session))
        return session, np.asarray(session.index(model.act), dtype=np.int64), model

    def _loosened(self, relax: str, model: Any, session: Session) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the relaxed constraint with their least loosened limits."""
        relaxation = self.actions.least_relaxation(relax)
        if not relaxation.enough:
            raise self.actions.infeasibility()
        rows = np.asarray(session.rows(model.constraint[relax]), dtype=np.int64)
        prefix = f"constraint[{relax}]."
        moved = np.array([relaxation.rows.get(session.row_names[row].removeprefix(prefix), 0.0) for row in rows])
        moved = moved / self.actions.units_of(relax, model, session, rows)
        program = session.program
        return rows, program.row_lower[rows] - moved, program.row_upper[rows] + moved


def relaxation(program: Program) -> Session | Sifting:
    """The linear relaxation of a program, to be solved for prices."""
    profile = load_profile("fast")
    if siftable(program):
        return Sifting(program, profile)
    if program.matrix.nnz > INSIDE:
        profile = replace(profile, options={**profile.options, "solver": "ipm"})
    return Session.from_arrays(replace(program, integer=np.zeros(len(program.cost), dtype=bool)), profile)


def different(
    avoid: tuple[np.ndarray, ...], differ: float, act: np.ndarray, width: int
) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
    """Rows: from each earlier plan at least as many entries differ as the share ``differ`` of what it chose, or one.

    Returns
    -------
    tuple
        (matrix over ``width`` program columns, lower, upper limits).
    """
    matrix = np.zeros((len(avoid), width))
    lower = np.empty(len(avoid))
    for row, action in enumerate(avoid):
        # Chosen columns that leave and others that come count alike: the sum over others less the sum over chosen.
        chosen = int(action.sum())
        matrix[row, act] = np.where(action == 1, -1.0, 1.0)
        lower[row] = max(1.0, np.ceil(differ * chosen - WHOLE)) - chosen
    return sparse.csr_array(matrix), lower, np.full(len(avoid), np.inf)
