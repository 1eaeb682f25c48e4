"""From a Pyomo model to arrays that stay open in its mutable Params."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.overdue import checkpoint
from rmab_opt.solver.profile import nearest
from rmab_opt.solver.program import KINDS, Arrays, Floats, Ints, Names, Program, demand_numbers


@dataclass
class Compiled:
    """A Pyomo model as arrays, with the way back from its components and forward from its mutable Params."""

    program: Program
    names: Names
    parameters: Parameters
    dependence: Dependence | None


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
            # A scalar Param without a value lists no entries.
            entries = list(component.values()) if component.is_indexed() else [component]
            self._parts[component.name] = slice(len(self.data), len(self.data) + len(entries))
            self.data += entries
        self.vector: Floats = np.array([_param_value(entry) for entry in self.data], dtype=float)

    def __getitem__(self, name: str) -> Floats:
        if name not in self._parts:
            known = list(self._parts)
            raise ModelError(
                f"the model has no mutable Param {name!r}{nearest(name, known)}.",
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
class Dependence:
    """Which numbers of the program depend on Params: t = constant + slope @ p, and the few that are not affine.

    A target is one number of the program: (kind, position in that kind's array).
    """

    pieces: list[tuple[str, Ints, slice]]
    """Kind, positions in its array, and the part of t they take."""
    constant: Floats
    slope: sparse.csr_array
    expressions: list[tuple[int, Any, Any, list[int]]]
    """The others: position in t, Pyomo expression, the Param of its own that it is written in, and their slots."""

    def values(self, parameters: Parameters) -> Floats:
        """All targets under the current parameter values, shape (k,)."""
        result = self.constant + self.slope @ parameters.vector
        for position, expression, own, slots in self.expressions:
            own.store_values(dict(enumerate(parameters.vector[slots].tolist())))
            try:
                result[position] = float(expression(exception=True))
            except (ArithmeticError, ValueError, TypeError):
                # Outside the expression's domain (1/0, the root of -1): refused with the Param's name by the session.
                result[position] = math.nan
        return result

    def names_of(self, target: int, parameters: Parameters) -> str:
        """The Params with unusable values that a target depends on; all it depends on when each looks fine alone."""
        slots = self.slope.indices[self.slope.indptr[target] : self.slope.indptr[target + 1]].tolist()
        slots += [slot for position, *_, mentioned in self.expressions if position == target for slot in mentioned]
        wrong = [slot for slot in slots if not math.isfinite(parameters.vector[slot])]
        shown = [f"{parameters.data[slot].name} = {parameters.vector[slot]}" for slot in (wrong or slots)[:3]]
        return f"Param {', '.join(shown)}"


def compile_model(model: Any) -> Compiled:
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
    # By identity, since a Reference lists the same variables a second time.
    found = {id(variable): variable for variable in model.component_data_objects(pyo.Var, descend_into=True)}
    variables = list(found.values())
    components = [param for param in model.model().component_objects(pyo.Param, descend_into=True) if param.mutable]
    parameters = Parameters(components)
    slots = {id(entry): slot for slot, entry in enumerate(parameters.data)}
    walked = _with_parameters(model, objective, slots)
    builder = Builder(variables, slots)
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
            checkpoint()
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
        checkpoint()
        builder.add_bounds(column, variable)
    return builder.finish(objective.sense == pyo.maximize, parameters)


def _refuse_unsupported(model: Any) -> None:
    """Stop at components that no row of a linear program can say; Pyomo's HiGHS interfaces silently ignore them."""
    import pyomo.environ as pyo
    from pyomo.core.base.piecewise import Piecewise
    from pyomo.gdp import Disjunct

    understood = {"Block", "Constraint", "Objective", "Var", "Param", "Expression", "Set", "RangeSet"}
    # These carry nothing that a row would have to say.
    understood |= {"Suffix", "BooleanVar", "Port", "ExternalFunction"}
    remedies = {
        "Disjunct": "apply TransformationFactory('gdp.bigm') or 'gdp.hull' to the model first",
        "Disjunction": "apply TransformationFactory('gdp.bigm') or 'gdp.hull' to the model first",
        "LogicalConstraint": "apply TransformationFactory('core.logical_to_linear') to the model first",
        "SOSConstraint": "write it with binaries; HiGHS has no special ordered sets",
        "Complementarity": "apply TransformationFactory('mpec.simple_disjunction') and 'gdp.bigm' to the model first",
        "PiecewiseLinearFunction": "apply TransformationFactory('contrib.piecewise.incremental') to the model first",
    }
    for component in model.component_objects(active=True, descend_into=(pyo.Block, Disjunct)):
        kind = component.ctype.__name__
        if isinstance(component, Piecewise) and str(getattr(component, "_pw_rep", "")).endswith("BIGM_BIN"):
            raise ModelError(f"{component.name}: Piecewise with BIGM_BIN has wrong optima.", "use pw_repn='INC'.")
        if kind not in understood:
            remedy = remedies.get(kind, "write it with linear constraints")
            raise ModelError(f"{component.name}: a {kind} is not part of a linear program.", f"{remedy}.")


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


class Builder:
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

    def finish(self, maximise: bool, parameters: Parameters) -> Compiled:
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
        arrays = Arrays(
            cost, matrix, row_lower, row_upper, lower, upper, integer > 0, maximise, np.array([self.offset])
        )
        names = Names(self.constraints, self.variables)
        demand_numbers(arrays, names)
        dependence = self.dependence(rows * n + columns, n, len(parameters.vector))
        return Compiled(arrays.program(), names, parameters, dependence)

    def dependence(self, keys: Ints, n: int, n_slots: int) -> Dependence | None:
        """The targets by kind; ``keys`` are row * n + column of the matrix entries, sorted."""
        if not self.targets:
            return None
        ordered = sorted(self.targets, key=lambda target: KINDS.index(target[0]))
        pieces, start = [], 0
        for kind in KINDS:
            found = [target[1] for target in ordered if target[0] == kind]
            if kind == "data":
                found = np.searchsorted(keys, [row * n + column for row, column in found]).tolist()
            if found:
                pieces.append((kind, np.array(found, dtype=np.int64), slice(start, start + len(found))))
                start += len(found)
        entries = [(i, slot, slope) for i, target in enumerate(ordered) for slot, slope in target[3].items()]
        which, slots, slopes = (np.array(part) for part in zip(*entries, strict=True)) if entries else ([], [], [])
        return Dependence(
            pieces=pieces,
            constant=np.array([target[2] for target in ordered]),
            slope=sparse.csr_array((slopes, (which, slots)), shape=(len(ordered), n_slots), dtype=float),
            expressions=[(i, *self.own_copy(target[4])) for i, target in enumerate(ordered) if target[4] is not None],
        )

    def own_copy(self, expression: Any) -> tuple[Any, Any, list[int]]:
        """The expression over a Param of its own, so that evaluating it neither reads nor writes the model's."""
        import pyomo.environ as pyo
        from pyomo.core.expr import identify_mutable_parameters, replace_expressions

        entries = [entry for entry in identify_mutable_parameters(expression) if id(entry) in self.slots]
        own = pyo.Param(range(len(entries)), initialize=1.0, mutable=True, within=pyo.Any)
        own.construct()
        swapped = replace_expressions(expression, {id(entry): own[i] for i, entry in enumerate(entries)})
        return swapped, own, [self.slots[id(entry)] for entry in entries]


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
