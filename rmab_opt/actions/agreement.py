"""Do a set's rows and its own checks mean the same actions? Asked before any bound is called proven.

A program is over the rows that ``build`` wrote; what is allowed is said by ``violations``. Where rows are too tight,
the best action is never found and the bound lies below it; where they are too loose, answers are refused. Uniform
vectors find neither, since they break everything, and growing by the check proposes nothing outside. What finds both
are directions that follow the set: all columns, the members of each row, each column, pairs; maximised over the rows by
the solver and judged by the check, and grown by the check and judged by the rows.
"""

from __future__ import annotations

import hashlib
import itertools
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from rmab_opt.errors import CertificateError
from rmab_opt.problem import Table
from rmab_opt.solver import Session

if TYPE_CHECKING:
    from rmab_opt.actions.action_set import ActionSet
    from rmab_opt.solver import Result

__all__ = ["Agreement", "agreement_of", "compare_rows"]

KEPT = 64
"""Sets whose comparison is kept, by what they are made of."""

WORK = 150_000
"""Work for one set, in units of about 10 microseconds: counted and not timed, so that what is compared, and with it
every count that is printed, is the same on a slow machine and under load."""

SOLVE, SOLVE_COLUMN = 400, 5
"""Work of a solve, and of each column in it."""

CHECK, CHECK_STRUCTURED = (1.0, 0.01), (20.0, 0.25)
"""Work of a check and of each column in it, where rows are all and where constraints have variables of their own."""

ALL_VECTORS = 14
"""Columns up to which every vector is compared."""

ALL_PAIRS = 40
"""Columns up to which every pair is a direction; above, only pairs that a constraint's fields name."""

HARD = "the rest: the program of the rows is too hard to be solved again and again"
"""What is left out where the solver's limit ends a solve: it then says nothing of the rows."""

SETTLED = ("optimal", "infeasible", "infeasible_or_unbounded", "empty")
"""How a solve ends that says something."""

LATE = "the rest, when the time was over"
"""What is left out when a limit ends the comparison."""

MOST_COLUMNS = 5000
"""Columns up to which a program of the rows is compared: above, writing it down and solving it takes most of a verb."""

GROWN, BORDERS, SWAPS = 64, 20, 300
"""Actions grown by the check, those of them whose neighbours are looked at, and neighbours by swaps of each."""


@dataclass(frozen=True)
class Agreement:
    """What a comparison of rows and checks came to.

    ``compared`` counts actions; ``left_out`` names parts for which the work was not enough; ``fault`` says what
    disagrees, None when nothing does; ``silent`` names constraints that cut actions off and never said anything.
    """

    compared: int
    left_out: tuple[str, ...] = ()
    fault: str | None = None
    silent: tuple[str, ...] = ()

    def demand(self) -> None:
        """Raise CertificateError when rows and checks disagree."""
        if self.fault is not None:
            raise CertificateError(
                self.fault, "let `build` and `violations` of this kind say the same; no bound over its rows is proven."
            )

    def __str__(self) -> str:
        said = f"{self.compared} actions, rows and checks agree" if self.compared else "nothing"
        said = said if self.fault is None else self.fault
        said += f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return said + "".join(f"; violations of {name} never said anything" for name in self.silent)


def compare_rows(actions: ActionSet, work: float = WORK, until: float = np.inf) -> Agreement:
    """Hold the rows of an action set against its checks, as far as the work goes.

    Parameters
    ----------
    actions
        With numbers for limits: a template's set of one round, see :meth:`ActionSet.at`.
    work
        Most work to spend, see ``WORK``; directions come first.
    until
        Time of ``perf_counter`` at which it ends all the same and says what it left out.
    """
    if actions.outer is not None:
        return _compare_outer(actions)
    if len(actions) > MOST_COLUMNS and not actions.structured:
        return _compare_arrays(actions)
    if len(actions) > MOST_COLUMNS:
        return Agreement(0, (f"everything: {len(actions)} columns are too many",))
    if perf_counter() > until:
        return Agreement(0, (LATE,))
    asked = _Comparison(actions, work, until)
    try:
        # Where every vector can be looked at by products alone, nothing else is left to find.
        parts = ("vectors",) if len(actions) <= ALL_VECTORS and not actions.structured else _PARTS
        for part in parts:
            getattr(asked, part)()
    except _Disagree as found:
        return Agreement(asked.compared, tuple(asked.late), str(found))
    except _Hard:
        return Agreement(asked.compared, (*asked.late, HARD))
    except _Late:
        return Agreement(asked.compared, (*asked.late, LATE))
    return Agreement(asked.compared, tuple(asked.late), None, asked.silent())


PACKED = 3
"""Actions of a set without a program that are held against its outer rows."""


def _compare_outer(actions: ActionSet) -> Agreement:
    """Allowed actions of a set that is too large for a program, held against the rows that bound it."""
    rng, left_out = np.random.default_rng([0, 0xA62EE]), ("a program of the rows, too large",)
    assert actions.outer is not None
    if not actions.monotone or actions.shape.lower_limits:
        return Agreement(0, left_out)
    for _ in range(PACKED):
        action, witness = actions.shape.packed(np.zeros(0, dtype=np.int64), rng.random(len(actions)))
        allowed, within = actions.allows(action, witness), bool(actions.outer.allow(action))
        if allowed != within:
            says = "allow" if allowed else "forbid"
            return Agreement(PACKED, left_out, f"the checks {says} {int(action.sum())} columns, the rows do not agree")
    return Agreement(PACKED, left_out)


NEIGHBOURS = 20
"""Actions with one column more that are looked at beside each grown one of a wide set."""


def _compare_arrays(actions: ActionSet) -> Agreement:
    """Actions on the border of a wide set's rows as arrays, judged by the rows and by the checks."""
    rng, left_out = np.random.default_rng([0, 0xA62EE]), ("a program of the rows, too large",)
    n, plain, compared = len(actions), actions.plain_rows, 0
    for _ in range(PACKED):
        gain = rng.random(n)
        grown = actions.shape.sorted(gain)[0] if actions.shape.nested else actions.shape.grown(rng)
        if grown is None:
            continue
        near = [grown]
        for column in rng.choice(np.flatnonzero(grown == 0), min(NEIGHBOURS, int((grown == 0).sum())), replace=False):
            more = grown.copy()
            more[column] = 1
            near.append(more)
        for action in near:
            compared += 1
            broken, within = [name for name in actions.constraints if actions.breaks(name, action)], plain.allow(action)
            if bool(broken) == bool(within):
                said = f"constraints.{broken[0]}: its check forbids" if broken else "the checks allow"
                return Agreement(compared, left_out, f"{said} {int(action.sum())} columns, the rows do not agree")
    return Agreement(compared, left_out)


_FOUND: dict[Any, Agreement] = {}


def agreement_of(actions: ActionSet, until: float = np.inf) -> Agreement:
    """:func:`compare_rows`, made once a process for sets of the same columns, kinds and fields."""
    key = _key(actions)
    found = None if key is None else _FOUND.get(key)
    if found is None:
        found = compare_rows(actions, until=until)
        if key is not None and LATE not in found.left_out:
            _FOUND[key] = found
            if len(_FOUND) > KEPT:
                del _FOUND[next(iter(_FOUND))]
    return found


def _key(actions: ActionSet) -> Any:
    """Columns and constraints as a digest, with the kinds' own classes; None where something does not pickle."""
    try:
        fields = [(name, dict(constraint)) for name, constraint in actions.constraints.items()]
        content = pickle.dumps((actions.columns, fields))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return hashlib.sha256(content).hexdigest(), tuple(type(each) for each in actions.constraints.values())


_PARTS = ("directions", "grown", "borders", "vectors")


class _Disagree(Exception):
    """An action that one of the two allows and the other forbids."""


class _Hard(Exception):
    """The solver's limit came before it was known what the rows allow: that is no disagreement."""


class _Late(Exception):
    """The time that was given is over."""


class _Comparison:
    _kept: np.ndarray | None

    def __init__(self, actions: ActionSet, work: float, until: float) -> None:
        self.actions, self.left, self.until = actions, work, until
        once, column = CHECK_STRUCTURED if actions.structured else CHECK
        self.check_work = once + column * len(actions)
        self.solve_work = SOLVE + SOLVE_COLUMN * len(actions)
        self.model = actions.model()
        self.session = Session(self.model, "fast")
        self.act = np.asarray(self.session.index(self.model.act), dtype=np.int64)
        self.rng = np.random.default_rng([0, 0xA62EE])
        self.compared = 0
        self.late: list[str] = []
        self.spoke = dict.fromkeys(actions.constraints, False)
        self.cut = dict.fromkeys(actions.constraints, False)

    # ---- the parts
    def directions(self) -> None:
        """Maximised over the rows, judged by the check; grown by the check, judged by the rows."""
        size, cost = len(self.actions), self._cost()
        for name, weights in self._ways():
            for direction in (weights + self.rng.uniform(0, 0.01, size), weights - cost / 1000):
                if self._is_late(f"directions from {name} on"):
                    return
                self._solve(direction)

    def grown(self) -> None:
        """Random actions grown by the check."""
        for _ in range(GROWN):
            if self._is_late("grown actions"):
                return
            self._judge(self._grow(self.rng.permutation(len(self.actions))))

    def borders(self) -> None:
        """Grown actions with their one-column additions and swaps, judged by both."""
        for _ in range(BORDERS):
            action = self._grow(self.rng.permutation(len(self.actions)))
            chosen, rest = np.flatnonzero(action), np.flatnonzero(action == 0)
            swaps = list(itertools.product(chosen.tolist(), rest.tolist()))
            picked = self.rng.permutation(len(swaps))[:SWAPS]
            for out, into in [(None, int(j)) for j in rest] + [swaps[k] for k in picked]:
                if self._is_late("neighbours of grown actions"):
                    return
                near = action.copy()
                near[into] = 1
                if out is not None:
                    near[out] = 0
                self._judge(near)

    def vectors(self) -> None:
        """Every vector of a small set."""
        if len(self.actions) > ALL_VECTORS:
            return
        # Short ones first: what is allowed is among them.
        every = np.array(list(itertools.product((0, 1), repeat=len(self.actions))), dtype=np.int64)
        for action in every[np.argsort(every.sum(axis=1), kind="stable")]:
            if self._is_late("vectors"):
                return
            self._judge(action)

    def silent(self) -> tuple[str, ...]:
        """Constraints whose rows cut off what was looked at and whose check never spoke."""
        return tuple(name for name in self.spoke if self.cut[name] and not self.spoke[name])

    # ---- judging
    def _solve(self, direction: np.ndarray) -> None:
        self.session.parameters["score"][:] = direction
        result = self._solved()
        found = None
        if result.x is not None:
            found = np.rint(result.x[self.act]).astype(np.int64)
            self._judge(found, by_rows=True)
        if result.status not in SETTLED:
            raise _Hard
        order = np.argsort(-direction, kind="stable")
        action = self._grow(order[direction[order] > 0])
        self._judge(action)
        if found is None:
            return
        # From the solver's own answer on, by the check: additions reach what growing from nothing cannot.
        for column in order[(direction[order] > 0) & (found[order] == 0)][:BORDERS]:
            more = found.copy()
            more[column] = 1
            self._judge(more)

    def _solved(self) -> Result:
        self._spend(self.solve_work)
        left = None if np.isinf(self.until) else self.until - perf_counter()
        found = self.session.solve(seconds=None if left is None else max(left, 0.01))
        # What a limit stopped says nothing of the rows.
        self._spend(0.0)
        return found

    def _spend(self, work: float) -> None:
        """Count work, and end when the time is over."""
        self.left -= work
        if perf_counter() > self.until:
            raise _Late

    def _judge(self, action: np.ndarray, *, by_rows: bool | None = None) -> None:
        """Raise when one allows the action and the other does not."""
        self.compared += 1
        broken = self._broken(action)
        rows = self._rows_allow(action) if by_rows is None else by_rows
        if rows == bool(broken):
            raise _Disagree(self._words(action, rows=rows))

    def _broken(self, action: np.ndarray) -> list[str]:
        self._spend(self.check_work)
        broken = [name for name in self.actions.constraints if self.actions.breaks(name, action)]
        for name in broken:
            self.spoke[name] = True
        return broken

    def _rows_allow(self, action: np.ndarray) -> bool:
        plain = self.actions.plain_rows
        for row in self._rows_broken(action):
            self.cut[plain.owner[row]] = True
        if not plain.allow(action):
            return False
        return not self.actions.structured or self._completes(action, [])

    def _rows_broken(self, action: np.ndarray) -> np.ndarray:
        plain = self.actions.plain_rows
        used = plain.matrix @ action.astype(np.float64)
        return np.flatnonzero((used < plain.floor) | (used > plain.ceiling))

    def _completes(self, action: np.ndarray, without: list[str]) -> bool:
        """Whether own variables of the constraints can be found for the action; rows of ``without`` do not count."""
        session, program = self.session, self.session.program
        none = np.empty(0, dtype=np.int64)
        loose = np.concatenate([none, *(session.rows(self.model.constraint[name]) for name in without)])
        session.parameters["score"][:] = 0.0
        session.set_bounds(self.act, action, action)
        session.set_rows(loose, np.full(len(loose), -np.inf), np.full(len(loose), np.inf))
        try:
            result = self._solved()
            if not result.has_solution and result.status not in SETTLED:
                raise _Hard
            return result.has_solution
        finally:
            session.set_bounds(self.act, np.zeros(len(action)), np.ones(len(action)))
            session.set_rows(loose, program.row_lower[loose], program.row_upper[loose])

    def _words(self, action: np.ndarray, *, rows: bool) -> str:
        """Who disagrees about the action, and how."""
        ids = " ".join(name for name, taken in zip(self.actions.columns.ids, action, strict=True) if taken) or "nobody"
        if rows:
            name = next(iter(self._broken(action)))
            return f"{self._kind(name)}: its rows allow an action that its check forbids: {ids}"
        plain = self.actions.plain_rows
        owners = [plain.owner[row] for row in self._rows_broken(action)]
        if not owners:
            structured = list(self.actions.structured)
            owners = [n for n in structured if self._completes(action, [n])] or structured or list(self.spoke)
        return f"{self._kind(owners[0])}: its rows forbid an action that its check allows: {ids}"

    def _kind(self, name: str) -> str:
        return f"constraints.{name} (kind {self.actions.constraints[name].kind!r})"

    # ---- directions
    def _grow(self, order: np.ndarray) -> np.ndarray:
        """Columns taken in this order as long as the check allows them, from nothing or from an allowed action."""
        action = np.zeros(len(self.actions), dtype=np.int64)
        if self._broken(action):
            if self._base is None:
                return action
            action = self._base.copy()
        for column in order[action[order] == 0]:
            if self.left <= 0:
                break
            action[column] = 1
            if self._broken(action):
                action[column] = 0
        return action

    @property
    def _base(self) -> np.ndarray | None:
        """An action that rows and check allow, where choosing nobody is not allowed; None when none is known."""
        if not hasattr(self, "_kept"):
            self.session.parameters["score"][:] = self.rng.uniform(-1, 0, len(self.actions))
            result = self._solved()
            self._kept = None if result.x is None else np.rint(result.x[self.act]).astype(np.int64)
        return self._kept

    def _ways(self) -> Iterator[tuple[str, np.ndarray]]:
        size = len(self.actions)
        yield "all columns", np.ones(size)
        members = sparse.csr_array(sparse.csr_array(self.session.program.matrix)[:, self.act])
        seen = set()
        for row in range(members.shape[0]):
            part = members.indices[members.indptr[row] : members.indptr[row + 1]]
            if len(part) > 0 and (key := part.tobytes()) not in seen:
                seen.add(key)
                weights = np.zeros(size)
                weights[part] = 1.0
                yield "rows", weights
        for column in range(size):
            yield "columns", 5.0 * np.eye(1, size, column)[0]
        named = list(dict.fromkeys(self._named_pairs()))
        every = itertools.combinations(range(size), 2) if size <= ALL_PAIRS else iter(())
        for pair in itertools.chain(named, (pair for pair in every if pair not in named)):
            weights = np.zeros(size)
            weights[list(pair)] = 5.0
            yield "pairs", weights

    def _named_pairs(self) -> Iterator[tuple[int, int]]:
        """Pairs of columns that stand together in a field of a constraint."""
        place = {name: c for c, name in enumerate(self.actions.columns.ids)}
        for constraint in self.actions.constraints.values():
            for value in (getattr(constraint, field) for field in type(constraint).model_fields):
                for group in _groups(value):
                    known = [place[name] for name in group if name in place]
                    if 2 <= len(known) <= 4:
                        yield from ((min(pair), max(pair)) for pair in itertools.combinations(known, 2))

    def _cost(self) -> np.ndarray:
        """Coefficients of the plain row with the most different ones, at most 1; ones where there is no row."""
        plain = self.actions.plain_rows
        if not plain.matrix.shape[0]:
            return np.ones(len(self.actions))
        parts = np.split(np.abs(plain.matrix.data), plain.matrix.indptr[1:-1])
        # The zeros of a row are one coefficient more.
        counts = [len(np.unique(part[part > 0])) + (np.count_nonzero(part) < len(self.actions)) for part in parts]
        row = np.abs(plain.matrix[[int(np.argmax(counts))]].toarray()[0])
        return np.asarray(row / max(float(row.max()), 1e-300) * 20.0)

    def _is_late(self, part: str) -> bool:
        if self.left > 0:
            return False
        if part not in self.late:
            self.late.append(part)
        return True


def _groups(value: Any) -> Iterator[list[Any]]:
    """Lists of plain values within a field: rows of tables, entries of lists."""
    if isinstance(value, Table):
        yield from (list(row) for row in zip(*value.columns.values(), strict=True))
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _groups(entry)
    elif isinstance(value, list | tuple):
        if value and all(isinstance(entry, str | int) for entry in value):
            yield list(value)
        else:
            for entry in value:
                yield from _groups(entry)
