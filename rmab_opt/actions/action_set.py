"""The action set: everything that follows from the declared constraints without further code in each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.actions.agreement import Agreement, agreement_of
from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import Constraint, Rows, built_in_order, linked
from rmab_opt.actions.kinds import OneAction, Scheduling
from rmab_opt.actions.kinds.rows import ROW_TOLERANCE, PlainKind, impossible, opened, row_units
from rmab_opt.actions.preferences import Preferences
from rmab_opt.actions.routes import RouteList
from rmab_opt.actions.shape import Shape
from rmab_opt.errors import (
    CertificateError,
    InfeasibleError,
    LimitError,
    ModelError,
    RmabError,
    SolverError,
    UnsettledError,
)
from rmab_opt.overdue import checkpoint
from rmab_opt.problem import Arms
from rmab_opt.solver import Program, Session

__all__ = ["ActionSet", "Conflict", "PlainRows", "Relaxation"]

LISTED_COLUMNS, LISTED_ACTIONS, LISTED_CHECKS = 24, 60_000, 30_000
"""Largest sets that are listed in full; a check of a roster, a load or a route takes 0.02 to 0.3 ms."""

LARGE_SET = 5000
"""Columns above which a linear program over rows is asked for an action before the set is written out in full."""

SETS_KEPT = 64
"""Sets at different limits that are kept with what was compiled for them."""

LEAST_WEIGHT = 2.0**-10
"""Least size of the largest weight in rows of kinds that write them alone: no unit is known to their checks."""

LARGEST_SPAN = 1e9
"""Largest ratio of two weights in one row; solvers' tolerances are near one over it."""

WITNESSES = 8
"""Allowed actions that every network decision's bounds and rows are held against, beside its own and its start."""

NO_ACTION = ("is always infeasible", "trivial Boolean (False)")
"""What Pyomo says of a row that no action satisfies."""


@dataclass(frozen=True)
class Relaxation:
    """The least change of one named constraint that makes the set non-empty.

    ``rows`` maps the program's row to the amount its limit moves; ``total`` is their sum. ``enough`` is
    False when this constraint alone cannot repair the set.
    """

    name: str
    enough: bool
    total: float
    rows: dict[str, float]

    def __str__(self) -> str:
        if not self.enough:
            return f"{self.name}: not enough alone"
        moves = ", ".join(f"{row} by {amount:g}" for row, amount in list(self.rows.items())[:4])
        return f"{self.name}: {moves}{', ...' if len(self.rows) > 4 else ''}"


@dataclass(frozen=True)
class Conflict:
    """A minimal set of named constraints that no action satisfies together: dropping any one frees the rest."""

    sentences: dict[str, str]
    relaxations: tuple[Relaxation, ...]

    def error(self) -> InfeasibleError:
        """The conflict as the exception that planners read."""
        width = max(len(name) for name in self.sentences)
        lines = [f"  {name:<{width}}  {sentence}" for name, sentence in self.sentences.items()]
        count = {1: "this", 2: "these two together"}.get(len(lines), f"these {len(lines)} together")
        enough = [str(relaxation) for relaxation in self.relaxations if relaxation.enough]
        name = next(
            (relaxation.name for relaxation in self.relaxations if relaxation.enough), next(iter(self.sentences))
        )
        least = (
            f" (least change of each: {'; '.join(enough)})"
            if enough
            else " (no single one is enough: there is more than one clash)"
        )
        return InfeasibleError(
            f"no action satisfies {count}:\n" + "\n".join(lines),
            f"relax one of them{least}; `relax={name!r}` decides with its least change.",
            clash=self.sentences,
        )


@dataclass(frozen=True)
class PlainRows:
    """Rows that hold no variable but the action: row_lower <= matrix @ action <= row_upper."""

    matrix: sparse.csr_array
    lower: np.ndarray
    upper: np.ndarray
    owner: tuple[str, ...] = ()
    """Constraint that each row belongs to."""
    key: tuple[str, ...] = ()
    """What the row is about within its constraint; empty for its only one."""
    unit: np.ndarray | None = None
    """Power of two that each row was divided by, (m,), where one is not 1: times it are the sums that people know."""

    def allow(self, actions: np.ndarray) -> np.ndarray:
        """Which of the actions, (..., C), satisfy all rows; bool (...)."""
        if not self.matrix.shape[0]:
            return np.ones(np.shape(actions)[:-1], dtype=bool)
        activity = np.asarray(actions, dtype=np.float64) @ self.matrix.T
        return ((activity >= self.floor) & (activity <= self.ceiling)).all(axis=-1)

    @property
    def as_declared(self) -> PlainRows:
        """The same rows in the units of the model file: for prices that people read."""
        if self.unit is None:
            return self
        matrix = sparse.csr_array(sparse.diags_array(self.unit) @ self.matrix)
        return replace(self, matrix=matrix, lower=self.lower * self.unit, upper=self.upper * self.unit, unit=None)

    @cached_property
    def floor(self) -> np.ndarray:
        """Lower limits, opened by the checkers' tolerance."""
        return opened(self.lower, self.upper)[0]

    @cached_property
    def ceiling(self) -> np.ndarray:
        """Upper limits, opened by the checkers' tolerance."""
        return opened(self.lower, self.upper)[1]


class ActionSet:
    """The actions that satisfy every declared constraint.

    Parameters
    ----------
    columns
        Entries of the decision vector; an :class:`Arms` cohort stands for one column an arm.
    constraints
        Name to constraint; the names come back in decisions and explanations.

    Raises
    ------
    ModelError
        When a constraint does not fit the cohort; names the constraint and the field.
    """

    def __init__(self, columns: Columns | Arms, constraints: Mapping[str, Constraint]) -> None:
        self.columns = columns = Columns.of_arms(columns) if isinstance(columns, Arms) else columns
        self._agreement: Agreement | None = None
        self.constraints: dict[str, Constraint] = dict(constraints)
        if columns.exclusive and not any(isinstance(c, OneAction) for c in self.constraints.values()):
            self.constraints["one_action"] = OneAction()
        for name, constraint in self.constraints.items():
            if not isinstance(constraint, Constraint):
                raise ModelError(
                    f"constraints.{name} is a {type(constraint).__name__}", "give an instance of a constraint kind."
                )
        self.declared = linked(self.constraints)
        for name, constraint in self.declared.items():
            try:
                constraint.check(columns)
                if constraint.soft is not None and not constraint.open_limits:
                    constraint.shortfall(np.zeros((1, len(columns)), dtype=np.int64), columns)
            except ModelError as error:
                raise ModelError(f"constraints.{name}: {error.message}", error.fix) from None
        self.constraints = {name: one for name, one in self.declared.items() if one.soft is None}
        for name, constraint in self.constraints.items():
            on_soft = [key for key in constraint.needs if getattr(constraint, key) not in ("", None, *self.constraints)]
            if on_soft:
                raise ModelError(f"constraints.{name}: {on_soft[0]} names a preference", "make that one firm.")
        self.preferences = Preferences(self.declared, columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __getstate__(self) -> dict[str, Any]:
        # A solver's object stays in its process; a copy compiles its own.
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("compiled", "_at", "program", "lasting")
        }

    def at(self, period: int = 0, shared: Mapping[str, float] | None = None) -> ActionSet:
        """What may be done at a situation: this set itself where no limit depends on the round or a shared value.

        Equal limits give one and the same object, so that what was compiled for them is found again.

        Parameters
        ----------
        period
            Round counted from 0.
        shared
            Shared values by name, as :meth:`Problem.shared_values` gives them.

        Raises
        ------
        ModelError
            When a shared value is unknown, or the limits do not go together; names the constraint.
        """
        now: dict[str, Constraint] = {}
        for name in self.open_constraints:
            try:
                now[name] = self.declared[name].at(period, shared or {})
            except ModelError as error:
                raise ModelError(f"constraints.{name}: {error.message}", error.fix) from None
        if not now:
            return self
        key = tuple(
            (name, field, getattr(constraint, field))
            for name, constraint in now.items()
            for field in self.declared[name].open_limits
        )
        found = self._at.pop(key, None) or ActionSet(self.columns, self.declared | now)
        # Last used last; the first is forgotten.
        self._at[key] = found
        if len(self._at) > SETS_KEPT:
            del self._at[next(iter(self._at))]
        return found

    def later(self, first: int) -> ActionSet:
        """The set as rounds are counted from round ``first`` on; itself where it is the same in all rounds."""
        return self._changed({name: constraint.later(first) for name, constraint in self.declared.items()})

    def counted(self, services: np.ndarray) -> ActionSet:
        """The set after rounds in which arms had services, int (rounds, N); itself where they do not matter."""
        declared = self.declared.items()
        return self._changed({name: constraint.counted(services, self.columns) for name, constraint in declared})

    def _changed(self, constraints: dict[str, Constraint]) -> ActionSet:
        """The set of other constraints by the same names; itself where they are the same."""
        same = all(constraints[name] is constraint for name, constraint in self.declared.items())
        return self if same else ActionSet(self.columns, constraints)

    @cached_property
    def open_constraints(self) -> tuple[str, ...]:
        """Names of the constraints with limits that depend on the round or a shared value."""
        return tuple(name for name, constraint in self.declared.items() if constraint.open_limits)

    @cached_property
    def lasting(self) -> ActionSet:
        """The set without what speaks of one round alone (guarantees): what couples the arms in every round."""
        kept = {name: constraint for name, constraint in self.declared.items() if constraint.polyhedral}
        return self if len(kept) == len(self.declared) else ActionSet(self.columns, kept)

    @cached_property
    def _at(self) -> dict[tuple[Any, ...], ActionSet]:
        return {}

    def build(self, model: Any) -> None:
        """Add ``act`` (binary, 0 .. C-1) and one block a constraint, ``model.constraint[name]``, to a Pyomo model."""
        import pyomo.environ as pyo

        model.act = pyo.Var(range(len(self.columns)), domain=pyo.Binary)

        def rule(block: Any, name: str) -> None:
            try:
                self.constraints[name].build(block, model.act, self.columns)
            except ValueError as error:
                # Pyomo refuses a row that no action satisfies while it is written; here it makes the set empty.
                if not any(words in str(error) for words in NO_ACTION):
                    raise
                block.no_action = pyo.Constraint(expr=impossible(model.act[0], 1.0, None))

        model.constraint = pyo.Block(self.order, rule=rule)

    @property
    def order(self) -> list[str]:
        """Names in the order their blocks are built: a constraint after those on whose parts it builds."""
        return built_in_order(self.constraints)

    def model(self) -> Any:
        """A fresh Pyomo model of the set with the linear objective ``score`` (a mutable Param, maximised)."""
        import pyomo.environ as pyo

        model = pyo.ConcreteModel()
        self.build(model)
        model.score = pyo.Param(range(len(self.columns)), mutable=True, initialize=0.0, domain=pyo.Reals)
        model.objective = pyo.Objective(
            expr=pyo.quicksum(model.score[c] * model.act[c] for c in range(len(self.columns))), sense=pyo.maximize
        )
        return model

    def check_action(self, action: np.ndarray) -> np.ndarray:
        """The action as int64 0/1 of shape (C,); ModelError with the column and the value otherwise."""
        action = np.asarray(action)
        if action.shape != (len(self),):
            raise ModelError(f"action has shape {action.shape}", f"give one 0/1 entry a column, shape ({len(self)},).")
        bad = np.flatnonzero(~np.isin(action, (0, 1)))
        if bad.size:
            raise ModelError(f"action of {self.columns.ids[bad[0]]!r} is {action[bad[0]]}", "give 0 or 1.")
        return action.astype(np.int64)

    def violations(self, action: np.ndarray, witness: Sequence[Mapping[str, str]] = ()) -> dict[str, list[str]]:
        """What the action breaks, by constraint, judged without any solver; empty when it is allowed.

        Parameters
        ----------
        witness
            Who does what, as :meth:`assignment` gives it, where it is known: checked, never believed. Constraints
            that it proves need not look for a way of their own, which may take exponential time.
        """
        action = self.check_action(action)
        proven = self._proven(action, witness)
        found = {
            name: list(constraint.violations(action, self.columns))
            for name, constraint in self.constraints.items()
            if name not in proven
        }
        return {name: sentences for name, sentences in found.items() if sentences}

    def allows(self, action: np.ndarray, witness: Sequence[Mapping[str, str]] = ()) -> bool:
        """Whether no constraint is violated; stops at the first that is. ``witness`` as in :meth:`violations`."""
        action = self.check_action(action)
        if not self.plain_rows.allow(action):
            return False
        proven = self._proven(action, witness)
        return all(
            name in proven or next(iter(self.constraints[name].violations(action, self.columns)), None) is None
            for name in self.structured
        )

    def witness(self, model: Any, values: Callable[[Any], np.ndarray]) -> list[dict[str, str]]:
        """Who does what as a solved program of this set has it, for :meth:`violations`.

        Parameters
        ----------
        model
            That :meth:`build` has filled.
        values
            The solution's values of one of its variables, in the order of its index.
        """
        action = np.rint(values(model.act)).astype(np.int64)
        return [
            {"constraint": name, **row}
            for name in self.structured
            for row in self.constraints[name].witness(model.constraint[name], values, action, self.columns)
        ]

    def _proven(self, action: np.ndarray, witness: Sequence[Mapping[str, str]]) -> dict[str, list[dict[str, str]]]:
        """Constraints that who does what proves to allow the action, with their rows of it."""
        rows: dict[str, list[dict[str, str]]] = {}
        for row in witness:
            rows.setdefault(row.get("constraint", ""), []).append({k: v for k, v in row.items() if k != "constraint"})
        return {
            name: rows[name]
            for name, constraint in self.constraints.items()
            if name in rows and constraint.proves(rows[name], action, self.columns)
        }

    def breaks(self, name: str, action: np.ndarray) -> bool:
        """Whether the action, int64 (C,), breaks the constraint of that name."""
        return next(iter(self.constraints[name].violations(action, self.columns)), None) is not None

    def agreement(self, until: float = np.inf) -> Agreement:
        """Whether the rows and the checks mean the same actions; compared once, in two seconds at most.

        Only for numbers as limits: ask the set of a round, :meth:`at`, where they depend on it. ``until`` is a time of
        ``perf_counter``: what is compared until then is said, and what is left out.
        """
        if self._agreement is None or not self._agreement.compared:
            self._agreement = agreement_of(self, until)
        return self._agreement

    def demand_agreement(self, now: ActionSet) -> None:
        """Before the first decision over a set with kinds of a user's own: their rows must say what their checks say.

        Parameters
        ----------
        now
            This set at a situation; one is compared for all.

        Raises
        ------
        CertificateError
            When they do not; names the constraint and an action.
        """
        if self._agreement is None:
            own = any(not type(each).__module__.startswith("rmab_opt.") for each in self.constraints.values())
            self._agreement = now.agreement() if own else Agreement(0)
        self._agreement.demand()

    def describe(self) -> dict[str, str]:
        """Name to sentence."""
        priced = {name: one for name, one in self.declared.items() if one.soft is not None}
        return {name: constraint.describe() for name, constraint in self.constraints.items()} | {
            name: f"preferred at {one.soft:g} a unit: {one.describe()}" for name, one in priced.items()
        }

    def assignment(self, action: np.ndarray, witness: Sequence[Mapping[str, str]] = ()) -> list[dict[str, str]]:
        """Who does what and when, as far as constraints say so; rows with ``constraint`` and ``column``.

        What ``witness`` proves is kept as it is, see :meth:`violations`.
        """
        action = self.check_action(action)
        proven = self._proven(action, witness)
        return [
            {"constraint": name, **row}
            for name, constraint in self.constraints.items()
            for row in (proven[name] if name in proven else self._assigned(name, constraint, action))
        ]

    def misassigned(self, rows: list[dict[str, str]], action: np.ndarray) -> str | None:
        """What is wrong with who does what, as :meth:`assignment` gives it; None for any right way."""
        strange = [row for row in rows if row.get("constraint") not in self.constraints]
        if strange:
            return f"{strange[0]} is of no constraint"
        for name, constraint in self.constraints.items():
            own = [{k: v for k, v in row.items() if k != "constraint"} for row in rows if row["constraint"] == name]
            fault = constraint.misassigned(own, action, self.columns)
            if fault is not None:
                return f"{name}: {fault}"
        return None

    def _assigned(self, name: str, constraint: Constraint, action: np.ndarray) -> list[dict[str, str]]:
        """What one constraint says of who does what; wishes about a roster choose among its ways."""
        visits = self.preferences.visits(name, action)
        if visits is None or not isinstance(constraint, Scheduling):
            return constraint.assignment(action, self.columns)
        shifts = constraint.shifts_of(self.columns)
        ordered = sorted(visits, key=lambda visit: (visit[1], visit[0]))
        return [{"column": self.columns.ids[c], "worker": shifts[k][0], "slot": shifts[k][1]} for c, k in ordered]

    @cached_property
    def compiled(self) -> tuple[Any, Session]:
        """(:meth:`model`, its session under the profile ``fast``), made once; change no limits in it."""
        model = self.model()
        return model, _session(model)

    @cached_property
    def outer(self) -> PlainRows | None:
        """Rows over the columns alone that every allowed action keeps, instead of a program that would be too large.

        None where the set's own rows are at hand: all are over the columns, or a program of them is small enough.
        """
        found = [(name, self.constraints[name].outer_rows(self.columns)) for name in self.structured]
        own = [(name, rows) for name, rows in found if rows is not None]
        if not own or len(own) < len(found):
            return None
        plain = self.plain_rows
        return PlainRows(
            sparse.csr_array(sparse.vstack([plain.matrix, *(rows.matrix for _, rows in own)], format="csr")),
            np.concatenate([plain.lower, *(rows.lower for _, rows in own)]),
            np.concatenate([plain.upper, *(rows.upper for _, rows in own)]),
            plain.owner + tuple(name for name, rows in own for _ in rows.names),
            plain.key + tuple(key for _, rows in own for key in rows.names),
            None
            if plain.unit is None
            else np.concatenate([plain.unit, *(np.ones(len(rows.names)) for _, rows in own)]),
        )

    @cached_property
    def program(self) -> tuple[Program, np.ndarray]:
        """The set's rows as arrays, without a solver: (program with costs of 0, places of the columns (C,)).

        Of a set with :attr:`outer` rows those: a relaxation, from which bounds are proven all the same.
        """
        if not self.structured or self.outer is not None:
            plain, n = self.outer or self.plain_rows, len(self)
            binary = np.zeros(n), np.ones(n), np.ones(n, dtype=bool)
            return Program(np.zeros(n), plain.matrix, plain.lower, plain.upper, *binary, maximise=True), np.arange(n)
        model, session = self.compiled
        act = np.asarray(session.index(model.act), dtype=np.int64)
        program = session.program
        return replace(program, cost=np.zeros(len(program.cost)), offset=0.0), act

    @cached_property
    def _split(self) -> tuple[PlainRows, tuple[str, ...]]:
        found: list[tuple[str, Rows]] = []
        structured = []
        for name, constraint in self.constraints.items():
            rows = constraint.said_rows(self.columns)
            rows = self._compiled_rows(name) if rows is None and not constraint.own_variables else rows
            if rows is None:
                structured.append(name)
            else:
                found.append((name, rows))
        blocks = [sparse.csr_array((0, len(self))), *(rows.matrix for _, rows in found)]
        matrix = sparse.csr_array(sparse.vstack(blocks, format="csr"))
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        lower = np.concatenate([np.empty(0), *(rows.lower for _, rows in found)])
        upper = np.concatenate([np.empty(0), *(rows.upper for _, rows in found)])
        # A row without members is said by none: it holds, or it stays and makes the set empty.
        kept = (np.diff(matrix.indptr) > 0) | (lower > 0) | (upper < 0)
        unit = np.concatenate([np.empty(0), *(_units(self.constraints[name], rows) for name, rows in found)])
        scaled = bool((unit != 1.0).any())
        if scaled:
            matrix.data /= np.repeat(unit, np.diff(matrix.indptr))
            lower, upper = lower / unit, upper / unit
        _demand_span(matrix, [name for name, rows in found for _ in rows.names])
        owner = [name for name, rows in found for _ in rows.names]
        keys = [key for _, rows in found for key in rows.names]
        at = np.flatnonzero(kept).tolist()
        if len(at) < len(kept):
            matrix = matrix[at]
        plain = PlainRows(
            matrix,
            lower[kept],
            upper[kept],
            tuple(owner[i] for i in at),
            tuple("" if keys[i] == "all" else keys[i] for i in at),
            unit[at] if scaled else None,
        )
        return plain, tuple(structured)

    def _compiled_rows(self, name: str) -> Rows | None:
        """Rows of one constraint, read from the program; None where they hold other variables."""
        model, session = self.compiled
        act = session.index(model.act)
        program, rows = session.program, session.rows(model.constraint[name])
        matrix = sparse.csr_array(program.matrix)[rows]
        own = np.zeros(matrix.shape[1], dtype=bool)
        own[act] = True
        if matrix[:, ~own].nnz:
            return None
        names = [session.row_names[row].rsplit("[", 1)[-1].rstrip("]").strip("'\"") for row in rows]
        return Rows(sparse.csr_array(matrix[:, act]), program.row_lower[rows], program.row_upper[rows], names)

    @property
    def plain_rows(self) -> PlainRows:
        """Rows of the constraints that need no variables of their own."""
        return self._split[0]

    @property
    def structured(self) -> tuple[str, ...]:
        """Names of the constraints that bring variables of their own (rosters, routes)."""
        return self._split[1]

    def tight(self, action: np.ndarray) -> dict[str, list[str]]:
        """Plain rows whose limit the action uses up, in words ``used of limit``, by constraint."""
        plain = self.plain_rows
        used = plain.matrix @ np.asarray(action, dtype=np.float64)
        found: dict[str, list[str]] = {}
        for limit in (plain.upper, plain.lower):
            far = ROW_TOLERANCE * np.maximum(1.0, np.abs(limit))
            reached = np.isfinite(limit) & (np.abs(used - limit) <= far) & (limit != 0)
            for row in np.flatnonzero(reached):
                unit = 1.0 if plain.unit is None else float(plain.unit[row])
                text = f"{plain.key[row]} {used[row] * unit:g} of {limit[row] * unit:g}".strip()
                rows = found.setdefault(plain.owner[row], [])
                if text not in rows:
                    rows.append(text)
        return found

    @cached_property
    def shape(self) -> Shape:
        """What the set looks like, read once: counts, groups, units, routes; its linear maximum; room; samples."""
        return Shape(self)

    @property
    def monotone(self) -> bool:
        """Whether dropping a chosen column always keeps an action allowed."""
        return self.shape.monotone

    @property
    def growable(self) -> bool:
        """Whether dropping a column never breaks a constraint with variables of its own."""
        return self.shape.growable

    def sample(self, rng: np.random.Generator, size: int = 1, *, until: float = np.inf) -> np.ndarray:
        """Random allowed actions, int64 (size, C), for exploration; every one is checked.

        At ``until``, a time of ``perf_counter``, the action at work is taken as it is grown, and it is the last: there
        are fewer then, and at least one.

        Raises
        ------
        InfeasibleError
            When the set is empty.
        LimitError
            When no action was found by ``until``.
        """
        return self.shape.sample(rng, size, until)

    def best_by_program(self, scores: np.ndarray, until: float = np.inf) -> tuple[np.ndarray, float]:
        """(an allowed action int64 (C,), upper bound of the sum of scores) by the compiled program.

        Where ``until``, a time of ``perf_counter``, comes first: the best that was found.

        Raises
        ------
        InfeasibleError
            When the set is empty.
        LimitError
            When nothing was found by ``until``.
        """
        model, session = self.compiled
        session.parameters["score"][:] = scores
        result = session.solve(seconds=_seconds_to(until))
        if not result.has_solution or result.x is None:
            if result.status in ("infeasible", "infeasible_or_unbounded", "empty"):
                raise self.infeasibility(until)
            raise LimitError(f"no action was found: {result.status}", "give the profile more time.")
        return np.rint(result.x[session.index(model.act)]).astype(np.int64), float(result.bound)

    def enumerate(self, most: int = 300_000, *, checks: int | None = None) -> np.ndarray | None:
        """All allowed actions, int8 (M, C), or None when more than ``most`` candidates would have to be looked at.

        Grown column by column; a partial action is dropped when no completion can satisfy a plain row, and as soon
        as it breaks a constraint that dropping columns never breaks. ``checks`` limits the questions to constraints
        with variables of their own, which cost 0.05 to 0.2 ms each.
        """
        plain = self.plain_rows
        matrix = plain.matrix.toarray()
        # What the columns still open can add to each row at least and at most.
        least = np.concatenate(
            [np.cumsum(np.minimum(matrix, 0)[:, ::-1], axis=1)[:, ::-1], np.zeros((len(matrix), 1))], axis=1
        )
        largest = np.concatenate(
            [np.cumsum(np.maximum(matrix, 0)[:, ::-1], axis=1)[:, ::-1], np.zeros((len(matrix), 1))], axis=1
        )
        kinds = [self.constraints[name] for name in self.structured]
        monotone = [kind.monotone(self.columns) for kind in kinds]
        early = [kind for kind, first in zip(kinds, monotone, strict=True) if first]
        late = [kind for kind, first in zip(kinds, monotone, strict=True) if not first]
        left = np.inf if checks is None else checks

        def kept(actions: np.ndarray, kinds: list[Constraint]) -> np.ndarray | None:
            nonlocal left
            if not kinds:
                return actions
            left -= len(actions)
            if left < 0:
                return None
            fits = [
                all(next(iter(c.violations(a, self.columns)), None) is None for c in kinds)
                for a in actions.astype(np.int64)
            ]
            return actions[np.array(fits, dtype=bool)]

        partial = np.zeros((1, len(self)), dtype=np.int8)
        for column in range(len(self)):
            checkpoint()
            fresh = partial.copy()
            fresh[:, column] = 1
            taken = kept(self._completable(fresh, column, least, largest), early)
            if taken is None:
                return None
            partial = np.concatenate([self._completable(partial, column, least, largest), taken])
            if len(partial) > most:
                return None
        return kept(partial, late)

    @cached_property
    def listed(self) -> np.ndarray | None:
        """All allowed actions, float64 (M, C), where they are few; None otherwise. Made once, in two seconds at most.

        Few: at most 24 columns and about 60,000 actions (all sets of at most 5 of 20 arms are 21,700).
        """
        if len(self) > LISTED_COLUMNS:
            return None
        try:
            found = self.enumerate(LISTED_ACTIONS, checks=LISTED_CHECKS)
        except UnsettledError:
            return None
        return None if found is None else found.astype(np.float64)

    @property
    def routes(self) -> RouteList | None:
        """The largest sets that one route passes, where a route and at most a count are all that is declared."""
        return self.shape.routes

    @cached_property
    def witnesses(self) -> np.ndarray:
        """A few allowed actions, (M, C), that networks' bounds and encodings are held against; none where not grown."""
        if not self.growable:
            return np.zeros((0, len(self)), dtype=np.int64)
        return self.sample(np.random.default_rng([0, 0x3172E55]), WITNESSES)

    def _completable(self, partial: np.ndarray, column: int, least: np.ndarray, largest: np.ndarray) -> np.ndarray:
        """Partial actions, settled up to ``column``, that some completion may bring within every plain row."""
        plain = self.plain_rows
        activity = np.asarray(partial, dtype=np.float64) @ plain.matrix.T
        possible = (
            (activity + least[:, column + 1] <= plain.ceiling) & (activity + largest[:, column + 1] >= plain.floor)
        ).all(axis=1)
        kept: np.ndarray = partial[possible]
        return kept

    def explain(self, until: float = np.inf) -> Conflict | None:
        """A minimal set of clashing constraints with the least relaxation of each, or None when the set is not empty.

        Deletion filter over named constraints: each is dropped for good when the rest still clash, so
        the sets left clash while any of them left out frees the others. Integrality is respected.

        Raises
        ------
        LimitError
            When ``until``, a time of ``perf_counter``, comes before it is known whether an action exists.
        """
        if self._shown_by_rows(until):
            return None
        if self.outer is not None and not self.violations(np.zeros(len(self), dtype=np.int64)):
            # A program that only says the same would be too large.
            return None
        model = self.model()
        session = _session(model)
        if self._feasible(session, until):
            return None
        self._demand_nothing_known()
        rows = {name: session.rows(model.constraint[name]) for name in self.constraints}
        original = {
            name: (session.program.row_lower[r].copy(), session.program.row_upper[r].copy()) for name, r in rows.items()
        }
        needed = list(self.constraints)
        for name in list(needed):
            free = np.full(len(rows[name]), np.inf)
            session.set_rows(rows[name], -free, free)
            if self._feasible(session, until):
                session.set_rows(rows[name], *original[name])
            else:
                needed.remove(name)
        if not needed:
            raise SolverError("the solver finds no action even without constraints", "try another solver profile.")
        sentences = {name: self.constraints[name].describe() for name in needed}
        # What a limit leaves no time for is left out: the clash stands without it.
        named = [name for name in needed if perf_counter() < until]
        return Conflict(sentences, tuple(self.least_relaxation(name, until) for name in named))

    def _shown_by_rows(self, until: float = np.inf) -> bool:
        """Whether a linear program over the rows alone finds an action that every check allows; for very many columns.

        Only "yes" is an answer: rows of a large set are often nested, and then the program's solution is whole.
        """
        n = len(self)
        if self.structured or n <= LARGE_SET:
            return False
        rows = self.plain_rows
        program = Program(
            np.zeros(n), rows.matrix, rows.lower, rows.upper, np.zeros(n), np.ones(n), np.zeros(n, dtype=bool),
            maximise=True,
        )  # fmt: skip
        found = Session.from_arrays(program, "fast").solve(seconds=_seconds_to(until)).x
        return found is not None and not self.violations(np.rint(found).astype(np.int64))

    def _demand_nothing_known(self) -> None:
        """Raise CertificateError when a solver says that nothing is allowed and an allowed action is at hand."""
        for action in (np.zeros(len(self), dtype=np.int64), self.shape.grown(np.random.default_rng(0))):
            if action is not None and not self.violations(action):
                ids = " ".join(name for name, taken in zip(self.columns.ids, action, strict=True) if taken) or "nobody"
                raise CertificateError(
                    f"the solver says that no action is allowed, and every constraint allows {ids}",
                    "try another solver profile; report this with the model file.",
                )

    def infeasibility(self, until: float = np.inf) -> RmabError:
        """The exception for an empty set: the conflict in words.

        Raises
        ------
        LimitError
            As :meth:`explain`.
        """
        conflict = self.explain(until)
        if conflict is None:
            return SolverError("the solver found no action, though one exists", "try the profile 'exact'.")
        return conflict.error()

    def least_relaxation(self, name: str, until: float = np.inf) -> Relaxation:
        """Smallest total move of the limits of constraint ``name`` that makes the set non-empty, all others kept.

        At ``until``, a time of ``perf_counter``, the smallest that was found; not enough where none was.

        Raises
        ------
        ModelError
            When there is no constraint of that name.
        """
        if name not in self.constraints:
            raise ModelError(f"relax: no constraint {name!r}", f"name one of {', '.join(self.constraints)}.")
        model = self.model()
        session = _session(model)
        block = model.constraint[name]
        limits = [part for part in self.constraints[name].limiting if block.component(part) is not None]
        attempts = [np.concatenate([session.rows(block.component(part)) for part in limits])] if limits else []
        attempts.append(session.rows(block))
        for rows in attempts:
            rows = np.asarray(rows, dtype=np.int64)
            units = self.units_of(name, model, session, rows)
            relaxation = _elastic(session.program, rows, units, name, session.row_names, until)
            if relaxation.enough:
                return relaxation
        return Relaxation(name, False, np.inf, {})

    def units_of(self, name: str, model: Any, session: Session, rows: np.ndarray) -> np.ndarray:
        """What one unit of each program row of a constraint stands for, a power of two a row."""
        constraint = self.constraints[name]
        found = np.ones(session.program.matrix.shape[0])
        for component, unit in constraint.divided(model.constraint[name], self.columns):
            found[session.rows(component)] = unit
        return found[rows]

    @staticmethod
    def _feasible(session: Session, until: float = np.inf) -> bool:
        result = session.solve(seconds=_seconds_to(until))
        if result.status in ("infeasible", "infeasible_or_unbounded", "empty"):
            return False
        if not result.has_solution:
            raise LimitError(f"feasibility was not settled: {result.status}", "give the profile more time.")
        return True


def _seconds_to(until: float) -> float | None:
    """What is left of a limit for a solve; None without one."""
    return None if np.isinf(until) else max(0.01, until - perf_counter())


def _units(constraint: Constraint, rows: Rows) -> np.ndarray:
    """What each row is divided by: 1 for kinds that write their rows themselves."""
    if isinstance(constraint, PlainKind) and constraint.in_units:
        return row_units(rows.matrix)
    return np.ones(len(rows.names))


def _demand_span(matrix: sparse.csr_array, owner: list[str]) -> None:
    """Raise ModelError when no solver tells a row's small weights from nothing: beside large ones, or all of them."""
    if not matrix.nnz:
        return
    size, filled = np.abs(matrix.data), np.flatnonzero(np.diff(matrix.indptr) > 0)
    first = matrix.indptr[:-1][filled]
    most, least = np.maximum.reduceat(size, first), np.minimum.reduceat(size, first)
    wide = np.flatnonzero(most > LARGEST_SPAN * least)
    if wide.size:
        at = int(wide[0])
        raise ModelError(
            f"constraints.{owner[filled[at]]}: weights from {least[at]:.3g} to {most[at]:.3g} stand in one row",
            f"leave out what is negligible: the largest may be {LARGEST_SPAN:g} times the smallest.",
        )
    tiny = np.flatnonzero(most < LEAST_WEIGHT)
    if tiny.size:
        at = int(tiny[0])
        raise ModelError(
            f"constraints.{owner[filled[at]]}: no weight of a row is above {most[at]:.3g}; sums are compared to 1e-6",
            f"give weights and limit in a smaller unit, so that the largest weight is at least {LEAST_WEIGHT:.1g}.",
        )


def _session(model: Any) -> Session:
    """The set's model compiled; rows whose weights have all come out as zero make it empty where they cannot hold."""
    import pyomo.environ as pyo
    from pyomo.repn import generate_standard_repn

    try:
        return Session(model, "fast", later=True)
    except InfeasibleError:
        for row in model.component_data_objects(pyo.Constraint, active=True, descend_into=True):
            terms = generate_standard_repn(row.body)
            if terms.is_constant():
                limits = [None if side is None else pyo.value(side) - terms.constant for side in (row.lower, row.upper)]
                stand_in = impossible(model.act[0], *limits)
                row.deactivate() if stand_in is pyo.Constraint.Feasible else row.set_value(stand_in)
        return Session(model, "fast", later=True)


def _elastic(
    program: Program, rows: np.ndarray, units: np.ndarray, name: str, row_names: list[str], until: float
) -> Relaxation:
    """Least sum of slacks on the rows, each in its row's unit, by a program with two slack columns a row."""
    n_rows, count = program.matrix.shape[0], len(rows)
    down = sparse.csr_array((-np.ones(count), (rows, np.arange(count))), shape=(n_rows, count))
    up = sparse.csr_array((np.ones(count), (rows, np.arange(count))), shape=(n_rows, count))
    n = program.matrix.shape[1]
    elastic = Program(
        cost=np.concatenate([np.zeros(n), units, units]),
        matrix=sparse.csr_array(sparse.hstack([program.matrix, down, up])),
        row_lower=program.row_lower,
        row_upper=program.row_upper,
        lower=np.concatenate([program.lower, np.zeros(2 * count)]),
        upper=np.concatenate([program.upper, np.full(2 * count, np.inf)]),
        integer=np.concatenate([program.integer, np.zeros(2 * count, dtype=bool)]),
        maximise=False,
        offset=0.0,
    )
    result = Session.from_arrays(elastic, "fast").solve(seconds=_seconds_to(until))
    if not result.has_solution or result.x is None:
        return Relaxation(name, False, np.inf, {})
    moved = result.x[n : n + count] + result.x[n + count :]
    big = moved > ROW_TOLERANCE
    prefix = f"constraint[{name}]."
    amounts = {
        row_names[row].removeprefix(prefix): float(np.round(amount, 6) * unit)
        for row, amount, unit in zip(rows[big].tolist(), moved[big], units[big], strict=True)
    }
    return Relaxation(name, True, float((moved * units)[big].sum()), amounts)
