"""One unit before any solver, search or price: what an action changes is brought near one by a power of two.

The part of the objective that no action changes never reaches a solver; the rest is divided by the unit, which is
exact, and what comes back is multiplied by it. So no tolerance inside can be large or small against the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rmab_opt.decisions.objective import FixedNetwork, LinearObjective, NetworkObjective, Scores
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.encoder import Network
from rmab_opt.encoder.network import Layer
from rmab_opt.errors import ModelError

__all__ = ["LARGEST", "Unit", "least_value", "scaled"]

LARGEST = 1e150
"""Larger numbers overflow in sums and squares and are refused."""

HOMOGENEOUS = ("linear", "relu", "leaky_relu", "max")
"""Activations of a last layer whose output scales with its rows."""


@dataclass(frozen=True)
class Unit:
    """value = base + size * what the ways see."""

    size: float = 1.0
    base: float = 0.0

    def back(self, proposal: Proposal) -> Proposal:
        """A proposal in the objective's own unit."""
        value = None if proposal.value is None else proposal.value * self.size + self.base
        return replace(proposal, value=value, bound=proposal.bound * self.size + self.base)


def scaled(question: Question) -> tuple[Unit, Question]:
    """The question in its unit, and the unit; objectives that are neither linear nor networks stay as they are.

    Raises
    ------
    ModelError
        When a value of the objective is not finite, or above 1e150.
    """
    if isinstance(question.ready, tuple):
        return question.ready
    objective, situation = question.objective, question.situation
    if isinstance(objective, LinearObjective) and objective.linear(situation):
        gain, base = objective.coefficients(situation)
        _demand(np.concatenate([gain, [base]]), question)
        size = _power(float(np.abs(gain).max(initial=0.0)))
        return Unit(size, float(base)), replace(question, objective=Scores(gain / size))
    if isinstance(objective, NetworkObjective):
        network = objective.network(situation)
        points = np.concatenate([np.zeros((1, network.n_inputs)), np.eye(network.n_inputs)])
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.asarray(network(points))
        _demand(values, question)
        base = float(values[0])
        size = _power(float(np.abs(values[1:] - base).max(initial=0.0)))
        if network._layers and network._layers[-1].activation.name not in HOMOGENEOUS:
            size = 1.0
        own = FixedNetwork(_in_unit(network, size, base), effort=objective.effort, formulation=objective.formulation)
        return Unit(size, base), replace(question, objective=own)
    return Unit(), question


def least_value(asked: Question) -> float:
    """What the cheapest allowed action is worth, of a question in its unit: what is decided is counted from there.

    Choosing nothing where that is allowed; the least value where sorting finds it; else choosing nothing all the same.
    """
    objective, actions = asked.objective, asked.actions
    if not isinstance(objective, LinearObjective) or not objective.linear(asked.situation):
        if isinstance(objective, NetworkObjective):
            return 0.0
        nothing = np.zeros(len(actions), dtype=np.int64)
        return float(objective.value(nothing, asked.situation))
    if not actions.shape.lower_limits or actions.structured or not actions.shape._sorts:
        return 0.0
    return -float(actions.shape.best(-objective.coefficients(asked.situation)[0][None]).values[0])


def _power(size: float) -> float:
    return float(2.0 ** np.round(np.log2(size))) if size > 0 else 1.0


def _demand(values: np.ndarray, question: Question) -> None:
    bad = np.flatnonzero(~(np.abs(values) <= LARGEST))
    if bad.size:
        ids = question.actions.columns.ids
        place = int(bad[0])
        where = f"of {ids[place]!r}" if place < len(ids) else "of choosing nothing"
        raise ModelError(
            f"the objective's value {where} is {values[place]:.3g}", f"give finite numbers of at most {LARGEST:g}."
        )


def _in_unit(network: Network, size: float, base: float) -> Network:
    layers = list(network._layers)
    if layers:
        last = layers[-1]
        links = tuple((source, link / size) for source, link in last.links)
        layers[-1] = Layer(last.weight / size, last.bias / size, last.activation, links)
    return Network(layers, network.skip / size, (network.constant - base) / size)
