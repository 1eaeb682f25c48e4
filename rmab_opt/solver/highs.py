"""HiGHS, embedded: one object that takes only what changed."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.errors import SolverError
from rmab_opt.solver.profile import Profile, nearest
from rmab_opt.solver.program import Arrays, Floats, Ints, Program, int32
from rmab_opt.solver.progress import Progress
from rmab_opt.solver.result import Limits, Result, Solver, Status, conclude

PATCHED_SHARE = 1 / 32
"""Up to this share of the matrix entries, changes go one by one (1.1 microseconds each); more pass the whole program
(40 nanoseconds an entry, measured with 20,000). The basis survives both."""

POLL_SECONDS = 0.05
"""How often a waiting solve looks at its ``interrupt`` function."""


class _ThreadPool:
    """HiGHS's one thread pool per process: an object that asks for another size is refused, status Not Set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: int | None = None
        self._running = 0

    @contextlib.contextmanager
    def hold(self, threads: int) -> Iterator[None]:
        """Count one solve in, with a fresh pool when its size differs from the last one's."""
        with self._lock:
            if self._threads not in (None, threads):
                if self._running:
                    raise SolverError(
                        f"a session is solving with {self._threads} threads, this one asks for {threads}.",
                        "give both profiles the same number of threads; HiGHS has one pool per process.",
                    )
                self._reset()
            self._threads = threads
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def renew(self) -> bool:
        """Fresh pool after other code in the process took one of another size; False while others solve."""
        with self._lock:
            if self._running > 1:
                return False
            self._reset()
            return True

    @staticmethod
    def _reset() -> None:
        import highspy

        highspy.Highs.resetGlobalScheduler(True)


_POOL = _ThreadPool()

_HIGHS_STATUS: dict[str, Status] = {
    "kOptimal": "optimal",
    "kInfeasible": "infeasible",
    "kUnbounded": "unbounded",
    "kUnboundedOrInfeasible": "infeasible_or_unbounded",
    "kModelEmpty": "empty",
    "kTimeLimit": "feasible_limit",
    "kIterationLimit": "feasible_limit",
    "kSolutionLimit": "feasible_limit",
    "kMemoryLimit": "feasible_limit",
    "kInterrupt": "interrupted",
    "kHighsInterrupt": "interrupted",
}


def _quiet_highs() -> Any:
    """A Highs object that has not printed its banner: the first one of a process does while it is built."""
    import highspy

    class Quiet(highspy.Highs):
        def enableCallbacks(self) -> None:
            self.setOptionValue("output_flag", False)
            super().enableCallbacks()

    return Quiet()


TESTED = ("1.16",)
"""Series of HiGHS that the whole suite has run with."""


@cache
def _warn_untested(version: str) -> None:
    """Say once that a HiGHS is not one of those tested; what it answers is re-checked all the same."""
    if version.rpartition(".")[0] not in TESTED:
        warnings.warn(
            f"HiGHS {version} is not among the tested versions ({', '.join(f'{one}.x' for one in TESTED)}): "
            "answers are re-checked, but speed and options may differ; "
            f"to fix, pip install 'highspy=={TESTED[-1]}.*'",
            stacklevel=3,
        )


PRESOLVED_TOLERANCE = 1e-6
"""Below this mip_feasibility_tolerance HiGHS 1.16's presolve cuts off optima of network programs: 1 of 1,400 big-M
programs at 1e-9, 4 of 291 programs of all forms at 1e-7; without presolve none of them, for 1.4 times the time."""


WIDE = 5000
"""Columns above which HiGHS 1.16's search for parallel columns and its presolve of all programs but the root's cost
most of the time: both compare columns pair by pair. A budget over 10,000 columns took 5.5 s with them, 0.3 without."""

WIDE_OPTIONS: dict[str, tuple[float | int | str, float | int | str]] = {
    # Bit 13: parallel rows and columns.
    "presolve_rule_off": (0, 1 << 13),
    "mip_root_presolve_only": (False, True),
}
"""By option: its value for narrow programs and for wide ones."""


class HighsSolver(Solver):
    """The embedded solver: one Highs object and a copy of the arrays it was last given."""

    def __init__(self, profile: Profile) -> None:
        try:
            import highspy
        except ImportError as error:
            raise SolverError(f"HiGHS cannot be imported: {error}.", "run pip install highspy.") from error
        self.profile = profile
        self.matrix_changed = False
        self._api: Any = highspy
        self._stop = False
        self._watch: Progress | None = None
        self._log: list[str] = []
        self._begin()
        _warn_untested(self._highs.version())
        if self._highs.version() == "1.14.0":
            raise SolverError(
                "HiGHS 1.14.0 calls wrong points of mixed-integer programs optimal (its presolve).",
                "install another: pip install 'highspy!=1.14.0'.",
            )

    def _begin(self) -> None:
        """A Highs object that knows nothing yet, with the profile's options."""
        profile = self.profile
        self._highs: Any = _quiet_highs()
        self._sent: Arrays | None = None
        self._subscribed = False
        self._ran = False
        self._limits: dict[str, float | int | str] = {}
        own = {"threads": profile.threads, "random_seed": profile.seed}
        for name, value in (profile.options | own).items():  # type: ignore[operator]
            self._set_option(name, value)
        if profile.log:
            self._highs.setOptionValue("log_to_console", False)
            self._highs.setOptionValue("output_flag", True)
            self._highs.cbLogging.subscribe(lambda event: self._log.append(event.message))

    def _set_option(self, name: str, value: Any) -> None:
        """Set an option; HiGHS answers a wrong name, type or value with a code that is easy to overlook."""
        ok = self._api.HighsStatus.kOk
        if self._highs.getOptionType(name)[0] != ok:
            known = [entry for entry in dir(self._api.HighsOptions) if not entry.startswith("_")]
            raise SolverError(
                f"profile {self.profile.name!r}: HiGHS has no option {name!r}{nearest(name, known)}.",
                "correct or remove it.",
            )
        if self._highs.setOptionValue(name, value) != ok:
            raise SolverError(
                f"profile {self.profile.name!r}: HiGHS does not accept {name} = {value!r}.",
                "give a value of the right type and range; see the HiGHS list of options.",
            )

    def _must(self, status: Any, what: str) -> None:
        if status == self._api.HighsStatus.kError:
            raise SolverError(f"HiGHS refused to {what}.", "look for extreme numbers (HiGHS takes up to 1e15).")

    # ---- passing arrays
    def load(self, arrays: Arrays) -> None:
        self._sent = None

    def push(self, arrays: Arrays) -> None:
        """Make HiGHS's copy equal to the arrays, passing only what differs."""
        if self._sent is None:
            self._pass(arrays)
            return
        highs, sent = self._highs, self._sent
        if self.matrix_changed:
            places = np.flatnonzero(arrays.matrix.data != sent.matrix.data)
            if places.size > PATCHED_SHARE * arrays.matrix.nnz:
                basis = highs.getBasis()
                self._pass(arrays)
                if basis.valid:
                    self._must(highs.setBasis(basis), "take its own basis back")
                return
            rows = np.searchsorted(arrays.matrix.indptr, places, side="right") - 1
            for row, place in zip(rows.tolist(), places.tolist(), strict=True):
                column, number = int(arrays.matrix.indices[place]), float(arrays.matrix.data[place])
                self._must(highs.changeCoeff(row, column, number), "change a coefficient")
            sent.matrix.data[places] = arrays.matrix.data[places]
            self.matrix_changed = False
        if arrays.offset != sent.offset:
            self._must(highs.changeObjectiveOffset(arrays.offset.item()), "change the offset")
            sent.offset[:] = arrays.offset
        for call, names in (
            (highs.changeColsCost, ("cost",)),
            (highs.changeColsBounds, ("lower", "upper")),
            (highs.changeRowsBounds, ("row_lower", "row_upper")),
            (highs.changeColsIntegrality, ("integer",)),
        ):
            now = [getattr(arrays, name) for name in names]
            before = [getattr(sent, name) for name in names]
            differs = now[0] != before[0]
            if len(now) == 2:
                differs |= now[1] != before[1]
            idx = np.flatnonzero(differs)
            if idx.size:
                values = [part[idx].astype(np.uint8) if part.dtype == bool else part[idx] for part in now]
                self._must(call(idx.size, idx.astype(np.int32), *values), f"change {' and '.join(names)}")
                for old, new in zip(before, now, strict=True):
                    old[idx] = new[idx]

    def _pass(self, arrays: Arrays) -> None:
        matrix = arrays.matrix
        status = self._highs.passModel(
            matrix.shape[1],
            matrix.shape[0],
            matrix.nnz,
            int(self._api.MatrixFormat.kRowwise),
            int(self._api.ObjSense.kMaximize if arrays.maximise else self._api.ObjSense.kMinimize),
            arrays.offset.item(),
            arrays.cost,
            arrays.lower,
            arrays.upper,
            arrays.row_lower,
            arrays.row_upper,
            matrix.indptr,
            matrix.indices,
            matrix.data,
            # Of length n for LPs too: an empty array is an error.
            arrays.integer.astype(np.int32),
        )
        self._must(status, "take the program")
        self._sent, self.matrix_changed = arrays.copy(), False

    def add_rows(self, arrays: Arrays, new: Program) -> None:
        self._append(new.matrix, new.row_lower, new.row_upper)
        self._sent = arrays.copy()

    def _append(self, matrix: sparse.csr_array, lower: Floats, upper: Floats) -> None:
        starts, data = matrix.indptr[:-1].astype(np.int32), matrix.data
        status = self._highs.addRows(len(lower), lower, upper, len(data), starts, matrix.indices, data)
        self._must(status, "add rows")

    def delete_rows(self, arrays: Arrays, gone: Ints) -> None:
        self._must(self._highs.deleteRows(gone.size, gone.astype(np.int32)), "delete rows")
        self._sent = arrays.copy()

    # ---- solving
    def solve(
        self,
        arrays: Arrays,
        limits: Limits,
        start: tuple[Ints, Floats] | None,
        interrupt: Callable[[], bool] | None,
    ) -> tuple[Result, BaseException | None]:
        if self._ran and not math.isinf(limits.seconds) and arrays.integer.any():
            # Parts of HiGHS's MILP (presolve, LPs at nodes) hold the limit against a clock that runs on from solve to
            # solve and that nothing sets back: late solves came out otherwise, and more so on a busy machine.
            self._begin()
        self._set_limits(limits, arrays.integer.any(), arrays.cost.size)
        self.push(arrays)
        self._ran = True
        with self._cutoff_row(arrays, limits.cutoff), _POOL.hold(self.profile.threads):
            if start is not None and arrays.integer.any():
                # After every change, since each one discards the start.
                status = self._highs.setSolution(start[0].size, start[0].astype(np.int32), start[1])
                self._must(status, "take the start")
            self._log.clear()
            began = time.perf_counter()
            cpu, stopped = self._run(interrupt)
            claimed, result = self._read(arrays, limits, began, cpu)
            if claimed == "optimal" != result.status and stopped is None:
                # HiGHS 1.16 sometimes proves the objective of a better point and hands back the start, about four
                # times in a thousand small started solves; others had no bound. Solved afresh it gives both.
                self._must(self._highs.clearSolver(), "forget the start")
                more, stopped = self._run(interrupt)
                _, result = self._read(arrays, limits, began, cpu + more)
        return result, stopped

    @contextlib.contextmanager
    def _cutoff_row(self, arrays: Arrays, cutoff: float | None) -> Iterator[None]:
        """A last row that demands the cut-off; HiGHS's objective_bound answered a maximisation with a wrong optimum."""
        if cutoff is None:
            yield
            return
        rest, m = cutoff - arrays.offset, arrays.row_lower.size
        low, high = (rest, np.array([math.inf])) if arrays.maximise else (np.array([-math.inf]), rest)
        self._append(int32(sparse.csr_array(arrays.cost[None, :])), low, high)
        try:
            yield
        finally:
            self._must(self._highs.deleteRows(1, np.array([m], dtype=np.int32)), "drop the cut-off row")

    def _set_limits(self, limits: Limits, is_milp: np.bool_, n_columns: int) -> None:
        # The clock that HiGHS holds against the limit runs on from LP to LP; a MILP has an object with a fresh one.
        spent = 0.0 if is_milp or math.isinf(limits.seconds) else self._highs.getRunTime()
        wanted: dict[str, float | int | str] = {
            "time_limit": limits.seconds + spent,
            "mip_max_nodes": _NO_NODE_LIMIT if limits.nodes is None else limits.nodes,
            "mip_rel_gap": limits.relative_gap,
            "mip_abs_gap": limits.absolute_gap,
        }
        own = self.profile.options
        wide = n_columns > WIDE
        wanted |= {name: values[wide] for name, values in WIDE_OPTIONS.items() if name not in own}
        if "presolve" not in own and float(own.get("mip_feasibility_tolerance", 1.0)) < PRESOLVED_TOLERANCE:
            wanted["presolve"] = "off" if is_milp else "choose"
        for name, value in wanted.items():
            if self._limits.get(name) != value:
                self._set_option(name, value)
                self._limits[name] = value

    def _run(self, interrupt: Callable[[], bool] | None) -> tuple[float, BaseException | None]:
        """Run, in a thread of its own when it must be stoppable; CPU seconds and what stopped the wait."""
        on_main = threading.current_thread() is threading.main_thread()
        if interrupt is None and not (self.profile.interruptible and on_main):
            return self._run_here(), None
        if not self._subscribed:
            # Once for the life of the object, and setting the flag each time: subscriptions add up, and a True left
            # behind would stop every later run.
            for source in (self._highs.cbMipInterrupt, self._highs.cbSimplexInterrupt, self._highs.cbIpmInterrupt):
                source.subscribe(lambda event: event.interrupt(self._stop))
            self._highs.cbMipInterrupt.subscribe(self._look)
            self._subscribed = True
        outcome: list[float] = []
        done = threading.Event()

        def work() -> None:
            try:
                outcome.append(self._run_here())
            finally:
                done.set()

        self._stop = interrupt is not None and bool(interrupt())
        self._watch = interrupt if isinstance(interrupt, Progress) else None
        worker = threading.Thread(target=work, name="rmab-opt HiGHS", daemon=True)
        worker.start()
        stopped: BaseException | None = None
        try:
            while not done.wait(POLL_SECONDS):
                if interrupt is not None and not self._stop:
                    self._stop = bool(interrupt())
        except BaseException as error:  # noqa: BLE001 - raised again by Session.solve once the incumbent is read
            stopped = error
            self._stop = True
            worker.join()
        self._stop = False
        if not outcome:
            raise SolverError("HiGHS stopped without an answer.", "see the traceback of its thread above.")
        return outcome[0], stopped

    def _look(self, event: Any) -> None:
        """Tell who watches what a mixed-integer program has come to."""
        if self._watch is not None:
            self._watch.saw(event.data_out.mip_primal_bound, event.data_out.mip_dual_bound)

    def _run_here(self) -> float:
        clock = time.thread_time if self.profile.threads == 1 else time.process_time
        began = clock()
        status = self._highs.run()
        refused = status == self._api.HighsStatus.kError
        if refused and self._highs.getModelStatus().name == "kNotset" and _POOL.renew():
            # Other code of the process (Pyomo's own HiGHS interface) had set up a pool of another size.
            self._highs.run()
        return clock() - began

    def _read(self, arrays: Arrays, limits: Limits, began: float, cpu: float) -> tuple[Status, Result]:
        """What HiGHS says the status is, and what its answer is worth."""
        info = self._highs.getInfo()
        status = _HIGHS_STATUS.get(self._highs.getModelStatus().name, "error")
        feasible = self._api.SolutionStatus.kSolutionStatusFeasible
        duals: dict[str, Any] = {}
        x = None
        if info.primal_solution_status == feasible and status in ("optimal", "feasible_limit", "interrupted"):
            solution = self._highs.getSolution()
            x = np.array(solution.col_value, dtype=float)
            if info.dual_solution_status == feasible:
                # The cut-off's row, where there is one, comes last.
                duals["row_duals"] = np.array(solution.row_dual, dtype=float)[: arrays.row_lower.size]
                duals["reduced_costs"] = np.array(solution.col_dual, dtype=float)
        bound = info.mip_dual_bound if arrays.integer.any() else info.objective_function_value
        result = conclude(
            arrays,
            limits,
            status,
            x,
            bound,
            nodes=max(0, int(info.mip_node_count)),
            iterations=max(0, info.simplex_iteration_count) + max(0, info.ipm_iteration_count),
            seconds=time.perf_counter() - began,
            cpu_seconds=cpu,
            log="".join(self._log),
            **duals,
        )
        return status, result


_NO_NODE_LIMIT = 2**31 - 1
