"""When no way has an action in time: an allowed one all the same, found by the checks alone, named for what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter

import numpy as np

from rmab_opt.decisions.bench import Bench
from rmab_opt.decisions.objective import LinearObjective, NetworkObjective
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.errors import UnsettledError
from rmab_opt.solver import Session

__all__ = ["last_resort"]

Witness = tuple[Mapping[str, str], ...]

LEAST_LEFT, PRICED_SHARE = 0.4, 0.3
"""Seconds that a last resort has however late it is, and the share of them that prices for its bound may take."""

MOST_STEPS = 200
"""Columns that the greedy start adds at most when the objective is no sum over columns."""


def last_resort(asked: Question, bench: Bench, why: str) -> Proposal | None:
    """The first allowed action of: the start, greedy, nothing chosen, drawn at random, any that a solver finds.

    Parameters
    ----------
    asked
        In its own unit; plain.
    why
        What happened to the ways before; stands in the decision's line.

    Returns
    -------
    Proposal or None
        ``heuristic``: nothing is claimed of it; a sum's prices are given, so that a bound is proven all the same.
    """
    data: dict[str, object] = {}
    objective, situation = asked.objective, asked.situation
    if isinstance(objective, LinearObjective) and objective.linear(situation):
        seconds = None if asked.deadline is None else PRICED_SHARE * max(LEAST_LEFT, asked.left)
        data = {"prices": bench.prices(objective.coefficients(situation)[0], seconds)}
    due = np.inf if asked.deadline is None else perf_counter() + max(LEAST_LEFT, asked.left)
    for name, action, witness in _candidates(asked, due):
        if action is not None and _allowed(asked, action, witness):
            claim = "dual" if data or isinstance(objective, NetworkObjective) else "none"
            return Proposal(action, proof=claim, data=data, by=f"{name} ({why})", witness=witness)  # type: ignore[arg-type]
    return None


def _allowed(asked: Question, action: np.ndarray, witness: Witness = ()) -> bool:
    """Whether the checks say so; what they cannot settle is left out here, as a lesser action is good enough."""
    try:
        return asked.actions.allows(action, witness)
    except UnsettledError:
        return False


def _candidates(asked: Question, due: float) -> Iterator[tuple[str, np.ndarray | None, Witness]]:
    """By name, in order, with who does what where that is known; made only when asked for.

    At ``due``, a time of ``perf_counter``, nothing is added any more.
    """
    actions = asked.actions
    nothing = np.zeros(len(actions), dtype=np.int64)
    yield "the start", asked.start, ()
    grown = nothing if _allowed(asked, nothing) else actions.shape.grown(np.random.default_rng(asked.seed), due)
    if grown is not None and _allowed(asked, grown):
        yield "greedy", _greedy(asked, grown, due), ()
    yield "nothing chosen", nothing, ()
    yield "drawn at random, allowed, not optimised", grown, ()
    if actions.outer is not None:
        return
    program, act = actions.program
    found = Session.from_arrays(program, asked.profile).solve(seconds=max(LEAST_LEFT, asked.left))
    if found.has_solution and found.x is not None:
        (model, session), x = actions.compiled, found.x
        witness = actions.witness(model, lambda variable: x[session.index(variable)])
        yield "any allowed action, not optimised", np.rint(x[act]).astype(np.int64), tuple(witness)


def _greedy(asked: Question, action: np.ndarray, due: float) -> np.ndarray:
    """Columns added one by one, the largest gain first, as long as the checks allow it and time is left."""
    actions, objective, situation = asked.actions, asked.objective, asked.situation
    action = action.copy()
    if isinstance(objective, LinearObjective) and objective.linear(situation):
        gain = objective.coefficients(situation)[0]
        for column in np.argsort(-gain, kind="stable").tolist():
            if gain[column] <= 0 or perf_counter() > due:
                break
            if not action[column]:
                action[column] = 1
                try:
                    action[column] = int(actions.allows(action))
                except UnsettledError:
                    # Near a full house the checks may need exponential time: more would only cost more of it.
                    action[column] = 0
                    return action
        return action
    for _ in range(MOST_STEPS):
        open_ = np.flatnonzero(action == 0)
        if not open_.size or perf_counter() > due:
            break
        more = np.repeat(action[None], len(open_), axis=0)
        more[np.arange(len(open_)), open_] = 1
        values = objective.batch_value(more, situation)
        own = objective.value(action, situation)
        better = [k for k in np.argsort(-values, kind="stable").tolist() if values[k] > own]
        taken = next((k for k in better if _allowed(asked, more[k])), None)
        if taken is None:
            break
        action = more[taken]
    return action
