"""One compiled program, one HiGHS object, many solves.

A :class:`Session` compiles a Pyomo model once into sparse arrays, keeps the HiGHS object and, before each solve,
pushes only what changed. The pieces that travel are plain: :class:`Program` (the arrays, picklable), :class:`Profile`
(a named set of solver options, TOML) and :class:`Result` (what a solve has proven, and nothing more).

Conventions: columns are the program's variables, rows its constraints, both numbered from 0. Objective values, bounds
and duals are in the sense of the objective as written (a maximisation's bound lies above its objective).
Pyomo and the solvers load when a session first needs them, so that importing this module stays cheap.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.resources
import math
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmab_opt.errors import InfeasibleError, ModelError, SolverError

__all__ = ["Parameters", "Profile", "Program", "Result", "Session", "Status", "load_profile", "profile_names"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Status = Literal[
    "optimal",
    "feasible_limit",
    "infeasible",
    "unbounded",
    "infeasible_or_unbounded",
    "no_solution_limit",
    "interrupted",
    "empty",
    "error",
]

VALUE_TOL = 1e-6
"""Slack, absolute and relative, when status, bound and gap are held against one another: HiGHS's own tolerances."""

VIOLATION_TOL = 1e-4
"""A row or bound missed by more, relative to max(1, |limit|), makes the result an error: a hundred times what HiGHS
promises, because presolve may return points slightly worse than its tolerance in the original space."""

PATCHED_COEFFICIENTS = 32
"""Up to this many changed matrix entries go one by one; HiGHS searches a column for each, so more are passed whole."""

POLL_SECONDS = 0.05
"""How often a waiting solve looks at its ``interrupt`` function."""


# --------------------------------------------------------------------------------------------------------- profiles
@dataclass(frozen=True)
class Profile:
    """A named set of solver options; one of the shipped ones, a TOML file, or built in code.

    Raises
    ------
    ModelError
        When a value is out of range; names the profile and the field.
    """

    name: str
    """How messages and reports call it; of a file, its stem."""
    about: str = ""
    """What it is for, one sentence."""
    solver: str = "highs"
    """``highs`` (embedded), or ``gurobi``, ``scip``, ``cbc`` through Pyomo's own interface."""
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Options under the solver's own names."""
    threads: int = 1
    """Solver threads. HiGHS shares one pool per process: see :class:`Session`."""
    seconds: float | None = None
    """Wall-clock limit of one solve; None for none. Makes results depend on the machine's load."""
    nodes: int | None = None
    """Branch-and-bound node limit of one solve; None for none. Repeatable."""
    relative_gap: float = 1e-4
    """A MILP counts as solved at this gap, as a share of the objective."""
    absolute_gap: float = 1e-6
    """A MILP counts as solved at this gap, in the objective's unit."""
    at_limit: Literal["best_with_gap", "raise"] = "best_with_gap"
    """At a limit: return the best found with its gap, or raise SolverError."""
    seed: int = 0
    """Seed of the solver's own random choices."""
    interruptible: bool = True
    """Ctrl-C stops a running solve. Costs a thread and a call-back, up to 5 % of a small solve."""
    log: bool = False
    """Keep the solver's log in ``Result.log``."""

    def __post_init__(self) -> None:
        def demand(holds: bool, name: str, wanted: str) -> None:
            if not holds:
                raise ModelError(
                    f"solver profile {self.name!r}: {name} is {getattr(self, name)!r}.", f"set {name} to {wanted}."
                )

        def number(value: object, kind: type | tuple[type, ...]) -> bool:
            return isinstance(value, kind) and not isinstance(value, bool)

        demand(self.solver in _SOLVERS, "solver", f"one of {', '.join(_SOLVERS)}")
        demand(number(self.threads, int) and self.threads >= 1, "threads", "an integer of at least 1")
        demand(number(self.seed, int) and 0 <= self.seed < 2**31, "seed", "an integer from 0 to 2147483647")
        for name in ("seconds", "relative_gap", "absolute_gap"):
            value = getattr(self, name)
            known = value is None and name == "seconds"
            demand(known or (number(value, (int, float)) and value >= 0), name, "a number of at least 0")
        demand(self.nodes is None or (number(self.nodes, int) and self.nodes >= 0), "nodes", "a whole number")
        demand(self.at_limit in ("best_with_gap", "raise"), "at_limit", "'best_with_gap' or 'raise'")
        for name in ("interruptible", "log"):
            demand(isinstance(getattr(self, name), bool), name, "true or false")
        if "mip_lifting_for_probing" in self.options:
            raise ModelError(
                f"solver profile {self.name!r}: mip_lifting_for_probing makes HiGHS call feasible models infeasible.",
                "remove the option.",
            )


_SOLVERS = ("highs", "gurobi", "scip", "cbc")
_LIMITS = ("seconds", "nodes", "relative_gap", "absolute_gap", "at_limit")
_TOP_KEYS = ("extends", "about", "solver", "threads", "seed", "interruptible", "log", "limits", *_SOLVERS)
# The same six choices under each solver's own name: in a profile's solver table they set the profile's field, so that
# a value written either way is the one a session uses and a child profile overrides.
_OWN_NAMES: dict[str, dict[str, str]] = {
    "highs": {
        "threads": "threads",
        "seed": "random_seed",
        "seconds": "time_limit",
        "nodes": "mip_max_nodes",
        "relative_gap": "mip_rel_gap",
        "absolute_gap": "mip_abs_gap",
    },
    "gurobi": {
        "threads": "Threads",
        "seed": "Seed",
        "seconds": "TimeLimit",
        "nodes": "NodeLimit",
        "relative_gap": "MIPGap",
        "absolute_gap": "MIPGapAbs",
    },
    "scip": {
        "threads": "parallel/maxnthreads",
        "seed": "randomization/randomseedshift",
        "seconds": "limits/time",
        "nodes": "limits/nodes",
        "relative_gap": "limits/gap",
        "absolute_gap": "limits/absgap",
    },
    "cbc": {
        "threads": "threads",
        "seed": "randomSeed",
        "seconds": "seconds",
        "nodes": "maxNodes",
        "relative_gap": "ratioGap",
        "absolute_gap": "allowableGap",
    },
}


def profile_names() -> list[str]:
    """Names of the shipped profiles, sorted."""
    return sorted({entry.name.removesuffix(".toml") for folder in _profile_folders() for entry in _toml_files(folder)})


def load_profile(profile: str | Path | Profile) -> Profile:
    """Solver profile by name or path.

    Parameters
    ----------
    profile
        Name of a shipped profile (``"quick"``), path of a TOML file (ends in ``.toml``), or a Profile, returned as is.

    Returns
    -------
    Profile
        With everything it extends filled in.

    Raises
    ------
    ModelError
        When nothing has that name, a key is unknown (names the nearest known one), a value is out of range, or
        profiles extend one another in a circle; names the file.
    """
    return profile if isinstance(profile, Profile) else Profile(**_profile_fields(profile, None, ()))


def _profile_folders() -> list[Any]:
    """Folders that hold shipped profiles: inside the installed package first, beside the source tree second."""
    inside = importlib.resources.files("rmab_opt") / "solvers_cfg"
    beside = Path(__file__).resolve().parent.parent / "solvers_cfg"
    return [folder for folder in (inside, beside) if folder.is_dir()]


def _toml_files(folder: Any) -> Iterator[Any]:
    return (entry for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _find_profile(profile: str | Path, folder: Any) -> tuple[str, str, Any]:
    """Where it lies (for messages), its text, and the folder that ``extends`` is looked up in."""
    path = Path(profile)
    if isinstance(profile, Path) or path.suffix == ".toml" or len(path.parts) > 1:
        if folder is not None and not path.is_absolute():
            path = folder / path
        if not path.is_file():
            raise ModelError(f"there is no solver profile {str(path)!r}.", f"give a file or one of {_listed()}.")
        return str(path), path.read_text(encoding="utf-8"), path.parent
    for place in _profile_folders():
        entry = place / f"{profile}.toml"
        if entry.is_file():
            return str(entry), entry.read_text(encoding="utf-8"), None
    raise ModelError(
        f"there is no solver profile {str(profile)!r}{_nearest(str(profile), profile_names())}.",
        f"use one of {_listed()}, or the path of a .toml file.",
    )


def _listed() -> str:
    return ", ".join(profile_names())


def _nearest(word: str, known: Iterable[str]) -> str:
    """`` (nearest: x)``, or nothing when no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (nearest known: {close[0]!r})" if close else ""


def _profile_fields(profile: str | Path, folder: Any, seen: tuple[str, ...]) -> dict[str, Any]:
    """Keyword arguments of Profile from one file and all it extends."""
    where, text, own_folder = _find_profile(profile, folder)
    if where in seen:
        raise ModelError(f"{where}: extends itself through {' > '.join((*seen, where))}.", "break the circle.")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{where}: not valid TOML: {error}.", "correct that line.") from error
    _refuse_unknown(table, _TOP_KEYS, where)
    inherited: dict[str, Any] = {"options": {}}
    if "extends" in table:
        if not isinstance(table["extends"], str):
            raise ModelError(f"{where}: extends is {table['extends']!r}.", "name one profile.")
        inherited = _profile_fields(table["extends"], own_folder, (*seen, where))
    solver = table.get("solver", inherited.get("solver", "highs"))
    if solver not in _SOLVERS:
        raise ModelError(
            f"{where}: solver is {solver!r}{_nearest(str(solver), _SOLVERS)}.", f"use one of {', '.join(_SOLVERS)}."
        )
    for name in ("limits", *_SOLVERS):
        if not isinstance(table.get(name, {}), dict):
            raise ModelError(f"{where}: {name} is {table[name]!r}.", f"make it a table [{name}].")
        if name in _SOLVERS and name in table and name != solver:
            raise ModelError(f"{where}: has a table [{name}] but solves with {solver}.", f"set solver = {name!r}.")
    limits = table.get("limits", {})
    _refuse_unknown(limits, _LIMITS, f"{where}: limits")
    own = {key: table[key] for key in ("about", "threads", "seed", "interruptible", "log") if key in table} | limits
    options = dict(table.get(solver, {}))
    for name, option in _OWN_NAMES[solver].items():
        if option in options:
            if name in own:
                raise ModelError(f"{where}: {name} is also given as {solver}.{option}.", "keep one of the two.")
            own[name] = options.pop(option)
    # Another solver's option names mean nothing to this one, so they are not inherited.
    kept = inherited["options"] if inherited.get("solver", solver) == solver else {}
    return inherited | own | {"name": Path(where).stem, "solver": solver, "options": kept | options}


def _refuse_unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = list(known)
    for key in table:
        if key not in known:
            raise ModelError(f"{where}: unknown key {key!r}{_nearest(key, known)}.", f"use one of {', '.join(known)}.")


# ------------------------------------------------------------------------------------------------ programs, results
@dataclass(frozen=True, eq=False)
class Program:
    """Arrays of one linear or mixed-integer program; pickles, so it is what travels between processes.

    maximise or minimise  cost @ x + offset
    subject to            row_lower <= matrix @ x <= row_upper,  lower <= x <= upper,  x[j] whole where integer[j].

    Raises
    ------
    ModelError
        When shapes disagree, or a number is NaN or infinite where it must not be; names the array and the place.
    """

    cost: Floats
    """Shape (n,), objective per unit of each column."""
    matrix: sparse.csr_array
    """Shape (m, n), sparse by rows."""
    row_lower: Floats
    """Shape (m,), -inf for none."""
    row_upper: Floats
    """Shape (m,), +inf for none."""
    lower: Floats
    """Shape (n,), -inf for none."""
    upper: Floats
    """Shape (n,), +inf for none."""
    integer: NDArray[np.bool_]
    """Shape (n,), True where the column takes whole values only."""
    maximise: bool = False
    offset: float = 0.0
    """Constant part of the objective."""

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731 - frozen: the one way to convert
        for name in ("cost", "row_lower", "row_upper", "lower", "upper"):
            put(name, np.array(getattr(self, name), dtype=float))
        put("integer", np.array(self.integer, dtype=bool))
        matrix = sparse.csr_array(self.matrix, dtype=float, copy=True)
        matrix.sum_duplicates()
        if matrix.nnz >= 2**31:
            raise ModelError(f"the program has {matrix.nnz} coefficients, more than 2^31.", "split it.")
        # HiGHS reads 32-bit indices; scipy chooses 64 bits for some products and slices.
        matrix.indptr, matrix.indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
        put("matrix", matrix)
        put("maximise", bool(self.maximise))
        put("offset", float(self.offset))
        rows, columns = matrix.shape
        for name in ("cost", "row_lower", "row_upper", "lower", "upper", "integer"):
            size = rows if name.startswith("row") else columns
            if getattr(self, name).shape != (size,):
                raise ModelError(
                    f"program: {name} has shape {getattr(self, name).shape}, the matrix {matrix.shape}.",
                    f"give {name} the shape ({size},).",
                )
        _demand_numbers(self, _Names())

    @property
    def has_integers(self) -> bool:
        """Whether it is a MILP."""
        return bool(self.integer.any())


_KINDS = ("cost", "offset", "row_lower", "row_upper", "lower", "upper", "data")


def _values(program: Any, kind: str) -> Floats:
    """A numeric array of a Program or of a session's arrays; ``data`` are the matrix coefficients."""
    return program.matrix.data if kind == "data" else np.atleast_1d(getattr(program, kind))


def _demand_numbers(program: Any, names: _Names) -> None:
    """Raise ModelError at the first number that a solver must not see."""
    for kind in _KINDS:
        values = _values(program, kind)
        bad = np.flatnonzero(_refused(kind, values))
        if bad.size:
            raise ModelError(f"{names.place(kind, int(bad[0]), program.matrix)} is {values[bad[0]]}.", _FIX_NUMBER)


_FIX_NUMBER = "give a finite number (a bound may be infinite on its open side)."


def _refused(kind: str, values: Floats) -> NDArray[np.bool_]:
    """Where HiGHS would drop a term, keep an old bound or call a NaN objective optimal, without a word."""
    if kind.endswith("lower"):
        return np.isnan(values) | (values == np.inf)
    if kind.endswith("upper"):
        return np.isnan(values) | (values == -np.inf)
    return ~np.isfinite(values)


@dataclass(frozen=True, eq=False)
class Result:
    """What one solve has proven.

    ``status``: ``optimal`` (bound and objective agree within the gap), ``feasible_limit`` (a solution, a limit),
    ``infeasible``, ``unbounded``, ``infeasible_or_unbounded``, ``no_solution_limit`` (a limit before a solution, or
    nothing at least as good as the cut-off), ``interrupted`` (look at ``has_solution``), ``empty`` (no columns),
    ``error``.
    """

    status: Status
    has_solution: bool
    objective: float
    """Of ``x``; nan without a solution."""
    bound: float
    """No solution is better than this; +inf (maximising) or -inf (minimising) when nothing is proven."""
    x: Floats | None
    """Shape (n,), integer columns within the solver's tolerance of whole numbers; None without a solution."""
    row_duals: Floats | None = None
    """Shape (m,), change of the objective per unit of a row's right-hand side; LPs solved to optimality only."""
    reduced_costs: Floats | None = None
    """Shape (n,), the same for column bounds; LPs solved to optimality only."""
    nodes: int = 0
    """Branch-and-bound nodes."""
    iterations: int = 0
    """Simplex and interior-point iterations."""
    seconds: float = 0.0
    """Wall-clock time."""
    cpu_seconds: float = 0.0
    """CPU time of the solving thread; of the process when several threads solve."""
    violation: float = 0.0
    """Largest amount by which x misses a row or a column bound, recomputed from the arrays."""
    log: str = ""
    """The solver's log, when the profile keeps it."""

    @property
    def gap(self) -> float:
        """|bound - objective| in the objective's unit; inf without a solution or a bound."""
        return abs(self.bound - self.objective) if self.has_solution else math.inf

    @property
    def relative_gap(self) -> float:
        """Gap as a share of max(1, |bound|): near zero only the absolute gap means something."""
        return self.gap / max(1.0, abs(self.bound)) if math.isfinite(self.gap) else math.inf


# -------------------------------------------------------------------------------------------- compiling Pyomo models
@dataclass
class _Compiled:
    """A Pyomo model as arrays, with the way back from its components and forward from its mutable Params."""

    program: Program
    names: _Names
    parameters: Parameters
    dependence: _Dependence | None


class Parameters(Mapping[str, Floats]):
    """Values of a model's mutable Params: name -> array, one entry per index in the Param's own order.

    Arrays are views of one vector: write into them (``session.parameters["price"][:] = p``, or assign to the name) and
    the next solve pushes what changed. A Param over a product of sets reshapes without a copy:
    ``session.parameters["price"].reshape(n_arms, n_actions)``. Values written here do not go back to the Pyomo model
    and are not held against the Param's domain; NaN is refused by the next solve.
    """

    def __init__(self, components: list[Any]) -> None:
        self._parts: dict[str, slice] = {}
        self.data: list[Any] = []
        for component in components:
            entries = list(component.values())
            self._parts[component.name] = slice(len(self.data), len(self.data) + len(entries))
            self.data += entries
        self.vector: Floats = np.array([_param_value(entry) for entry in self.data], dtype=float)

    def __getitem__(self, name: str) -> Floats:
        if name not in self._parts:
            known = list(self._parts)
            raise ModelError(
                f"the model has no mutable Param {name!r}{_nearest(name, known)}.",
                f"use one of {', '.join(known) or '(none)'}, or declare it with mutable=True.",
            )
        return self.vector[self._parts[name]]

    def __setitem__(self, name: str, values: ArrayLike) -> None:
        self[name][:] = values

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def keys_of(self, name: str) -> list[Any]:
        """Indices of a Param in the order of its array."""
        self[name]
        return [entry.index() for entry in self.data[self._parts[name]]]


def _param_value(entry: Any) -> float:
    """Current value, NaN for a Param that has none yet (the first solve refuses it if it is used)."""
    try:
        number = entry.value
    except ValueError:
        return math.nan
    return math.nan if number is None else float(number)


@dataclass
class _Dependence:
    """Which numbers of the program depend on Params: t = constant + slope @ p, and the few that are not affine.

    A target is one number of the program: (kind, position in that kind's array).
    """

    pieces: list[tuple[str, Ints, slice]]
    """Kind, positions in its array, and the part of t they take."""
    constant: Floats
    slope: sparse.csr_array
    expressions: list[tuple[int, Any]]
    """Position in t and Pyomo expression of the others, evaluated one by one."""

    def values(self, parameters: Parameters) -> Floats:
        """All targets under the current parameter values, shape (k,)."""
        result = self.constant + self.slope @ parameters.vector
        if self.expressions:
            from pyomo.environ import value

            for entry, number in zip(parameters.data, parameters.vector, strict=True):
                if not math.isnan(number):
                    entry.set_value(float(number))
            for position, expression in self.expressions:
                number = value(expression, exception=False)
                result[position] = math.nan if number is None else number
        return result

    def names_of(self, target: int, parameters: Parameters) -> str:
        """The Params with unusable values that a target depends on; all it depends on when each looks fine alone."""
        slots = self.slope.indices[self.slope.indptr[target] : self.slope.indptr[target + 1]]
        if dict(self.expressions).get(target) is not None:
            slots = np.arange(len(parameters.vector))
        wrong = [slot for slot in slots if not math.isfinite(parameters.vector[slot])]
        shown = [f"{parameters.data[slot].name} = {parameters.vector[slot]}" for slot in (wrong or slots)[:3]]
        return f"Param {', '.join(shown)}"


def _compile(model: Any) -> _Compiled:
    """Arrays of a Pyomo model.

    Rows without mutable Params go through Pyomo's standard-form compiler, the others through a walk that keeps every
    coefficient as an affine function of the Params: the compiler would fold them in at today's values and drop a row
    or a column whose coefficients are all zero today.
    """
    import pyomo.environ as pyo
    from pyomo.common.errors import InfeasibleConstraintException, InvalidConstraintError, InvalidExpressionError
    from pyomo.repn.plugins.standard_form import LinearStandardFormCompiler

    _refuse_unsupported(model)
    objective = _one_objective(model)
    variables = list(model.component_data_objects(pyo.Var, active=True, descend_into=True))
    components = [param for param in model.model().component_objects(pyo.Param, descend_into=True) if param.mutable]
    parameters = Parameters(components)
    slots = {id(entry): slot for slot, entry in enumerate(parameters.data)}
    walked = _with_parameters(model, objective, slots)
    builder = _Builder(variables, slots)
    # The compiler folds a fixed variable into the right-hand side for good; as a column with equal bounds it can be
    # released later by set_bounds.
    fixed = [variable for variable in variables if variable.fixed]
    try:
        for variable in fixed:
            variable.fixed = False
        for component in walked:
            component.deactivate()
        info = LinearStandardFormCompiler().write(model, mixed_form=True, set_sense=None)
        builder.add_compiled(info)
        for component in walked:
            builder.add_walked(component, is_objective=component is objective)
    except InfeasibleConstraintException as error:
        raise InfeasibleError(f"{error}.", "relax that constraint: no action can satisfy it.") from error
    except (InvalidConstraintError, InvalidExpressionError) as error:
        raise ModelError(str(error), "write it linearly; give data as mutable Params, not as fixed Vars.") from error
    finally:
        for component in walked:
            component.activate()
        for variable in fixed:
            variable.fixed = True
    for column, variable in enumerate(builder.variables):
        builder.add_bounds(column, variable)
    return builder.finish(objective.sense == pyo.maximize, parameters)


def _refuse_unsupported(model: Any) -> None:
    """Stop at components that no row of a linear program can say; Pyomo's HiGHS interfaces silently ignore them."""
    import pyomo.environ as pyo
    from pyomo.core.base.piecewise import Piecewise
    from pyomo.gdp import Disjunct

    understood = {"Block", "Constraint", "Objective", "Var", "Param", "Expression", "Suffix", "BooleanVar", "Port"}
    remedies = {
        "Disjunct": "apply TransformationFactory('gdp.bigm') or 'gdp.hull' to the model first",
        "Disjunction": "apply TransformationFactory('gdp.bigm') or 'gdp.hull' to the model first",
        "LogicalConstraint": "apply TransformationFactory('core.logical_to_linear') to the model first",
        "SOSConstraint": "write it with binaries; HiGHS has no special ordered sets",
        "Complementarity": "apply TransformationFactory('mpec.simple_disjunction') and 'gdp.bigm' to the model first",
        "PiecewiseLinearFunction": "apply TransformationFactory('contrib.piecewise.disaggregated_logarithmic') first",
    }
    for component in model.component_objects(active=True, descend_into=(pyo.Block, Disjunct)):
        kind = component.ctype.__name__
        if kind == "Piecewise" or isinstance(component, Piecewise):
            if str(getattr(component, "_pw_rep", "")).endswith("BIGM_BIN"):
                raise ModelError(f"{component.name}: Piecewise with BIGM_BIN has wrong optima.", "use pw_repn='INC'.")
        elif kind not in understood and not _is_set(component):
            remedy = remedies.get(kind, "write it with linear constraints")
            raise ModelError(f"{component.name}: a {kind} is not part of a linear program.", f"{remedy}.")


def _is_set(component: Any) -> bool:
    import pyomo.environ as pyo

    return component.ctype in (pyo.Set, pyo.RangeSet) or component.ctype.__name__ == "ExternalFunction"


def _one_objective(model: Any) -> Any:
    import pyomo.environ as pyo

    active = list(model.component_data_objects(pyo.Objective, active=True, descend_into=True))
    if len(active) != 1:
        names = ", ".join(objective.name for objective in active) or "none"
        raise ModelError(f"the model has {len(active)} active objectives ({names}).", "leave exactly one active.")
    return active[0]


def _with_parameters(model: Any, objective: Any, slots: Mapping[int, int]) -> list[Any]:
    """Constraints and objective whose expression contains a mutable Param."""
    import pyomo.environ as pyo
    from pyomo.core.expr import identify_mutable_parameters

    if not slots:
        return []
    candidates = [objective, *model.component_data_objects(pyo.Constraint, active=True, descend_into=True)]
    return [c for c in candidates if c.expr is not None and any(True for _ in identify_mutable_parameters(c.expr))]


class _Builder:
    """Collects columns, rows and their dependence on Params while a model is compiled."""

    def __init__(self, variables: list[Any], slots: Mapping[int, int]) -> None:
        self.variables = list(variables)
        self.columns = {id(variable): column for column, variable in enumerate(variables)}
        self.slots = slots
        self.constraints: list[Any] = []
        self.cost: dict[int, float] = {}
        self.offset = 0.0
        self.limits: list[tuple[float, float]] = []
        self.triples: list[tuple[Ints, Ints, Floats]] = []
        self.bounds: list[tuple[float, float, bool]] = []
        # Targets: kind, position (for coefficients row and column), constant, {slot: slope} or an expression.
        self.targets: list[tuple[str, Any, float, dict[int, float], Any]] = []

    def column(self, variable: Any) -> int:
        """Its column; variables from outside the active blocks get theirs when a row first mentions them."""
        found = self.columns.get(id(variable))
        if found is None:
            found = self.columns[id(variable)] = len(self.variables)
            self.variables.append(variable)
        return found

    def add_compiled(self, info: Any) -> None:
        """Rows (and the objective, unless it was walked) from Pyomo's standard form."""
        columns = np.array([self.column(variable) for variable in info.columns], dtype=np.int64)
        if info.objectives:
            cost = sparse.coo_array(info.c)
            self.cost = dict(zip(columns[cost.coords[1]].tolist(), cost.data.tolist(), strict=True))
            self.offset = float(info.c_offset[0])
        number = np.empty(len(info.rows), dtype=np.int64)
        first = np.ones(len(info.rows), dtype=bool)
        for i, ((constraint, kind), limit) in enumerate(zip(info.rows, info.rhs, strict=True)):
            if self.constraints and self.constraints[-1] is constraint:
                # The two entries of a range constraint come one after the other.
                first[i] = False
                low, high = self.limits[-1]
                self.limits[-1] = (float(limit), high) if kind < 0 else (low, float(limit))
            else:
                low = -math.inf if kind > 0 else float(limit)
                high = math.inf if kind < 0 else float(limit)
                self.constraints.append(constraint)
                self.limits.append((low, high))
            number[i] = len(self.constraints) - 1
        matrix = sparse.coo_array(info.A)
        rows = matrix.coords[0]
        kept = first[rows]
        self.triples.append((number[rows[kept]], columns[matrix.coords[1][kept]], matrix.data[kept]))

    def add_walked(self, component: Any, is_objective: bool) -> None:
        """A row or the objective, every coefficient kept as a function of the Params, also where it is zero today."""
        from pyomo.repn import generate_standard_repn

        low, body, high = (None, component.expr, None) if is_objective else component.to_bounded_expression()
        terms = generate_standard_repn(body, compute_values=False, quadratic=False)
        if terms.nonlinear_expr is not None:
            raise ModelError(
                f"{component.name}: nonlinear in the variables.",
                "write it linearly; give data as mutable Params, not as fixed Vars.",
            )
        numbers: dict[int, list[Any]] = {}
        for variable, coefficient in zip(terms.linear_vars, terms.linear_coefs, strict=True):
            numbers.setdefault(self.column(variable), []).append(coefficient)
        coefficients = {column: parts[0] if len(parts) == 1 else sum(parts) for column, parts in numbers.items()}
        if is_objective:
            self.offset = self.target("offset", 0, terms.constant)
            self.cost = {column: self.target("cost", column, entry) for column, entry in coefficients.items()}
            return
        if low is None and high is None:
            return
        row = len(self.constraints)
        self.constraints.append(component)
        self.limits.append(
            (
                -math.inf if low is None else self.target("row_lower", row, low - terms.constant),
                math.inf if high is None else self.target("row_upper", row, high - terms.constant),
            )
        )
        values = [self.target("data", (row, column), entry) for column, entry in coefficients.items()]
        columns = np.fromiter(coefficients, dtype=np.int64, count=len(coefficients))
        self.triples.append((np.full(len(values), row), columns, np.array(values, dtype=float)))

    def add_bounds(self, column: int, variable: Any) -> None:
        """Bounds and integrality of one column; a fixed variable gets equal bounds."""
        if not (variable.is_continuous() or variable.is_integer()):
            raise ModelError(
                f"{variable.name}: its domain {variable.domain} is neither an interval nor its whole numbers.",
                "choose among the values with binaries.",
            )
        if variable.fixed:
            if variable.value is None:
                raise ModelError(f"{variable.name}: fixed, but to no value.", "fix it to a number.")
            self.bounds.append((float(variable.value), float(variable.value), variable.is_integer()))
            return
        low = -math.inf if variable.lower is None else self.target("lower", column, variable.lower)
        high = math.inf if variable.upper is None else self.target("upper", column, variable.upper)
        self.bounds.append((low, high, variable.is_integer()))

    def target(self, kind: str, position: Any, expression: Any) -> float:
        """One number of the program; 0 for now, and noted as a target, when it depends on Params."""
        affine = _affine(expression, self.slots)
        if affine is not None and not affine[1]:
            return affine[0]
        self.targets.append((kind, position, *(affine or (0.0, {})), None if affine else expression))
        return 0.0

    def finish(self, maximise: bool, parameters: Parameters) -> _Compiled:
        """Arrays of everything collected."""
        m, n = len(self.constraints), len(self.variables)
        rows, columns, data = (np.concatenate([part[k] for part in self.triples]) for k in range(3))
        order = np.lexsort((columns, rows))
        rows, columns, data = rows[order], columns[order], data[order]
        matrix = sparse.csr_array((data, columns, np.searchsorted(rows, np.arange(m + 1))), shape=(m, n))
        cost = np.zeros(n)
        cost[list(self.cost)] = list(self.cost.values())
        row_lower, row_upper = np.array(self.limits, dtype=float).reshape(-1, 2).T
        lower, upper, integer = np.array(self.bounds, dtype=float).reshape(-1, 3).T
        arrays = _Arrays(
            cost, matrix, row_lower, row_upper, lower, upper, integer > 0, maximise, np.array([self.offset])
        )
        names = _Names(self.constraints, self.variables)
        _demand_numbers(arrays, names)
        dependence = self.dependence(rows * n + columns, n, len(parameters.vector))
        return _Compiled(arrays.program(), names, parameters, dependence)

    def dependence(self, keys: Ints, n: int, n_slots: int) -> _Dependence | None:
        """The targets by kind; ``keys`` are row * n + column of the matrix entries, sorted."""
        if not self.targets:
            return None
        ordered = sorted(self.targets, key=lambda target: _KINDS.index(target[0]))
        pieces, start = [], 0
        for kind in _KINDS:
            found = [target[1] for target in ordered if target[0] == kind]
            if kind == "data":
                found = np.searchsorted(keys, [row * n + column for row, column in found]).tolist()
            if found:
                pieces.append((kind, np.array(found, dtype=np.int64), slice(start, start + len(found))))
                start += len(found)
        entries = [(i, slot, slope) for i, target in enumerate(ordered) for slot, slope in target[3].items()]
        which, slots, slopes = (np.array(part) for part in zip(*entries, strict=True)) if entries else ([], [], [])
        return _Dependence(
            pieces=pieces,
            constant=np.array([target[2] for target in ordered]),
            slope=sparse.csr_array((slopes, (which, slots)), shape=(len(ordered), n_slots), dtype=float),
            expressions=[(i, target[4]) for i, target in enumerate(ordered) if target[4] is not None],
        )


def _affine(expression: Any, slots: Mapping[int, int]) -> tuple[float, dict[int, float]] | None:
    """Constant and slope per Param slot of an expression without variables; None when it is not affine."""
    from pyomo.common.numeric_types import native_numeric_types, value
    from pyomo.core.expr import numeric_expr as forms

    if expression.__class__ in native_numeric_types:
        return float(expression), {}
    if id(expression) in slots:
        return 0.0, {slots[id(expression)]: 1.0}
    if not expression.is_expression_type():
        return float(value(expression)), {}
    if expression.is_named_expression_type():
        return _affine(expression.arg(0), slots)
    parts = [_affine(part, slots) for part in expression.args]
    if not any(part is None or part[1] for part in parts):
        return float(value(expression)), {}
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if isinstance(expression, forms.SumExpression):
        slopes: dict[int, float] = {}
        for _, part in known:
            for slot, slope in part.items():
                slopes[slot] = slopes.get(slot, 0.0) + slope
        return sum(constant for constant, _ in known), slopes
    if isinstance(expression, forms.NegationExpression):
        return -known[0][0], {slot: -slope for slot, slope in known[0][1].items()}
    if isinstance(expression, forms.ProductExpression) and not (known[0][1] and known[1][1]):
        (factor, _), (constant, part) = known if known[1][1] else known[::-1]
        return factor * constant, {slot: factor * slope for slot, slope in part.items()}
    if isinstance(expression, forms.DivisionExpression) and not known[1][1]:
        (constant, part), (divisor, _) = known
        return constant / divisor, {slot: slope / divisor for slot, slope in part.items()}
    return None


_ARRAYS = ("cost", "matrix", "row_lower", "row_upper", "lower", "upper", "integer")


@dataclass
class _Arrays:
    """The arrays a session works on: a Program that may change."""

    cost: Floats
    matrix: sparse.csr_array
    row_lower: Floats
    row_upper: Floats
    lower: Floats
    upper: Floats
    integer: NDArray[np.bool_]
    maximise: bool
    offset: Floats
    """Shape (1,), an array like the others so that Params can write into it."""

    @classmethod
    def of(cls, program: Program) -> _Arrays:
        copies = {name: getattr(program, name).copy() for name in _ARRAYS}
        return cls(**copies, maximise=program.maximise, offset=np.array([program.offset]))

    def copy(self) -> _Arrays:
        return _Arrays(**{name: getattr(self, name).copy() for name in (*_ARRAYS, "offset")}, maximise=self.maximise)

    def program(self) -> Program:
        return Program(
            **{name: getattr(self, name) for name in _ARRAYS}, maximise=self.maximise, offset=self.offset.item()
        )


class _Names:
    """What messages call a row, a column or a coefficient."""

    def __init__(self, constraints: list[Any] | None = None, variables: list[Any] | None = None) -> None:
        self.constraints, self.variables = constraints or [], variables or []

    def row(self, i: int) -> str:
        return f"constraint {self.constraints[i].name!r}" if i < len(self.constraints) else f"row {i}"

    def column(self, j: int) -> str:
        return f"variable {self.variables[j].name!r}" if j < len(self.variables) else f"column {j}"

    def place(self, kind: str, position: int, matrix: sparse.csr_array) -> str:
        """For example: the cost of variable 'act[3]'."""
        if kind == "offset":
            return "the constant of the objective"
        if kind == "data":
            row = int(np.searchsorted(matrix.indptr, position, side="right")) - 1
            return f"the coefficient of {self.column(int(matrix.indices[position]))} in {self.row(row)}"
        words = {"cost": "cost", "row_lower": "lower limit", "row_upper": "upper limit"}
        item = self.row(position) if kind.startswith("row") else self.column(position)
        return f"the {words.get(kind, kind + ' bound')} of {item}"


# --------------------------------------------------------------------------------------------------------- sessions
@dataclass
class _Limits:
    """What one solve may use: the profile's limits with the call's own on top."""

    seconds: float
    nodes: int | None
    relative_gap: float
    absolute_gap: float
    cutoff: float | None


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

    def __init__(self, model: Any, profile: str | Path | Profile = "default") -> None:
        compiled = _compile(model)
        self._set_up(compiled.program, compiled.names, profile)
        self.parameters = compiled.parameters
        self._dependence = compiled.dependence
        self._refresh()

    @classmethod
    def from_arrays(cls, program: Program, profile: str | Path | Profile = "default") -> Session:
        """Session of a program given as arrays; without Pyomo components or Params."""
        session = cls.__new__(cls)
        session._set_up(program, _Names(), profile)
        session._dependence = None
        return session

    def _set_up(self, program: Program, names: _Names, profile: str | Path | Profile) -> None:
        self.profile = load_profile(profile)
        self.parameters = Parameters([])
        """Values of the model's mutable Params by name; see :class:`Parameters`."""
        self.last_result: Result | None = None
        """Of the latest solve, also when it was interrupted by Ctrl-C or raised at a limit."""
        self._arrays = _Arrays.of(program)
        self._names = names
        self._columns = {id(variable): j for j, variable in enumerate(names.variables)}
        self._rows = {id(constraint): i for i, constraint in enumerate(names.constraints)}
        self._dependent: Floats | None = None
        self._seen: Floats | None = None
        self._start: tuple[Ints, Floats] | None = None
        solver = _HighsSolver if self.profile.solver == "highs" else _PyomoSolver
        self._solver: _Solver = solver(self.profile)

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
        if not isinstance(component, (list, tuple)) and not component.is_indexed():
            return self._column(component)
        entries = component if isinstance(component, (list, tuple)) else component.values()
        return np.array([self._column(entry) for entry in entries], dtype=np.int64)

    def _column(self, variable: Any) -> int:
        if id(variable) not in self._columns:
            raise ModelError(f"{variable} is not a variable of this program.", "take it from the compiled model.")
        return self._columns[id(variable)]

    def rows(self, component: Any) -> Ints:
        """Rows that came from a Pyomo constraint, an indexed constraint or everything active in a block; sorted.

        Constraints that fold away (no limit, or no variables) have no row.
        """
        import pyomo.environ as pyo

        if component.ctype is pyo.Constraint:
            entries = component.values() if component.is_indexed() else [component]
        else:
            blocks = component.values() if component.is_indexed() else [component]
            entries = (c for b in blocks for c in b.component_data_objects(pyo.Constraint, descend_into=True))
        found = {self._rows[id(entry)] for entry in entries if id(entry) in self._rows}
        return np.array(sorted(found), dtype=np.int64)

    # ---- changing
    def set_cost(self, idx: ArrayLike, values: ArrayLike) -> None:
        """Set objective coefficients of columns ``idx``. A Param writes over it only when its value changes."""
        self._write("cost", idx, values)

    def set_rows(self, idx: ArrayLike, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> None:
        """Set limits of rows ``idx``; None leaves a side as it is."""
        self._write("row_lower", idx, lower)
        self._write("row_upper", idx, upper)

    def set_bounds(self, idx: ArrayLike, lower: ArrayLike | None = None, upper: ArrayLike | None = None) -> None:
        """Set bounds of columns ``idx``; None leaves a side as it is. Equal bounds fix a column."""
        self._write("lower", idx, lower)
        self._write("upper", idx, upper)

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
        row, column = np.broadcast_arrays(row, column)
        places = np.array([self._entry(i, j) for i, j in zip(row.tolist(), column.tolist(), strict=True)], dtype=int)
        self._write("data", places, values)

    def _entry(self, row: int, column: int) -> int:
        """Position of one coefficient in the matrix data."""
        matrix = self._arrays.matrix
        first, last = matrix.indptr[row], matrix.indptr[row + 1]
        found = np.flatnonzero(matrix.indices[first:last] == column)
        if not found.size:
            raise ModelError(
                f"{self._names.column(column)} has no coefficient in {self._names.row(row)}.",
                "give it one, zero will do, when the program is built.",
            )
        return int(first + found[0])

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
        self._solver.push(arrays)
        first = arrays.row_lower.size
        arrays.matrix = _int32(sparse.vstack([arrays.matrix, new.matrix], format="csr"))
        arrays.row_lower = np.concatenate([arrays.row_lower, new.row_lower])
        arrays.row_upper = np.concatenate([arrays.row_upper, new.row_upper])
        self._solver.add_rows(arrays, new)
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
        self._solver.push(arrays)
        kept = np.setdiff1d(np.arange(arrays.row_lower.size), gone)
        arrays.matrix = _int32(arrays.matrix[kept])
        arrays.row_lower, arrays.row_upper = arrays.row_lower[kept], arrays.row_upper[kept]
        self._solver.delete_rows(arrays, gone)

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

    def _write(self, kind: str, idx: ArrayLike, values: ArrayLike | None) -> None:
        if values is None:
            return
        # What Params have to say comes first, or the next refresh would put it over a later explicit change.
        self._refresh()
        target = _values(self._arrays, kind)
        positions = self._positions(idx, target.size, "row" if kind.startswith("row") else "column")
        numbers = np.broadcast_to(np.asarray(values, dtype=float), positions.shape)
        bad = np.flatnonzero(_refused(kind, numbers))
        if bad.size:
            place = self._names.place(kind, int(positions[bad[0]]), self._arrays.matrix)
            raise ModelError(f"{place} is {numbers[bad[0]]}.", _FIX_NUMBER)
        target[positions] = numbers
        if kind == "data":
            self._solver.matrix_changed = True

    def _refresh(self) -> None:
        """Carry changed parameter values into the arrays."""
        depends, current = self._dependence, self.parameters.vector
        if depends is None or (self._seen is not None and np.array_equal(self._seen, current, equal_nan=True)):
            return
        numbers = depends.values(self.parameters)
        for kind, positions, part in depends.pieces:
            bad = np.flatnonzero(_refused(kind, numbers[part]))
            if bad.size:
                target = part.start + int(bad[0])
                place = self._names.place(kind, int(positions[bad[0]]), self._arrays.matrix)
                raise ModelError(
                    f"{place} is {numbers[target]}, by {depends.names_of(target, self.parameters)}.", _FIX_NUMBER
                )
        for kind, positions, part in depends.pieces:
            changed = np.ones(len(positions), dtype=bool)
            if self._dependent is not None:
                changed = numbers[part] != self._dependent[part]
            if changed.any():
                _values(self._arrays, kind)[positions[changed]] = numbers[part][changed]
                self._solver.matrix_changed |= kind == "data"
        self._dependent, self._seen = numbers, current.copy()

    # ---- solving
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
            When a Param's value makes a number NaN or infinite; names the Param and the place.
        SolverError
            When the profile says ``at_limit = "raise"`` and a limit was reached (``last_result`` has what was found),
            or the solver refuses an option or the arrays.
        KeyboardInterrupt
            On Ctrl-C, once the solver has stopped; ``last_result`` has the best found so far.
        """
        self._refresh()
        profile = self.profile
        _demand_limit("seconds", seconds)
        _demand_limit("nodes", nodes)
        _demand_limit("relative_gap", relative_gap)
        if objective_cutoff is not None and not math.isfinite(objective_cutoff):
            raise ModelError(f"objective_cutoff is {objective_cutoff}.", "give a finite number or None.")
        limit = seconds if seconds is not None else profile.seconds
        limits = _Limits(
            seconds=math.inf if limit is None else float(limit),
            nodes=profile.nodes if nodes is None else int(nodes),
            relative_gap=profile.relative_gap if relative_gap is None else float(relative_gap),
            absolute_gap=profile.absolute_gap,
            cutoff=objective_cutoff,
        )
        start, self._start = self._start, None
        if not self._arrays.cost.size:
            self.last_result = _solve_empty(self._arrays, limits)
            return self.last_result
        self.last_result, stopped = self._solver.solve(self._arrays, limits, start, interrupt)
        if stopped is not None:
            raise stopped
        result = self.last_result
        at_limit = result.status in ("feasible_limit", "no_solution_limit")
        # Proof that nothing reaches the cut-off is an answer, not a limit.
        proven = not result.has_solution and result.bound == objective_cutoff
        if profile.at_limit == "raise" and at_limit and not proven:
            found = f"objective {result.objective:g}, bound {result.bound:g}" if result.has_solution else "no solution"
            raise SolverError(
                f"a limit stopped the solve after {result.seconds:.1f} s and {result.nodes} nodes with {found} "
                f"(profile {profile.name!r}).",
                "raise the limit, or set at_limit = 'best_with_gap' to take the best found with its gap.",
            )
        return result


def _demand_limit(name: str, value: float | None) -> None:
    if value is not None and not value >= 0:
        raise ModelError(f"solve: {name} is {value!r}.", f"set {name} to a number of at least 0, or None.")


def _int32(matrix: Any) -> sparse.csr_array:
    """The same matrix with the 32-bit indices HiGHS reads."""
    matrix = sparse.csr_array(matrix)
    matrix.indptr, matrix.indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
    return matrix


# -------------------------------------------------------------------------------------------------- judging results
def _conclude(
    arrays: _Arrays,
    limits: _Limits,
    status: Status,
    x: Floats | None,
    bound: float,
    **rest: Any,
) -> Result:
    """Result whose status, solution, bound and gap agree with one another and with the arrays.

    Objective and violation are recomputed from ``x``: a solver's own words have been NaN with status Optimal, and
    "optimal" with an infinite dual bound after a MIP start.
    """
    sense = 1.0 if arrays.maximise else -1.0
    nothing = sense * math.inf
    if not math.isfinite(bound) or status in ("infeasible", "unbounded", "infeasible_or_unbounded", "error"):
        bound = nothing
    objective, violation = math.nan, 0.0
    if x is not None and status in ("optimal", "feasible_limit", "interrupted"):
        violation, relative = _violation(arrays, x)
        objective = float(arrays.cost @ x + arrays.offset.item())
        if not (math.isfinite(objective) and relative <= VIOLATION_TOL):
            status, x = "error", None
    else:
        x = None
    if x is None:
        objective = math.nan
        status = {"optimal": "error", "feasible_limit": "no_solution_limit"}.get(status, status)  # type: ignore[assignment]
    elif not arrays.integer.any():
        bound = objective if status == "optimal" else nothing
    else:
        slack = VALUE_TOL * max(1.0, abs(objective))
        # Rounding puts a tight bound a hair on the wrong side of its objective; more than a hair is no bound.
        behind = sense * (objective - bound)
        bound = nothing if behind > slack else sense * max(sense * bound, sense * objective)
        allowed = max(limits.absolute_gap, limits.relative_gap * abs(objective)) + slack
        if status == "optimal" and not abs(bound - objective) <= allowed:
            status = "feasible_limit"
    if limits.cutoff is not None and x is None:
        if status == "infeasible":
            status, bound = "no_solution_limit", limits.cutoff
        elif math.isfinite(bound):
            bound = sense * max(sense * bound, sense * limits.cutoff)
    if status != "optimal" or arrays.integer.any():
        rest |= {"row_duals": None, "reduced_costs": None}
    return Result(
        status=status, has_solution=x is not None, objective=objective, bound=bound, x=x, violation=violation, **rest
    )


def _violation(arrays: _Arrays, x: Floats) -> tuple[float, float]:
    """Largest miss of a row, a bound or a whole number: as it is, and relative to max(1, |value|)."""
    if not np.isfinite(x).all():
        return math.inf, math.inf
    activity = arrays.matrix @ x
    misses = [
        (np.maximum(arrays.row_lower - activity, activity - arrays.row_upper), activity),
        (np.maximum(arrays.lower - x, x - arrays.upper), x),
        (np.abs(x - np.round(x)) * arrays.integer, x),
    ]
    worst = max(float(miss.max(initial=0.0)) for miss, _ in misses)
    relative = max(float((miss / np.maximum(1.0, np.abs(value))).max(initial=0.0)) for miss, value in misses)
    return worst, relative


def _solve_empty(arrays: _Arrays, limits: _Limits) -> Result:
    """Without columns HiGHS says Empty, even when a row cannot hold; here that is infeasible."""
    sense = 1.0 if arrays.maximise else -1.0
    x, objective = np.zeros(0), arrays.offset.item()
    if _violation(arrays, x)[1] > VALUE_TOL:
        return Result("infeasible", False, math.nan, sense * math.inf, None)
    if limits.cutoff is not None and sense * objective < sense * limits.cutoff:
        return Result("no_solution_limit", False, math.nan, limits.cutoff, None)
    return Result("empty", True, objective, objective, x)


class _Solver(Protocol):
    """What a session asks of a solver."""

    matrix_changed: bool = False
    """Set by the session when it writes matrix coefficients."""

    def __init__(self, profile: Profile) -> None: ...

    def push(self, arrays: _Arrays) -> None:
        """Take the changes now; called before rows come or go."""

    def add_rows(self, arrays: _Arrays, new: Program) -> None:
        """The rows of ``new`` were appended to ``arrays``."""

    def delete_rows(self, arrays: _Arrays, gone: Ints) -> None:
        """The rows ``gone`` (old numbers, sorted) have left ``arrays``."""

    def solve(
        self,
        arrays: _Arrays,
        limits: _Limits,
        start: tuple[Ints, Floats] | None,
        interrupt: Callable[[], bool] | None,
    ) -> tuple[Result, BaseException | None]:
        """Push, run, read. The second value is what stopped the wait: Ctrl-C, or an error in ``interrupt``."""


# ------------------------------------------------------------------------------------------------------------ HiGHS
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


class _HighsSolver(_Solver):
    """The embedded solver: one Highs object and a copy of the arrays it was last given."""

    def __init__(self, profile: Profile) -> None:
        try:
            import highspy
        except ImportError as error:
            raise SolverError(f"HiGHS cannot be imported: {error}.", "run pip install highspy.") from error
        self.profile = profile
        self.matrix_changed = False
        self._api: Any = highspy
        self._highs: Any = _quiet_highs()
        self._sent: _Arrays | None = None
        self._stop = False
        self._subscribed = False
        self._log: list[str] = []
        self._limits: dict[str, float | int] = {}
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
                f"profile {self.profile.name!r}: HiGHS has no option {name!r}{_nearest(name, known)}.",
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
    def push(self, arrays: _Arrays) -> None:
        """Make HiGHS's copy equal to the arrays, passing only what differs."""
        if self._sent is None:
            self._pass(arrays)
            return
        highs, sent = self._highs, self._sent
        if self.matrix_changed:
            places = np.flatnonzero(arrays.matrix.data != sent.matrix.data)
            if places.size > PATCHED_COEFFICIENTS:
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

    def _pass(self, arrays: _Arrays) -> None:
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

    def add_rows(self, arrays: _Arrays, new: Program) -> None:
        self._append(new.matrix, new.row_lower, new.row_upper)
        self._sent = arrays.copy()

    def _append(self, matrix: sparse.csr_array, lower: Floats, upper: Floats) -> None:
        starts, data = matrix.indptr[:-1].astype(np.int32), matrix.data
        status = self._highs.addRows(len(lower), lower, upper, len(data), starts, matrix.indices, data)
        self._must(status, "add rows")

    def delete_rows(self, arrays: _Arrays, gone: Ints) -> None:
        self._must(self._highs.deleteRows(gone.size, gone.astype(np.int32)), "delete rows")
        self._sent = arrays.copy()

    # ---- solving
    def solve(
        self,
        arrays: _Arrays,
        limits: _Limits,
        start: tuple[Ints, Floats] | None,
        interrupt: Callable[[], bool] | None,
    ) -> tuple[Result, BaseException | None]:
        self._set_limits(limits)
        self.push(arrays)
        m = arrays.row_lower.size
        if limits.cutoff is not None:
            # As a row: HiGHS's own objective_bound has answered a maximisation with a wrong "Optimal".
            row = _int32(sparse.csr_array(arrays.cost[None, :]))
            rest = limits.cutoff - arrays.offset
            low, high = (rest, np.array([math.inf])) if arrays.maximise else (np.array([-math.inf]), rest)
            self._append(row, low, high)
        if start is not None and arrays.integer.any():
            # After every change, since each one discards the start.
            status = self._highs.setSolution(start[0].size, start[0].astype(np.int32), start[1])
            self._must(status, "take the start")
        self._log.clear()
        began = time.perf_counter()
        with _POOL.hold(self.profile.threads):
            cpu, stopped = self._run(interrupt)
            result = self._read(arrays, limits, seconds=time.perf_counter() - began, cpu_seconds=cpu, m=m)
        if limits.cutoff is not None:
            self._must(self._highs.deleteRows(1, np.array([m], dtype=np.int32)), "drop the cut-off row")
        return result, stopped

    def _set_limits(self, limits: _Limits) -> None:
        wanted = {
            "time_limit": limits.seconds,
            "mip_max_nodes": _NO_NODE_LIMIT if limits.nodes is None else limits.nodes,
            "mip_rel_gap": limits.relative_gap,
            "mip_abs_gap": limits.absolute_gap,
        }
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
            self._subscribed = True
        outcome: list[float] = []
        done = threading.Event()

        def work() -> None:
            try:
                outcome.append(self._run_here())
            finally:
                done.set()

        self._stop = interrupt is not None and bool(interrupt())
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

    def _run_here(self) -> float:
        clock = time.thread_time if self.profile.threads == 1 else time.process_time
        began = clock()
        status = self._highs.run()
        refused = status == self._api.HighsStatus.kError
        if refused and self._highs.getModelStatus().name == "kNotset" and _POOL.renew():
            # Other code of the process (Pyomo's own HiGHS interface) had set up a pool of another size.
            self._highs.run()
        return clock() - began

    def _read(self, arrays: _Arrays, limits: _Limits, seconds: float, cpu_seconds: float, m: int) -> Result:
        info = self._highs.getInfo()
        name = self._highs.getModelStatus().name
        status = _HIGHS_STATUS.get(name, "error")
        feasible = self._api.SolutionStatus.kSolutionStatusFeasible
        duals: dict[str, Any] = {}
        x = None
        if info.primal_solution_status == feasible and status in ("optimal", "feasible_limit", "interrupted"):
            solution = self._highs.getSolution()
            x = np.array(solution.col_value, dtype=float)
            if info.dual_solution_status == feasible and not arrays.integer.any():
                duals["row_duals"] = np.array(solution.row_dual, dtype=float)[:m]
                duals["reduced_costs"] = np.array(solution.col_dual, dtype=float)
        return _conclude(
            arrays,
            limits,
            status,
            x,
            bound=info.mip_dual_bound if arrays.integer.any() else math.nan,
            nodes=max(0, int(info.mip_node_count)),
            iterations=max(0, info.simplex_iteration_count) + max(0, info.ipm_iteration_count),
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            log="".join(self._log),
            **duals,
        )


_NO_NODE_LIMIT = 2**31 - 1


# ---------------------------------------------------------------------------------------------------- other solvers
class _PyomoSolver(_Solver):
    """Gurobi, SCIP or CBC through Pyomo's own interface, each solve from the current arrays."""

    def __init__(self, profile: Profile) -> None:
        raise SolverError(f"{profile.solver} is not wired yet.", "use a HiGHS profile.")

    def push(self, arrays: _Arrays) -> None:
        return None

    def add_rows(self, arrays: _Arrays, new: Program) -> None:
        return None

    def delete_rows(self, arrays: _Arrays, gone: Ints) -> None:
        return None

    def solve(
        self,
        arrays: _Arrays,
        limits: _Limits,
        start: tuple[Ints, Floats] | None,
        interrupt: Callable[[], bool] | None,
    ) -> tuple[Result, BaseException | None]:
        raise SolverError("not wired", "")
