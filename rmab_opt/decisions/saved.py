"""Decision files: what they hold, and the check that nothing in them is false; no solver and no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rmab_opt.actions import ActionSet, Constraint
from rmab_opt.decisions.objective import LinearObjective, NetworkObjective, Objective
from rmab_opt.decisions.priced import Priced
from rmab_opt.decisions.proof import Proof, ProofFile, back, layers_of, recheck, rows_of_set
from rmab_opt.decisions.question import Question
from rmab_opt.decisions.scale import least_value, scaled
from rmab_opt.errors import CapabilityError, LimitError, ModelError
from rmab_opt.problem import Problem, Table
from rmab_opt.records import read_object
from rmab_opt.solver import load_profile

__all__ = [
    "FORMAT",
    "DecisionFile",
    "Verification",
    "digest",
    "digests_of",
    "digests_of_problem",
    "digests_of_set",
    "parsed",
    "read_document",
    "read_saved",
    "saved_question",
    "verify",
]

File = TypeVar("File", bound=BaseModel)

FORMAT = 2

CLOSE = 1e-9
"""Numbers that agree so well, relative to value and unit, agree but for rounding on another machine."""

LOOSE = 1e-3
"""A wanted gap above this is said beside the word optimal: no shipped profile asks for so little."""

NEWER = ("soft", "point", "placed", "service", "earliest", "latest")
"""Fields of constraints that older files' digests do not know; where they say nothing they are left out."""

FIX = "give the file that `decide --out` wrote, or decide again."


Whole = Annotated[int, Field(ge=-(2**31), lt=2**31)]
"""A count or a state: JSON's integers have no end, an array's have."""


class DecisionFile(BaseModel):
    """A saved decision; unknown fields and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal[2]
    title: str
    action: list[str]
    assignment: list[dict[str, str]]
    value: float
    bound: float | None
    bound_kind: str
    solver_bound: float | None
    base: float
    unit: float
    gap: float | None
    relative_gap: float | None
    wanted: dict[str, float]
    violations: dict[str, list[str]]
    relaxed: str | None
    tight: dict[str, list[str]]
    encoding_error: float
    status: Literal["optimal", "solver_optimal", "limit", "heuristic"]
    solver: str
    nodes: Annotated[int, Field(ge=0, lt=2**63)]
    seconds: float
    period: Whole
    shared: dict[str, float] = {}
    notes: dict[str, Any] = {}
    ids: list[str]
    state: list[Whole]
    proof: ProofFile
    digests: dict[str, str]
    policy: str | None = None
    """Rule whose scores were maximised, where that is not the model's own objective."""
    prices: str | None = None
    """Prices of the rule from which its scores follow without a solver, packed; see :class:`Scores`."""
    belief: dict[str, list[float]] = {}
    """Chances of the states that were not known, by arm."""


class OldFile(BaseModel):
    """What a file of format 1 must hold: no proof, no digests."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    ids: list[str]
    state: list[Whole]
    action: list[str]
    value: float
    bound: float | None
    violations: dict[str, list[str]]
    gap: float | None = None
    relative_gap: float | None = None
    relaxed: str | None = None
    period: Whole = 0
    shared: dict[str, float] = {}
    assignment: list[dict[str, str]] = []


@dataclass(frozen=True)
class Verification:
    """Outcome of an independent re-check; ``ok`` only when every line of ``problems`` is absent.

    ``proven`` says whether the bound was proven again as well; otherwise it is the solver's word.
    """

    problems: tuple[str, ...]
    value: float
    proven: bool = False
    said: str = ""

    @property
    def ok(self) -> bool:
        """Whether the decision is what it says, as far as it can be checked."""
        return not self.problems

    @property
    def exit_code(self) -> int:
        """0: verified; 5: value and constraints only; 4: false."""
        return 4 if self.problems else 0 if self.proven else 5

    def __str__(self) -> str:
        if not self.ok:
            return "NOT verified:\n" + "\n".join(f"  {line}" for line in self.problems)
        if self.proven:
            return f"verified without a solver: {self.said}"
        return f"value and constraints verified ({self.value:.6g}); {self.said}"


# ---- digests
def digest(*parts: Any) -> str:
    """SHA-256, in hex, of arrays (shape, then little-endian numbers) and of canonical JSON of anything else."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            whole = part.dtype.kind in "iub"
            found.update(repr(part.shape).encode() + np.ascontiguousarray(part, "<i8" if whole else "<f8").tobytes())
        else:
            text = part if isinstance(part, str) else json.dumps(part, sort_keys=True, allow_nan=False, default=str)
            found.update(text.encode())
        found.update(b"\0")
    return found.hexdigest()


def _fields(value: Any) -> Any:
    """A constraint's fields for canonical JSON: tables by their cells, nothing by where it stands in memory."""
    if isinstance(value, Table):
        return {name: list(value.text(name)) for name in value.columns}
    if isinstance(value, BaseModel):
        return {type(value).__name__: _fields(dict(value))}
    if isinstance(value, Mapping):
        return {str(key): _fields(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        parts = [_fields(part) for part in value]
        return sorted(parts, key=repr) if isinstance(value, set | frozenset) else parts
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, bool | int | float | str) else type(value).__name__


def _said(constraint: Constraint) -> str:
    fields = {name: value for name, value in dict(constraint).items() if name not in NEWER or value is not None}
    return digest(type(constraint).__name__, constraint.describe(), _fields(fields))


def digests_of_problem(problem: Problem) -> dict[str, str]:
    """SHA-256 of the tables: horizon, discount, start, chances and rewards."""
    start = np.zeros(0) if problem.start is None else np.asarray(problem.start)
    tables: list[Any] = [f"{problem.horizon} {float(problem.discount)!r}", start]
    try:
        tables += list(problem.dynamics.tabular())
    except (CapabilityError, AttributeError, MemoryError):
        tables.append(type(problem.dynamics).__name__)
    return {"tables": digest(*tables)}


def digests_of_set(actions: ActionSet) -> dict[str, str]:
    """SHA-256 of the ids, the rows and every constraint."""
    rows = rows_of_set(actions)
    ends = (rows.row_lower, rows.row_upper, rows.lower, rows.upper)
    parts = (rows.indptr, rows.indices, rows.data, *ends, rows.whole.astype(np.int64), rows.act)
    found = {"ids": digest(list(actions.columns.ids)), "rows": digest(*parts)}
    for name, constraint in actions.constraints.items():
        found[f"constraint {name}"] = _said(constraint)
    for name, constraint in actions.preferences.soft.items():
        found[f"preference {name}"] = _said(constraint)
    return found


def digests_of(question: Question) -> dict[str, str]:
    """SHA-256 of all that a decision rests on, by name: tables, state, ids, rows, every constraint, objective."""
    problem, objective, situation = question.problem, question.objective, question.situation
    found = digests_of_problem(problem) | digests_of_set(question.actions)
    found["state"] = digest(question.state, str(question.period), problem.shared_values(question.shared))
    if isinstance(objective, Priced):
        objective = objective.inner
    if isinstance(objective, LinearObjective) and objective.linear(situation):
        gain, base = objective.coefficients(situation)
        found["objective"] = digest("linear", gain, repr(float(base)))
    elif isinstance(objective, NetworkObjective):
        net = layers_of(objective.network(situation))
        parts = [part for layer in (net.weight, net.bias, net.slope, net.gain) for part in layer]
        found["objective"] = digest("network", *parts, net.readout, net.skip, repr(net.constant))
    else:
        found["objective"] = digest(type(objective).__name__)
    return found


# ---- the check
def verify(
    decision: Any,
    problem: Problem,
    actions: ActionSet,
    objective: Objective,
    *,
    relax: str | None = None,
) -> Verification:
    """Re-check a decision, or a saved one, without a solver: the first thing that fails is named.

    In this order: format, digests, ids, action, assignment, tight limits, value, proof, status.

    Parameters
    ----------
    decision
        A decision, its document, or the path of a file that ``decide --out`` wrote.
    relax
        Constraint that may be broken, when the decision says that it was loosened.

    Raises
    ------
    ModelError
        When the file is not a saved decision, has a field of another type, or names other columns than the model.
    """
    return _judged(*saved_question(decision, problem, actions, objective, relax=relax))


def saved_question(
    decision: Any, problem: Problem, actions: ActionSet, objective: Objective, *, relax: str | None = None
) -> tuple[DecisionFile | OldFile, Question]:
    """A saved decision as its fields, and the question that it answers; parameters and errors as :func:`verify`."""
    if hasattr(decision, "to_json"):
        document: Mapping[str, Any] = json.loads(decision.to_json())
    else:
        document = decision if isinstance(decision, Mapping) else read_document(Path(decision), "decision", FIX)
    saved = read_saved(document)
    if tuple(saved.ids) != actions.columns.ids:
        raise ModelError("the decision was made for other columns than this model has", "verify it with its own model.")
    unknown = [name for name in saved.action if name not in actions.columns]
    if unknown:
        raise ModelError(
            f"action: the decision names {unknown[0]!r}, which the model does not have", "verify it with its own model."
        )
    if saved.period < 0:
        raise ModelError(f"period is {saved.period}", FIX)
    state = problem.check_state(np.asarray(saved.state, dtype=np.int64))
    shared = problem.shared_array(saved.shared, "the decision's shared")
    here = actions.at(saved.period, problem.shared_values(shared))
    question = Question(
        problem, here, objective, state, load_profile("default"), saved.period, relax=relax, shared=shared
    ).about(objective)
    return saved, question


def read_saved(given: Path | Mapping[str, Any]) -> DecisionFile | OldFile:
    """A saved decision, from its file or its document, with every field of the type it must have.

    Raises
    ------
    ModelError
        When it is none, or of a format that this version does not read; names the field.
    """
    document = given if isinstance(given, Mapping) else read_document(given, "decision", FIX)
    if "format" not in document:
        # A newer file without it would pass for an old one, and lose its proof without a word.
        raise ModelError("decision lacks format", FIX)
    version = document["format"]
    if isinstance(version, bool) or version not in (1, FORMAT):
        raise ModelError(f"decision: format is {version!r}", f"this version reads formats 1 and {FORMAT}.")
    if version == FORMAT:
        return parsed(document, DecisionFile, "decision", FIX)
    return parsed(document, OldFile, "decision", FIX)


def parsed(document: Mapping[str, Any], kind: type[File], what: str, fix: str) -> File:
    """A document as what it should be.

    Raises
    ------
    ModelError
        When a field is missing, unknown or of another type; names it.
    """
    try:
        return kind.model_validate(dict(document))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        lacking = "lacks" if first["type"] == "missing" else "is wrong:"
        said = place if first["type"] == "missing" else f"{first['msg'].lower()} at {place}"
        raise ModelError(f"{what} {lacking} {said}", fix) from None


def _judged(saved: DecisionFile | OldFile, question: Question) -> Verification:
    actions = question.actions
    action = np.zeros(len(actions), dtype=np.int64)
    places = actions.columns.indices(list(saved.action))
    action[places] = 1
    value = question.objective.value(action, question.situation)
    unit, _asked = scaled(question)
    mass = abs(value) + abs(unit.base) + unit.size

    def fail(what: str) -> Verification:
        return Verification((what,), value)

    if isinstance(saved, DecisionFile):
        own = digests_of(question)
        for name in sorted(set(own) | set(saved.digests)):
            if own.get(name) != saved.digests.get(name):
                return fail(f"digests.{name}: the decision was made for another one than this model's")
    if len(set(saved.action)) < len(saved.action):
        return fail("action: an id stands twice")
    broken = actions.violations(action, saved.assignment)
    if saved.relaxed is not None and saved.relaxed != question.relax:
        return fail(f"relaxed: {saved.relaxed} was loosened; say so to accept that: --relax {saved.relaxed}")
    for name, sentences in broken.items():
        if name != saved.relaxed:
            return fail(f"action: {name}: {sentences[0]}")
    if broken != saved.violations:
        return fail("violations: not those of this action")
    fault = _assigned(saved, actions, action)
    if fault:
        return fail(fault)
    if not abs(value - saved.value) <= CLOSE * mass:
        return fail(f"value is {value:.9g}, the decision says {saved.value:.9g}")
    if saved.bound is not None and not saved.bound >= value - CLOSE * mass:
        return fail(f"bound: value {value:.9g} is above the bound {saved.bound:.9g} that the decision claims")
    if saved.gap is not None and (
        saved.bound is None or not abs(saved.gap - (saved.bound - saved.value)) <= CLOSE * mass
    ):
        return fail(f"gap: {saved.gap:.6g} is not bound less value")
    if isinstance(saved, OldFile):
        if saved.relative_gap is not None and saved.relative_gap < 0:
            return fail(f"relative_gap: {saved.relative_gap:.6g} is negative")
        return Verification((), value, False, "the bound is the solver's word: not re-checked (a file without a proof)")
    return _proven(saved, question, value, mass)


def _assigned(saved: DecisionFile | OldFile, actions: ActionSet, action: np.ndarray) -> str:
    """What is wrong with who does what, and with the limits said to be used up."""
    # With a constraint loosened there may be no way to serve the action: then only what was written is right.
    fault = None if saved.relaxed else actions.misassigned(saved.assignment, action)
    if fault is not None:
        return f"assignment: {fault}"
    if isinstance(saved, DecisionFile) and saved.tight != actions.tight(action):
        return "tight: not the limits that this action uses up"
    return ""


def _proven(saved: DecisionFile, question: Question, value: float, mass: float) -> Verification:
    """The proof, the numbers that follow from it, and the status."""
    unit, asked = scaled(question)

    def fail(what: str) -> Verification:
        return Verification((what,), value)

    proof = saved.proof.proof()
    if saved.bound_kind != proof.kind:
        return fail(f"bound_kind is {saved.bound_kind}, the proof's kind {proof.kind}")
    if saved.unit != unit.size:
        return fail(f"unit is {saved.unit!r}, the model's {unit.size!r}")
    if (saved.bound is None) != (saved.proof.proven_bound is None):
        return fail("bound: not the proof's")
    if saved.bound is not None:
        assert saved.proof.proven_bound is not None
        if not abs(saved.bound - max(saved.proof.proven_bound, value)) <= CLOSE * mass:
            return fail(f"bound is {saved.bound:.9g}, its proof says {saved.proof.proven_bound:.9g}")
    if proof.kind in ("none", "gains"):
        if saved.status == "optimal" and proof.kind == "none":
            return fail("status is optimal without a proof")
        word = "its bound rests on an assumption" if proof.kind == "gains" else "the bound is the solver's word"
        return Verification((), value, False, f"{word}: not re-checked")
    try:
        found = back(_with(proof, recheck(proof, asked)), unit).bound
    except LimitError as error:
        return Verification((), value, False, f"the bound is not re-checked: {error.message}")
    assert saved.bound is not None
    if found > saved.bound + CLOSE * mass:
        return fail(f"proof: it proves {found:.9g}, not the bound {saved.bound:.9g}")
    if proof.kind != "tree" and found < saved.bound - 1e-6 * mass:
        return fail(f"bound is {saved.bound:.9g}, its proof gives {max(found, value):.9g}")
    least = least_value(asked) * unit.size + unit.base
    if not abs(saved.base - least) <= CLOSE * mass:
        return fail(f"base is {saved.base:.9g}, the least action's value {least:.9g}")
    span = max(abs(value - least), abs(saved.bound - least))
    gap = max(0.0, saved.bound - value)
    if saved.relative_gap is None or abs(saved.relative_gap * span - gap) > CLOSE * mass:
        return fail(f"relative_gap: {saved.relative_gap} does not follow from value and bound")
    allowed = max(saved.wanted.get("relative_gap", 0.0) * span, saved.wanted.get("absolute_gap", 0.0) * unit.size)
    if saved.status == "optimal" and gap > allowed + CLOSE * (span + mass):
        return fail(f"status is optimal, the proven gap is {gap:.6g}")
    said = f"nothing above {saved.bound:.6g} by {proof.words()}"
    if saved.status == "optimal":
        said += f": optimal within {100 * gap / span if span else 0.0:.2g} % of what is decided"
        wanted = saved.wanted.get("relative_gap", 0.0)
        said += f" (no more than {100 * wanted:.2g} % was asked for)" if wanted > LOOSE else ""
    elif saved.solver_bound is not None:
        said += "; that it is best is the solver's word" if saved.status == "solver_optimal" else "; best found"
    if saved.relaxed:
        said += f"; NOT within the model's constraints: {saved.relaxed} relaxed"
    return Verification((), value, True, f"constraints ok, value {value:.6g}, {said}")


def _with(proof: Proof, bound: float) -> Proof:
    return replace(proof, bound=bound)


def read_document(path: Path, what: str, fix: str) -> Mapping[str, Any]:
    """What a saved file holds.

    Raises
    ------
    ModelError
        When it is no file of JSON; names it.
    """
    return read_object(path, f"saved {what}", fix)
