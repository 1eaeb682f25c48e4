"""The only place where a :class:`Decision` is made: a question and a proposal, every claim checked again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rmab_opt.decisions.decision import VALUE_TOLERANCE, Decision
from rmab_opt.decisions.objective import NetworkObjective
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.errors import CertificateError, SolverError

__all__ = ["certify"]


def certify(
    question: Question,
    proposal: Proposal,
    *,
    seconds: float = 0.0,
    answer: Callable[[Question], Decision] | None = None,
) -> Decision:
    """The decision, when constraints, value and bound survive their re-check.

    Parameters
    ----------
    proposal
        Its action is held against every constraint; its value is computed anew; no allowed action at hand may be worth
        more than its bound.
    seconds
        That the way to it took.
    answer
        Answers further questions about this decision; without it they cannot be asked.

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
    action = actions.check_action(proposal.action)
    action.flags.writeable = False
    value = question.objective.value(action, situation)
    violations = actions.violations(action)
    unexpected = {name: said for name, said in violations.items() if name != question.relax}
    if unexpected:
        name, said = next(iter(unexpected.items()))
        raise CertificateError(
            f"the answer did not survive its re-check: {proposal.by or 'the proposal'} breaks {name}: {said[0]}",
            "repair who proposed it; for a shipped way report this with the model file.",
        )
    claimed = value if proposal.value is None else proposal.value
    error = abs(claimed - value)
    bound = np.inf if np.isnan(proposal.bound) else proposal.bound
    best = max(value, _known(question)) if question.plain else value
    tolerance = VALUE_TOLERANCE * (1.0 + abs(value))
    if not (error <= tolerance and best <= bound + tolerance):
        raise CertificateError(
            "the answer did not survive its re-check: "
            f"claimed {claimed:.8g}, re-computed {value:.8g}, bound {bound:.8g}"
            + (f", another allowed action {best:.8g}" if best > value else ""),
            "scale the network's weights or loosen its bounds; report this with the model file.",
        )
    status = proposal.status
    if status == "optimal" and not np.isfinite(bound):
        status = "limit"
    if status == "limit" and question.profile.at_limit == "raise":
        raise SolverError(
            f"stopped at a limit with value {value:.6g} and bound {bound:.6g}",
            "give more seconds, or use a profile with at_limit = 'best_with_gap'.",
        )
    return Decision(
        ids=actions.columns.ids,
        action=action,
        state=question.state.copy(),
        value=value,
        bound=max(bound, value),
        bound_kind=proposal.proof if np.isfinite(bound) else "none",
        encoding_error=error,
        violations=violations,
        status=status,
        solver=proposal.by,
        seconds=seconds,
        assignment=actions.assignment(action),
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


def _known(question: Question) -> float:
    """The most that a few allowed actions are worth: bounds of networks are held against them."""
    if not isinstance(question.objective, NetworkObjective) or not len(question.actions.witnesses):
        return -np.inf
    return float(question.objective.batch_value(question.actions.witnesses, question.situation).max())
