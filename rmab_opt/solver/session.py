"""One compiled program, one solver object, many solves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from rmab_opt.errors import CertificateError, LimitError, ModelError
from rmab_opt.overdue import checkpoint, seconds_left
from rmab_opt.solver.compiling import Dependence, Parameters, compile_model
from rmab_opt.solver.encoded import Watch, watches
from rmab_opt.solver.highs import HighsSolver
from rmab_opt.solver.profile import Profile, load_profile
from rmab_opt.solver.program import FIX_NUMBER, Arrays, Floats, Ints, Names, Program, int32, refused, values_of
from rmab_opt.solver.progress import Progress
from rmab_opt.solver.result import Limits, Result, Solver, solve_empty
from rmab_opt.solver.through_pyomo import PyomoSolver


class Session:
    """One compiled program and one solver object, for many solves with changing numbers.

    Parameters
    ----------
    model
        Pyomo model or block with one active objective, linear once GDP and piecewise parts are transformed. It is
        read once: later changes to the model are not seen, change the session instead. Mutable Params stay open as
        ``parameters``; fixed variables become columns with equal bounds, unused ones columns without coefficients.
    profile
        Name, path or Profile; see :func:`load_profile`.

    later
        Whether the solver is made only when it is first asked: who reads arrays alone needs none.

    Raises
    ------
    ModelError
        When the model has not exactly one active objective, is not linear, holds an untransformed component, or a
        number is NaN or infinite; names the component.
    InfeasibleError
        When a row without variables cannot hold.
    SolverError
        When the solver is not installed or refuses an option of the profile.

    Notes
    -----
    HiGHS keeps one thread pool per process. A session that asks for another number of threads than the last solve
    starts a fresh pool, and raises SolverError while another session is solving. ``solve`` releases the GIL: sessions
    in separate Python threads run side by side and give the same results. A session itself is for one thread at a
    time and does not pickle; ship ``session.program`` and use :meth:`from_arrays`.

    Examples
    --------
    >>> import pyomo.environ as pyo
    >>> model = pyo.ConcreteModel()
    >>> model.price = pyo.Param([0, 1], initialize={0: 3.0, 1: 2.0}, mutable=True)
    >>> model.act = pyo.Var([0, 1], within=pyo.Binary)
    >>> model.budget = pyo.Constraint(expr=model.act[0] + model.act[1] <= 1)
    >>> model.gain = pyo.Objective(expr=sum(model.price[i] * model.act[i] for i in [0, 1]), sense=pyo.maximize)
    >>> session = Session(model)
    >>> session.solve().objective
    3.0
    >>> session.parameters["price"][1] = 5.0
    >>> session.solve().x[session.index(model.act)].round().tolist()
    [0.0, 1.0]
    """

    _model: Any = None
    _watches: Sequence[Watch] = ()

    def __init__(self, model: Any, profile: str | Path | Profile = "default", *, later: bool = False) -> None:
        self._compile(model, profile)
        stale = [watch.encoded.again for watch in self._watches if watch.widened(self._arrays, self._names)]
        for again in stale:
            if again is not None:
                again()
        if stale:
            self._compile(model, profile)
        for watch in self._watches:
            watch.demand(self._arrays, self._names)
        if not later:
            _ = self._solver

    def _compile(self, model: Any, profile: str | Path | Profile) -> None:
        compiled = compile_model(model)
        self._set_up(compiled.program, compiled.names, profile, compiled.parameters, compiled.dependence)
        self._model = model
        self._watches = watches(model, self.index, self._rows, self._columns)
        self._refresh()

    @classmethod
    def from_arrays(cls, program: Program, profile: str | Path | Profile = "default") -> Session:
        """Session of a program given as arrays; without Pyomo components or Params."""
        session = cls.__new__(cls)
        session._set_up(program, Names(), profile, Parameters([]), None)
        _ = session._solver
        return session

    def _set_up(
        self,
        program: Program,
        names: Names,
        profile: str | Path | Profile,
        parameters: Parameters,
        dependence: Dependence | None,
    ) -> None:
        self.profile = load_profile(profile)
        self.parameters = parameters
        """Values of the model's mutable Params by name; see :class:`Parameters`."""
        self.last_result: Result | None = None
        """Of the latest solve, also when it was interrupted by Ctrl-C or raised at a limit."""
        self._arrays = Arrays.of(program)
        self._names = names
        self._columns = {id(variable): j for j, variable in enumerate(names.variables)}
        self._rows = {id(constraint): i for i, constraint in enumerate(names.constraints)}
        self._dependence = dependence
        self._dependent: Floats | None = None
        self._seen: Floats | None = None
        self._start: tuple[Ints, Floats] | None = None

    @cached_property
    def _solver(self) -> Solver:
        return (HighsSolver if self.profile.solver == "highs" else PyomoSolver)(self.profile)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a Session does not pickle; ship session.program and use Session.from_arrays there.")

    # ---- reading
    @property
    def program(self) -> Program:
        """Current arrays, a copy, with the current parameter values."""
        self._refresh()
        return self._arrays.program()

    @property
    def variables(self) -> list[Any]:
        """Pyomo variables in column order; empty for a session of arrays."""
        return list(self._names.variables)

    @property
    def row_names(self) -> list[str]:
        """Pyomo names of the rows in row order; empty for a session of arrays."""
        return [constraint.name for constraint in self._names.constraints]

    def index(self, component: Any) -> Any:
        """Column of a Pyomo variable: an int for one, an int array in index order for an indexed Var or a list.

        Raises
        ------
        ModelError
            When a variable is not part of the program; names it.
        """
        if not hasattr(component, "is_indexed"):
            return np.array([self._column(entry) for entry in component], dtype=np.int64)
        if not component.is_indexed():
            return self._column(component)
        return np.array([self._column(entry) for entry in component.values()], dtype=np.int64)

    def _column(self, variable: Any) -> int:
        if id(variable) not in self._columns:
            raise ModelError(f"{variable} is not a variable of this program.", "take it from the compiled model.")
        return self._columns[id(variable)]

    def rows(self, component: Any) -> Ints:
        """Rows that came from a Pyomo constraint, an indexed constraint or everything active in a block; sorted.

        Constraints that fold away (no limit, or no variables) have no row.

        Raises
        ------
        ModelError
            When the component is not part of the session's model.
        """
        import pyomo.environ as pyo

        if self._model is None or component.model() is not self._model.model():
            raise ModelError(f"{component} is not part of this program.", "take it from the compiled model.")
        if component.ctype is pyo.Constraint:
            entries = component.values() if component.is_indexed() else [component]
        else:
            blocks = component.values() if component.is_indexed() else [component]
            entries = (c for b in blocks for c in b.component_data_objects(pyo.Constraint, descend_into=True))
        found = {self._rows[id(entry)] for entry in entries if id(entry) in self._rows}
        return np.array(sorted(found), dtype=np.int64)

    # ---- changing
    def load(self, program: Program) -> None:
        """Put another program in place of this one's; the solver object and its options stay. Sessions of arrays only.

        Raises
        ------
        ModelError
            When the session was compiled from a Pyomo model, whose names and Params belong to it.
        """
        if self._model is not None:
            raise ModelError("a session of a Pyomo model cannot take another program.", "make one by from_arrays.")
        self._arrays, self._start = Arrays.of(program), None
        self._solver.load(self._outward()[0])

    def set_cost(self, idx: ArrayLike, values: ArrayLike) -> None:
        """Set objective coefficients of columns ``idx``. A Param writes over it only when its value changes."""
        self._write(idx, cost=values)

    def set_rows(self, idx: ArrayLike, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> None:
        """Set limits of rows ``idx``; None leaves a side as it is."""
        self._write(idx, row_lower=lower, row_upper=upper)

    def set_bounds(self, idx: ArrayLike, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> None:
        """Set bounds of columns ``idx``; None leaves a side as it is. Equal bounds fix a column."""
        self._write(idx, lower=lower, upper=upper)

    def set_integer(self, idx: ArrayLike, mask: ArrayLike = True) -> None:
        """Make columns ``idx`` integer where ``mask``, continuous elsewhere; False everywhere gives the relaxation."""
        self._arrays.integer[self._positions(idx, self._arrays.integer.size, "column")] = np.asarray(mask, dtype=bool)

    def set_coefficients(self, rows: ArrayLike, columns: ArrayLike, values: ArrayLike) -> None:
        """Set matrix coefficients that the program already has (an explicit zero counts).

        Raises
        ------
        ModelError
            When a (row, column) has no coefficient, or a value is not finite.
        """
        matrix = self._arrays.matrix
        row = self._positions(rows, matrix.shape[0], "row")
        column = self._positions(columns, matrix.shape[1], "column")
        n = matrix.shape[1]
        keys = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) * n + matrix.indices
        wanted = row * n + column
        places = np.searchsorted(keys, wanted)
        absent = np.flatnonzero(np.append(keys, -1)[places] != wanted)
        if absent.size:
            i, j = divmod(int(wanted[absent[0]]), n)
            raise ModelError(
                f"{self._names.column(j)} has no coefficient in {self._names.row(i)}.",
                "give it one, zero will do, when the program is built.",
            )
        self._write(places, data=values)

    def add_rows(self, matrix: Any, lower: ArrayLike, upper: ArrayLike) -> Ints:
        """Append rows ``lower <= matrix @ x <= upper``; ``matrix`` is (k, n), sparse or dense. Returns their numbers.

        Raises
        ------
        ModelError
            When shapes disagree or a number is NaN or infinite.
        """
        self._refresh()
        arrays = self._arrays
        n = arrays.cost.size
        added = sparse.csr_array(np.atleast_2d(matrix) if not sparse.issparse(matrix) else matrix, dtype=float)
        k = added.shape[0]
        limits = [np.broadcast_to(np.asarray(side, dtype=float), (k,)) for side in (lower, upper)]
        # Program checks shapes and numbers.
        zeros = np.zeros(added.shape[1])
        new = Program(zeros, added, limits[0], limits[1], zeros, zeros, zeros > 0)
        if added.shape[1] != n:
            raise ModelError(f"add_rows: the matrix has {added.shape[1]} columns.", f"give it {n}.")
        self._solver.push(self._outward()[0])
        first = arrays.row_lower.size
        arrays.matrix = int32(sparse.vstack([arrays.matrix, new.matrix], format="csr"))
        arrays.row_lower = np.concatenate([arrays.row_lower, new.row_lower])
        arrays.row_upper = np.concatenate([arrays.row_upper, new.row_upper])
        units = row_units(new.matrix)
        if units is not None:
            part = sparse.csr_array(sparse.diags_array(1.0 / units) @ new.matrix)
            new = replace(new, matrix=part, row_lower=new.row_lower / units, row_upper=new.row_upper / units)
        self._solver.add_rows(self._outward()[0], new)
        return np.arange(first, first + k)

    def delete_rows(self, idx: ArrayLike) -> None:
        """Delete rows; those behind move up. In a session of a Pyomo model only rows that add_rows gave may go.

        Raises
        ------
        ModelError
            When a row came from the Pyomo model: open its limits with ``set_rows(idx, -inf, inf)`` instead.
        """
        self._refresh()
        arrays = self._arrays
        gone = np.unique(self._positions(idx, arrays.row_lower.size, "row"))
        if gone.size and gone[0] < len(self._names.constraints):
            raise ModelError(
                f"{self._names.row(int(gone[0]))} belongs to the model.", "open it with set_rows(idx, -inf, inf)."
            )
        self._solver.push(self._outward()[0])
        kept = np.setdiff1d(np.arange(arrays.row_lower.size), gone)
        arrays.matrix = int32(arrays.matrix[kept])
        arrays.row_lower, arrays.row_upper = arrays.row_lower[kept], arrays.row_upper[kept]
        self._solver.delete_rows(self._outward()[0], gone)

    def start(self, idx: ArrayLike, values: ArrayLike) -> None:
        """Offer a MIP start for the next solve: values of some columns, the action's binaries are enough.

        It is used once, and passed after all changes, since HiGHS forgets it with every change. HiGHS completes it,
        and drops one that cannot be completed without a message. LPs start from their last basis instead.
        """
        columns = self._positions(idx, self._arrays.cost.size, "column")
        numbers = np.broadcast_to(np.asarray(values, dtype=float), columns.shape).copy()
        if not np.isfinite(numbers).all():
            raise ModelError("the start holds a NaN or an infinite value.", "leave unknown columns out of idx.")
        self._start = columns, numbers

    def _positions(self, idx: ArrayLike, size: int, what: str) -> Ints:
        """Row or column numbers, at least one-dimensional; a mask, a float or a number out of range is refused."""
        positions = np.atleast_1d(np.asarray(idx))
        if positions.size and not np.issubdtype(positions.dtype, np.integer):
            raise ModelError(f"{what} numbers are of type {positions.dtype}.", "give integers.")
        if positions.size and not (positions.min() >= 0 and positions.max() < size):
            raise ModelError(
                f"{what} {positions.min()} to {positions.max()} asked for, there are {size}.",
                f"give numbers from 0 to {size - 1}.",
            )
        return positions.astype(np.int64)

    def _write(self, idx: ArrayLike, **changes: ArrayLike | None) -> None:
        """Write new numbers by kind; all are looked at before the first is written."""
        # What Params have to say comes first, or the next refresh would put it over a later explicit change.
        self._refresh()
        accepted = {}
        for kind, values in changes.items():
            if values is None:
                continue
            size = values_of(self._arrays, kind).size
            positions = self._positions(idx, size, "row" if kind.startswith("row") else "column")
            accepted[kind] = numbers = np.broadcast_to(np.asarray(values, dtype=float), positions.shape)
            bad = np.flatnonzero(refused(kind, numbers))
            if bad.size:
                place = self._names.place(kind, int(positions[bad[0]]), self._arrays.matrix)
                raise ModelError(f"{place} is {numbers[bad[0]]}.", FIX_NUMBER)
        for kind, numbers in accepted.items():
            values_of(self._arrays, kind)[positions] = numbers
            self._matrix_changed(kind)

    def _matrix_changed(self, kind: str) -> None:
        # A solver that is not there yet takes the whole program at its first solve.
        if kind == "data" and "_solver" in self.__dict__:
            self._solver.matrix_changed = True

    def _refresh(self) -> None:
        """Carry changed parameter values into the arrays."""
        depends, current = self._dependence, self.parameters.vector
        if depends is None or (self._seen is not None and np.array_equal(self._seen, current, equal_nan=True)):
            return
        numbers = depends.values(self.parameters)
        for kind, positions, part in depends.pieces:
            bad = np.flatnonzero(refused(kind, numbers[part]))
            if bad.size:
                target = part.start + int(bad[0])
                place = self._names.place(kind, int(positions[bad[0]]), self._arrays.matrix)
                raise ModelError(
                    f"{place} is {numbers[target]}, by {depends.names_of(target, self.parameters)}.", FIX_NUMBER
                )
        for kind, positions, part in depends.pieces:
            changed = np.ones(len(positions), dtype=bool)
            if self._dependent is not None:
                changed = numbers[part] != self._dependent[part]
            if changed.any():
                values_of(self._arrays, kind)[positions[changed]] = numbers[part][changed]
                self._matrix_changed(kind)
        self._dependent, self._seen = numbers, current.copy()

    # ---- solving
    def _outward(self) -> tuple[Arrays, float]:
        """The arrays as solvers see them, and the unit of their objective: no tolerance of theirs knows ours.

        Costs are divided by a power of two near the largest, which is exact; the constant stays here. So are rows
        whose largest coefficient is tiny or huge, with their limits.

        Raises
        ------
        ModelError
            When a cost is above 1e150.
        """
        arrays = self._arrays
        largest = float(np.abs(arrays.cost).max(initial=0.0))
        if largest > LARGEST_COST:
            place = self._names.place("cost", int(np.abs(arrays.cost).argmax()), arrays.matrix)
            raise ModelError(f"{place} is {largest:g} in size.", f"give numbers of at most {LARGEST_COST:g}.")
        unit = power_of_two(largest)
        scaled = replace(arrays, cost=arrays.cost / unit, offset=np.zeros(1))
        rows = row_units(arrays.matrix)
        if rows is not None:
            matrix = arrays.matrix.copy()
            matrix.data /= np.repeat(rows, np.diff(matrix.indptr))
            lower, upper = arrays.row_lower / rows, arrays.row_upper / rows
            scaled = replace(scaled, matrix=matrix, row_lower=lower, row_upper=upper)
        return scaled, unit

    def solve(
        self,
        *,
        seconds: float | None = None,
        nodes: int | None = None,
        relative_gap: float | None = None,
        objective_cutoff: float | None = None,
        interrupt: Callable[[], bool] | None = None,
    ) -> Result:
        """Solve the program as it stands.

        Parameters
        ----------
        seconds, nodes, relative_gap
            In place of the profile's for this solve.
        objective_cutoff
            Only solutions at least this good are wanted; when there are none the status is ``no_solution_limit`` and
            the cut-off itself the proven bound. In the objective's unit.
        interrupt
            Asked every 0.05 s from the calling thread; the solve stops soon after it says True.

        Returns
        -------
        Result
            Its status, bound and gap agree: what a solver calls optimal without a bound to show for it is reported
            as ``feasible_limit``.

        Raises
        ------
        ModelError
            When a Param's value makes a number NaN or infinite; names the Param and the place. When an encoded
            network's inputs may leave the bounds it was encoded for, or its output is used against its ``sense``.
        CertificateError
            When an encoded network says another value at the point found, also after a tighter solve.
        SolverError
            When the profile says ``at_limit = "raise"`` and a limit was reached (``last_result`` has what was found),
            or the solver refuses an option or the arrays.
        KeyboardInterrupt
            On Ctrl-C, once the solver has stopped; ``last_result`` has the best found so far.
        OverdueError
            When the work that it belongs to was to be given up (:mod:`rmab_opt.overdue`).
        """
        self._refresh()
        profile = self.profile
        _demand_limit("seconds", seconds)
        _demand_limit("nodes", nodes)
        _demand_limit("relative_gap", relative_gap)
        if objective_cutoff is not None and not math.isfinite(objective_cutoff):
            raise ModelError(f"objective_cutoff is {objective_cutoff}.", "give a finite number or None.")
        limit = seconds if seconds is not None else profile.seconds
        checkpoint()
        own, left = math.inf if limit is None else float(limit), seconds_left()
        limits = Limits(
            seconds=min(own, left),
            nodes=profile.nodes if nodes is None else int(nodes),
            relative_gap=profile.relative_gap if relative_gap is None else float(relative_gap),
            absolute_gap=profile.absolute_gap,
            cutoff=None if objective_cutoff is None else float(objective_cutoff),
        )
        start, self._start = self._start, None
        if not self._arrays.cost.size:
            self.last_result = solve_empty(self._arrays, limits)
            return self.last_result
        for watch in self._watches:
            watch.demand(self._arrays, self._names)
        arrays, unit = self._outward()
        offset = self._arrays.offset.item()
        if limits.cutoff is not None:
            limits.cutoff = (limits.cutoff - offset) / unit
        if isinstance(interrupt, Progress):
            interrupt = interrupt.in_unit(unit, offset)
        found, stopped = self._solver.solve(arrays, limits, start, interrupt)
        self.last_result = _in_own_unit(found, self._arrays, unit, objective_cutoff)
        if stopped is None and self._fault() is not None:
            self.last_result = self._tighter(limits, objective_cutoff)
        if stopped is not None:
            raise stopped
        result = self.last_result
        at_limit = result.status in ("feasible_limit", "no_solution_limit")
        if at_limit and left < own:
            # Whoever did not ask for a part of the answer cannot take it for the whole.
            checkpoint()
        # Proof that nothing reaches the cut-off is an answer, not a limit.
        proven = not result.has_solution and result.bound == objective_cutoff
        if profile.at_limit == "raise" and at_limit and not proven:
            said = f"objective {result.objective:g}, bound {result.bound:g}" if result.has_solution else "no solution"
            raise LimitError(
                f"a limit stopped the solve after {result.seconds:.1f} s and {result.nodes} nodes with {said} "
                f"(profile {profile.name!r}).",
                "raise the limit, or set at_limit = 'best_with_gap' to take the best found with its gap.",
            )
        return result

    def _fault(self) -> str | None:
        """How the last result differs from an encoded network's own value."""
        x = None if self.last_result is None else self.last_result.x
        if x is None:
            return None
        found = (watch.fault(self._arrays, x) for watch in self._watches)
        return next((fault for fault in found if fault is not None), None)

    def _tighter(self, limits: Limits, cutoff: float | None) -> Result:
        """Once more with the tightest tolerances HiGHS has; CertificateError when the networks still say otherwise."""
        profile = self.profile
        if profile.solver == "highs":
            options: dict[str, Any] = {
                "mip_feasibility_tolerance": 1e-9,
                "primal_feasibility_tolerance": 1e-9,
                "presolve": "off",
            }
            profile = replace(profile, options={**profile.options, **options})
        again = Session.from_arrays(self._arrays.program(), profile)
        seconds = None if math.isinf(limits.seconds) else limits.seconds
        self.last_result = again.solve(seconds=seconds, nodes=limits.nodes, objective_cutoff=cutoff)
        fault = self._fault()
        if fault is not None:
            raise CertificateError(
                f"the solver's point is not the network's: {fault}",
                "scale the network's weights or tighten its inputs' bounds; report this with the model.",
            )
        return self.last_result


def check_encoded(model: Any, *, solved: bool = False) -> None:
    """Hold a Pyomo model that another solver solves to what its encoded networks promise; a session does so by itself.

    Before the solve: every network is used in the direction that its rows were made for, and its inputs stay within the
    set that its bounds were computed for. After it: the values that the solver left on the model's variables are the
    network's, and the framework's that it was read from.

    Parameters
    ----------
    model
        Pyomo model, on whose blocks :func:`rmab_opt.encoder.encode` wrote. Nothing on it is changed.
    solved
        Whether a solver has loaded its values, which are then checked as well.

    Raises
    ------
    ModelError
        At another use or a wider set, with the block's name; when ``solved`` and a variable has no value.
    CertificateError
        When a network says another value at the point that was loaded.
    """
    session = Session.__new__(Session)
    session._compile(model, "default")
    for watch in session._watches:
        watch.demand(session._arrays, session._names)
    if not solved:
        return
    x = np.array([np.nan if variable.value is None else float(variable.value) for variable in session.variables])
    for watch in session._watches:
        needed = np.concatenate([watch.inputs, watch.columns, watch.signs])
        missing = needed[np.isnan(x[needed])]
        if missing.size:
            raise ModelError(
                f"{session._names.column(int(missing[0]))} has no value, which block {watch.encoded.name!r} needs",
                "solve the model first, and load its solution.",
            )
        fault = watch.fault(session._arrays, x)
        if fault is not None:
            raise CertificateError(
                f"the point that was loaded is not the network's: {fault}",
                "tighten the solver's tolerances, scale the network's weights or tighten its inputs' bounds.",
            )


LARGEST_COST = 1e150
"""Larger numbers overflow in sums and squares."""


def power_of_two(size: float) -> float:
    """The power of two nearest to a size, by its logarithm; 1 for nothing."""
    return float(2.0 ** round(math.log2(size))) if size > 0 else 1.0


SMALL_ROW, LARGE_ROW = 2.0**-10, 2.0**20
"""Rows whose largest coefficient lies between are passed on as they are: tolerances of 1e-6 fit them."""


def row_units(matrix: sparse.csr_array) -> Floats | None:
    """Power of two that each row is divided by for a solver, (m,); None where every row stays as it is."""
    filled = np.flatnonzero(np.diff(matrix.indptr) > 0)
    if not filled.size:
        return None
    most = np.maximum.reduceat(np.abs(matrix.data), matrix.indptr[:-1][filled])
    out = (most > 0) & ((most < SMALL_ROW) | (most > LARGE_ROW))
    if not out.any():
        return None
    units = np.ones(matrix.shape[0])
    # At least 2^-1000: smaller ones have no reciprocal.
    units[filled[out]] = np.ldexp(1.0, np.maximum(np.frexp(most[out])[1], -1000))
    return units


def _in_own_unit(found: Result, arrays: Arrays, unit: float, cutoff: float | None) -> Result:
    """A result of the scaled program in the program's own unit."""
    offset = arrays.offset.item()
    sense = 1.0 if arrays.maximise else -1.0
    objective = found.objective * unit + offset
    bound = found.bound * unit + offset
    if found.x is not None and found.bound == found.objective:
        bound = objective
    elif found.x is None and cutoff is not None and math.isfinite(found.bound):
        bound = cutoff if abs(bound - cutoff) <= 1e-9 * (abs(cutoff) + abs(offset) + unit) else bound
    rows = None if found.row_duals is None else row_units(arrays.matrix)
    row_duals = None if found.row_duals is None else found.row_duals * unit / (1.0 if rows is None else rows)
    reduced = None if found.reduced_costs is None else found.reduced_costs * unit
    if found.x is not None and math.isfinite(bound):
        bound = sense * max(sense * bound, sense * objective)
    return replace(found, objective=objective, bound=bound, row_duals=row_duals, reduced_costs=reduced)


def _demand_limit(name: str, value: float | None) -> None:
    if value is not None and not value >= 0:
        raise ModelError(f"solve: {name} is {value!r}.", f"set {name} to a number of at least 0, or None.")
