"""Penalties in training that make a network's program small: weights that vanish, neurons that cannot bend.

A neuron z = c(s) + sum of w[j] a[j] needs a binary only where it can be of both signs. Its bounds are taken over the
declared set of actions, not over a box: u = c + the largest sum of w over allowed actions, l = c + the smallest. Both
are differentiable by the action that attains them (Danskin). Layers behind take theirs from intervals.

References
----------
Xiao, Tjeng, Shafiullah, Madry, arXiv 1809.03008 (neurons of one sign); Tsay, arXiv 2604.22746 (bounds).
"""

from __future__ import annotations

import torch
from torch import Tensor

from rmab_opt.actions import ActionSet
from rmab_opt.decisions import Model
from rmab_opt.errors import CapabilityError
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.networks import QNetwork

__all__ = ["Penalties", "bounds"]

ZERO = 1e-3
"""Weights smaller than this are zero after training with ``l1``."""

STATES = 32
"""States of a batch whose bounds are looked at."""


class Penalties:
    """What training adds to its loss; nothing in the first half of a run, then more and more.

    Parameters
    ----------
    model
        Bounds hold over its actions of the first round.

    Raises
    ------
    CapabilityError
        When a penalty is asked for and no neuron of the network sees the action.
    """

    def __init__(self, model: Model, config: DQNConfig, network: QNetwork) -> None:
        self.config = config
        self.active = max(config.l1, config.stability, config.bound_product) > 0.0
        start = model.problem.start_shared
        self._actions = model.actions.at(0, model.problem.shared_values(start)) if self.active else model.actions
        if self.active and not network.bends:
            raise CapabilityError(
                "l1, stability and bound_product on a network without neurons over the action",
                network,
                ("leave them out: its program has no binary of a neuron", "use network 'dense', or a head"),
            )

    def __call__(
        self, network: QNetwork, state: Tensor, period: Tensor, shared: Tensor | None, progress: float
    ) -> Tensor:
        """The penalty at states (B, N) and a share of the run in [0, 1]; a scalar."""
        ramp, config = min(1.0, max(0.0, 2.0 * progress - 1.0)), self.config
        total = torch.zeros((), device=state.device)
        if not self.active or ramp == 0.0:
            return total
        if config.l1:
            total = total + config.l1 * sum(w.abs().sum() for w in network.parameters() if w.dim() == 2)
        if config.stability or config.bound_product:
            beside = None if shared is None else shared[:STATES]
            for low, high in bounds(network, self._actions, state[:STATES], period[:STATES], beside):
                total = total - config.stability * torch.tanh(1.0 + low * high).mean()
                total = total + config.bound_product * (torch.relu(high) * torch.relu(-low)).mean()
        return ramp * total

    def settle(self, network: QNetwork) -> None:
        """Weights that ``l1`` has made small are zero from here on."""
        if self.config.l1:
            with torch.no_grad():
                for weight in network.parameters():
                    if weight.dim() == 2:
                        weight[weight.abs() < ZERO] = 0.0


def bounds(
    network: QNetwork, actions: ActionSet, state: Tensor, period: Tensor, shared: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    """Least and largest value of each neuron that can bend, layer by layer, (B, H) each, over the actions of a set.

    Of sets that are more than counts and routes the relaxation's bounds of the first layer.
    """
    constant, weight, behind = network.neurons(state, period, shared)
    rows = weight.detach().double().cpu().numpy().reshape(-1, weight.shape[-1])

    def attained(sign: float) -> Tensor:
        action = torch.as_tensor(actions.shape.best(sign * rows).actions, dtype=weight.dtype, device=weight.device)
        return (weight * action.reshape(weight.shape)).sum(dim=-1)

    low, high = constant + attained(-1.0), constant + attained(1.0)
    found = [(low, high)]
    for layer in behind:
        below, above = torch.relu(found[-1][0]), torch.relu(found[-1][1])
        up, down = torch.relu(layer.weight), -torch.relu(-layer.weight)
        found.append((below @ up.T + above @ down.T + layer.bias, above @ up.T + below @ down.T + layer.bias))
    return found
