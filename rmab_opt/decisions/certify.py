"""The only place where a :class:`Decision` is made: a question and a proposal, every claim checked again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rmab_opt.decisions.decision import Decision
from rmab_opt.decisions.objective import NetworkObjective
from rmab_opt.decisions.proof import Effort, back, prove, sampled
from rmab_opt.decisions.question import Proposal, Question, Status
from rmab_opt.decisions.scale import Unit, least_value, scaled
from rmab_opt.errors import CertificateError, SolverError
from rmab_opt.solver import Profile

__all__ = ["CLOSE", "allowed_gap", "certify"]

VALUE_TOLERANCE = 1e-4
"""Claimed against re-computed value, relative to the larger of the unit and the value: a hundred times the solver's
feasibility tolerance. What is printed is re-computed either way."""

CLOSE = 1e-9
"""Proofs that come so near, relative to what is decided, are exact but for rounding."""

SOLVER_CLOSE = 1e-6
"""A solver's own tolerances: how far off its bound may be when it calls an answer optimal. It proves nothing."""

LIST_EFFORT, TREE_EFFORT = (1.0, 1.0), (20.0, 2.0)
"""Without ``proof_seconds``: at most so many times what the answer took, at least so many seconds. A network's tree is
looked at again without anything that the search knew, which took 0.4 to 16 times its time on the argmax benchmark."""


def certify(
    question: Question,
    proposal: Proposal,
    *,
    seconds: float = 0.0,
    answer: Callable[[Question], Decision] | None = None,
    in_unit: tuple[Unit, Question] | None = None,
) -> Decision:
    """The decision, when constraints and value survive their re-check; its bound is proven here, never taken over.

    Parameters
    ----------
    proposal
        Its action is held against every constraint; its value is computed anew; its bound is a claim, kept beside the
        proven one as long as no allowed action at hand is worth more.
    seconds
        That the way to it took.
    answer
        Answers further questions about this decision; without it they cannot be asked.
    in_unit
        ``scaled(question)`` where it is at hand.

    Raises
    ------
    ModelError
        When the action is no 0/1 vector over the columns.
    CertificateError
        When a claim does not hold; names the constraint or the numbers.
    SolverError
        When a limit stopped the way and the profile says to raise then.
    """
    actions, situation = question.actions, question.situation
    action, violations = _allowed(question, proposal)
    # Only now: an action that breaks a limit may have no value, such as two actions of one arm.
    value = question.objective.value(action, situation)
    claims = proposal.proof != "none" or proposal.value is not None
    unit, asked = (scaled(question) if in_unit is None else in_unit) if claims else (Unit(), question)
    own = (value - unit.base) / unit.size
    known = _known(question) if question.plain and claims else value
    proposal = _held(question, proposal, unit, value, known)
    claim = np.inf if np.isnan(proposal.bound) else proposal.bound
    least = least_value(asked) if claims and question.plain else 0.0
    enough = own + allowed_gap(question.profile, own, own, least)
    proof = back(prove(asked, proposal, own, enough, _proof_effort(question, seconds)), unit)
    if max(value, known) > proof.bound:
        raise CertificateError(
            f"an allowed action is worth {max(value, known):.9g}, above the proven bound {proof.bound:.9g}",
            "the constraint's rows and its check disagree, or the code is wrong; report this with the model file.",
        )
    status = _status(question, proposal, unit, own, (proof.bound - unit.base) / unit.size, least)
    if status == "limit" and question.profile.at_limit == "raise":
        raise SolverError(
            f"stopped at a limit with value {value:.6g} and bound {min(proof.bound, claim):.6g}",
            "give more seconds, or use a profile with at_limit = 'best_with_gap'.",
        )
    return Decision(
        ids=actions.columns.ids,
        action=action,
        state=question.state.copy(),
        value=value,
        bound=max(proof.bound, value),
        encoding_error=0.0 if proposal.value is None else abs(proposal.value - value),
        violations=violations,
        status=status,
        solver=proposal.by,
        seconds=seconds,
        base=unit.base + least * unit.size,
        solver_bound=max(claim, value) if np.isfinite(claim) and proposal.proof in ("dual", "search") else None,
        proof=proof,
        unit=unit.size,
        assignment=actions.assignment(action, proposal.witness),
        tight=actions.tight(action),
        relaxed=question.relax if violations else None,
        nodes=proposal.nodes,
        period=question.period,
        shared=question.problem.shared_values(question.shared),
        title=question.title,
        notes={**question.objective.remarks(action, situation), **proposal.remarks},
        _question=question,
        _answer=answer,
    )


def _allowed(question: Question, proposal: Proposal) -> tuple[np.ndarray, dict[str, list[str]]]:
    """The proposal's action, which breaks nothing but what may be relaxed, and what it breaks."""
    actions = question.actions
    action = actions.check_action(proposal.action)
    action.flags.writeable = False
    violations = actions.violations(action, proposal.witness)
    unexpected = {name: said for name, said in violations.items() if name != question.relax}
    if unexpected:
        name, said = next(iter(unexpected.items()))
        raise CertificateError(
            f"the answer did not survive its re-check: {proposal.by or 'the proposal'} breaks {name}: {said[0]}",
            "repair who proposed it; for a shipped way report this with the model file.",
        )
    return action, violations


def _held(question: Question, proposal: Proposal, unit: Unit, value: float, known: float) -> Proposal:
    """The proposal, when its claims hold against the recomputed value and other allowed actions at hand.

    One-sided: what is worth more than was claimed is taken at its own value; a claim of more was wrong. A solver's
    bound below the value of an allowed action is dropped and named, since the proof stands without it; where a network
    was rewritten as a program such a bound says that the program is another one, and is an error.
    """
    tolerance = VALUE_TOLERANCE * unit.size * max(1.0, abs((value - unit.base) / unit.size))
    claimed = value if proposal.value is None else proposal.value
    claim = np.inf if np.isnan(proposal.bound) else proposal.bound
    low = max(value, known) > claim + tolerance
    if low and proposal.proof == "dual" and not isinstance(question.objective, NetworkObjective):
        said = f"its bound {claim:.9g} lies below the value of an allowed action and counts for nothing"
        proposal, low = replace(proposal, bound=np.inf, remarks={**proposal.remarks, "solver": said}), False
    if claimed - value > tolerance or not np.isfinite(value) or low:
        raise CertificateError(
            "the answer did not survive its re-check: "
            f"claimed {claimed:.8g}, re-computed {value:.8g}, bound {claim:.8g}"
            + (f", another allowed action {known:.8g}" if known > value else ""),
            "scale the network's weights or loosen its bounds; report this with the model file.",
        )
    return proposal


def allowed_gap(profile: Profile, value: float, bound: float, least: float) -> float:
    """The gap up to which an action counts as optimal: the profile's, of what is decided; all in one unit."""
    span = max(abs(value - least), abs(bound - least) if np.isfinite(bound) else 0.0)
    return max(profile.absolute_gap, profile.relative_gap * span, CLOSE * span)


def _status(question: Question, proposal: Proposal, unit: Unit, value: float, bound: float, least: float) -> Status:
    """What the numbers come to; the claims of the proposer only tell the other three apart."""
    if question.plain and bound - value <= allowed_gap(question.profile, value, bound, least):
        return "optimal"
    if proposal.status == "optimal" and np.isfinite(proposal.bound):
        claim = (proposal.bound - unit.base) / unit.size
        if claim - value <= 2 * allowed_gap(question.profile, value, claim, least) + SOLVER_CLOSE * (1.0 + abs(value)):
            return "solver_optimal"
    return "heuristic" if proposal.status == "heuristic" else "limit"


def _proof_effort(question: Question, spent: float) -> Effort:
    """What lists and trees may take; nothing for most of many decisions."""
    profile = question.profile
    if not sampled(question):
        return Effort(0.0)
    share, least = TREE_EFFORT if isinstance(question.objective, NetworkObjective) else LIST_EFFORT
    if profile.proof_nodes is not None:
        wanted, nodes = np.inf if profile.proof_nodes else 0.0, profile.proof_nodes
    else:
        wanted = max(least, share * spent) if profile.proof_seconds is None else profile.proof_seconds
        nodes = None
    return Effort(min(wanted, question.left), nodes)


def _known(question: Question) -> float:
    """The most that a few allowed actions are worth: bounds of networks are held against them."""
    if not isinstance(question.objective, NetworkObjective) or not len(question.actions.witnesses):
        return -np.inf
    return float(question.objective.batch_value(question.actions.witnesses, question.situation).max())
