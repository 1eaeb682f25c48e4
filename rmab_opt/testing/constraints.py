"""What a constraint kind promises: its rows, its check and its sentences say the same."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyomo.environ as pyo
from pydantic import ValidationError

from rmab_opt.actions import ActionSet, Columns, Constraint
from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.problem import Arms
from rmab_opt.testing.contract import Promise, copied, keep, require, same
from rmab_opt.testing.examples import cohort

__all__ = ["CONSTRAINT_PROMISES", "check_constraint"]

MOST_COLUMNS = 10
"""Columns of which every set is tried: 1,024 actions."""

DRAWS = 40


@dataclass(frozen=True)
class ConstraintCase:
    """A constraint over columns, with those that it names beside it."""

    given: Constraint
    columns: Columns
    beside: Mapping[str, Constraint] = field(default_factory=dict)

    def set(self, columns: Columns | None = None, **more: Constraint) -> ActionSet:
        """The set of this constraint and of what stands beside it."""
        return ActionSet(self.columns if columns is None else columns, {**self.beside, "thing": self.given, **more})

    @cached_property
    def actions(self) -> ActionSet:
        """:meth:`set` over the case's own columns."""
        return self.set()

    @property
    def constraint(self) -> Constraint:
        """The one that is checked, as it stands in the set."""
        return self.actions.constraints["thing"]

    @cached_property
    def everything(self) -> np.ndarray:
        """Every 0/1 vector, (2**C, C)."""
        return np.array(list(itertools.product((0, 1), repeat=len(self.columns))), dtype=np.int64)

    @cached_property
    def allowed(self) -> np.ndarray:
        """Which of them the check lets pass, bool (2**C,)."""
        return _allowed(self.actions, self.everything)


def _allowed(actions: ActionSet, candidates: np.ndarray) -> np.ndarray:
    return np.array([not actions.violations(action) for action in candidates])


def rows_and_check_agree(case: ConstraintCase) -> None:
    """``build`` lets an action pass exactly where ``violations`` finds nothing, for every action."""
    model, session = case.actions.compiled
    for action, allowed in zip(case.everything, case.allowed, strict=True):
        # The score's optimum is the action itself exactly where the rows let it pass.
        session.parameters["score"][:] = np.where(action == 1, 1.0, -1.0)
        result = session.solve()
        best = None if result.x is None or not result.has_solution else result.x[session.index(model.act)]
        passes = best is not None and same(np.rint(best).astype(np.int64), action)
        what = f"action {action.tolist()} passes the rows: {passes}, the check: {bool(allowed)}"
        require(passes == allowed, what)


def sampled_and_solved_are_allowed(case: ConstraintCase) -> None:
    """Sampled actions pass the check, and a solved one is the best of all that do."""
    rng = np.random.default_rng(0)
    if not case.allowed.any():
        try:
            case.actions.sample(rng)
        except InfeasibleError as error:
            require("thing" in str(error), f"the message of an empty set does not name the constraint: {error}")
            return
        require(False, "an empty set gave an action")
    for action in case.actions.sample(rng, DRAWS):
        require(not list(case.constraint.violations(action, case.columns)), f"sampled {action.tolist()} is forbidden")
    model, session = case.actions.compiled
    for _ in range(DRAWS):
        score = rng.normal(size=len(case.columns))
        session.parameters["score"][:] = score
        result = session.solve()
        found = np.full(len(model.act), -1.0) if result.x is None else result.x[session.index(model.act)]
        require(result.has_solution, f"no optimum: {result.status}")
        action = np.rint(found).astype(np.int64)
        require(not list(case.constraint.violations(action, case.columns)), f"solved {action.tolist()} is forbidden")
        best = (case.everything[case.allowed] @ score).max()
        require(abs(action @ score - best) <= 1e-6, f"solved {action @ score:.9g}, the best allowed is {best:.9g}")


def adds_to_its_block_only(case: ConstraintCase) -> None:
    """``build`` adds nothing outside its block and neither fixes nor bounds the action's variables."""
    model = pyo.ConcreteModel()
    model.act = pyo.Var(range(len(case.columns)), domain=pyo.Binary)
    model.block = pyo.Block(case.actions.order)
    others = [name for name in case.actions.order if name != "thing"]
    for name in others:
        case.actions.constraints[name].build(model.block[name], model.act, case.columns)

    def parts() -> list[str]:
        return [part.name for name in others for part in model.block[name].component_objects()]

    before = parts()
    case.constraint.build(model.block["thing"], model.act, case.columns)
    require(parts() == before, "added to the block of another constraint")
    outside = [part.name for part in model.component_objects(descend_into=False) if part.name not in ("act", "block")]
    outside = [name for name in outside if not name.startswith("act_")]
    require(not outside, f"added {', '.join(outside)} outside")
    for variable in model.act.values():
        require(not variable.fixed, f"{variable.name} is fixed")
        require(tuple(variable.bounds) == (0, 1), f"{variable.name} has bounds {variable.bounds}")


def monotone_means_it(case: ConstraintCase) -> None:
    """Where ``monotone`` says so, dropping a chosen column never breaks the constraint."""
    if not case.constraint.monotone(case.columns):
        return
    place = {tuple(action): allowed for action, allowed in zip(case.everything.tolist(), case.allowed, strict=True)}
    for action in case.everything[case.allowed].tolist():
        for column in np.flatnonzero(action):
            fewer = [*action[:column], 0, *action[column + 1 :]]
            require(place[tuple(fewer)], f"{action} is allowed, without column {column} it is not")


def says_sentences(case: ConstraintCase) -> None:
    """``describe`` is one line; every violation is a line of text, the same each time, and the action is left alone."""
    line = case.constraint.describe()
    require(isinstance(line, str) and line.strip() and "\n" not in line, f"describe says {line!r}")
    for action in case.everything[:: max(1, len(case.everything) // DRAWS)]:
        given = action.copy()
        found = list(case.constraint.violations(given, case.columns))
        require(all(isinstance(text, str) and text.strip() for text in found), f"violations of {action}: {found!r}")
        require(found == list(case.constraint.violations(given, case.columns)), f"{action} is judged otherwise again")
        require(same(given, action), f"the check changed the action {action}")


def pickles(case: ConstraintCase) -> None:
    """A copy in another process judges alike."""
    back = copied(case.constraint)
    require(back.describe() == case.constraint.describe(), "the copy describes itself otherwise")
    again = _allowed(replace(case, given=back).set(copied(case.columns)), case.everything)
    require(same(again, case.allowed), "the copy judges otherwise")


def is_frozen(case: ConstraintCase) -> None:
    """Fields cannot be changed, and unknown ones are refused by name."""
    for name in type(case.constraint).model_fields:
        try:
            setattr(case.constraint, name, getattr(case.constraint, name))
        except ValidationError:
            continue
        require(False, f"field {name} can be changed")
    try:
        type(case.constraint).model_validate({"no_such_field": 1})
    except ValidationError as error:
        require("no_such_field" in str(error), "an unknown field is refused without its name")
    else:
        require(False, "an unknown field is accepted")


def order_does_not_matter(case: ConstraintCase) -> None:
    """The columns in another order are judged alike."""
    order = np.random.default_rng(1).permutation(len(case.columns))
    if type(case.columns) is not Columns:
        return
    columns = case.columns
    turned = Columns(columns.arms, columns.sheet.take(order), columns.effect[order, :], exclusive=columns.exclusive)
    again = _allowed(case.set(turned), case.everything[:, order])
    bad = np.flatnonzero(again != case.allowed)
    require(not bad.size, f"{case.everything[bad[:1]].tolist()} is judged otherwise in order {order.tolist()}")


def twice_is_once(case: ConstraintCase) -> None:
    """The same constraint under a second name changes nothing."""
    twice = case.set(again=case.given)
    require(same(_allowed(twice, case.everything), case.allowed), "the check differs")
    once, both = case.actions.enumerate(), twice.enumerate()
    if once is None or both is None:
        require(once is both, "only one of the two sets is listed")
        return
    require(same(once, both), "the listed actions differ")
    require(len(once) == case.allowed.sum(), f"{len(once)} actions are listed, {case.allowed.sum()} are allowed")


def names_what_is_missing(case: ConstraintCase) -> None:
    """Over arms without the attributes that it needs, the constraint fits or is refused by a message with its name."""
    bare = Columns.of_arms(Arms.from_arrays(3))
    try:
        case.set(bare)
    except ModelError as error:
        named = any(f"constraints.{name}:" in str(error) for name in ("thing", *case.beside))
        require(named, f"the message does not name the constraint: {error}")


def assigns_chosen_columns(case: ConstraintCase) -> None:
    """``assignment`` speaks of chosen columns by their names."""
    for action in case.everything[case.allowed][:DRAWS]:
        chosen = {case.columns.ids[c] for c in np.flatnonzero(action)}
        named = {row["column"] for row in case.constraint.assignment(action, case.columns)}
        require(named <= chosen, f"{sorted(named - chosen)} are assigned and not chosen")


CONSTRAINT_PROMISES: tuple[Promise, ...] = (
    rows_and_check_agree,
    sampled_and_solved_are_allowed,
    adds_to_its_block_only,
    monotone_means_it,
    says_sentences,
    pickles,
    is_frozen,
    order_does_not_matter,
    twice_is_once,
    names_what_is_missing,
    assigns_chosen_columns,
)


def check_constraint(
    constraint: Constraint,
    columns: Columns | Arms | None = None,
    *,
    beside: Mapping[str, Constraint] | None = None,
    promises: Sequence[Promise] = CONSTRAINT_PROMISES,
) -> None:
    """Hold a constraint to what every kind promises.

    Parameters
    ----------
    constraint
        With its fields filled, e.g. ``GroupLimit(attribute="village", at_most=1)``.
    columns
        At most ten, so that every action is tried; by default those of
        :func:`rmab_opt.testing.examples.cohort`, whose attributes are village, cost, load and slots.
    beside
        Constraints that this one names, by their names.

    Raises
    ------
    ContractError
        At the first promise that does not hold; names the kind and the promise.
    ModelError
        When there are too many columns to try every action.
    """
    over = cohort() if columns is None else columns
    over = Columns.of_arms(over) if isinstance(over, Arms) else over
    if len(over) > MOST_COLUMNS:
        raise ModelError(f"{len(over)} columns", f"check over at most {MOST_COLUMNS}, every action is tried.")
    name = f"constraint kind {constraint.kind or type(constraint).__name__!r}"
    keep(name, ConstraintCase(constraint, over, beside or {}), promises)
