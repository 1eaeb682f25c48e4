"""What a network promises: one number in torch and over the columns, and runs that repeat."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rmab_opt.decisions import Model, Situation, decide
from rmab_opt.errors import ModelError
from rmab_opt.testing.contract import Promise, keep, require, same

__all__ = ["NETWORK_PROMISES", "check_network"]

TOLERANCE = 1e-4
"""Relative; torch computes in single precision."""


@dataclass(frozen=True)
class NetworkCase:
    """A registered network over a small model."""

    kind: str
    model: Model

    def fresh(self, seed: int = 1, scale: float = 0.5, stir: float = 0.3) -> Any:
        """A network whose weights say something everywhere."""
        import torch

        from rmab_opt.learning.networks import make_network

        network = make_network(self.kind, self.model.problem, self.model.actions.columns, (5,), 3, scale, seed)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weights in network.parameters():
                weights.add_(stir * torch.randn(weights.shape, generator=generator))
        return network

    @cached_property
    def everything(self) -> np.ndarray:
        """All allowed actions, int64 (M, C)."""
        found = self.model.actions.enumerate()
        if found is None or not len(found):
            raise ModelError("no action, or too many to list", "check the network on a smaller set.")
        return found.astype(np.int64)

    @cached_property
    def situations(self) -> list[Situation]:
        """Random states in the first and the last round."""
        problem, rng = self.model.problem, np.random.default_rng(0)
        states = rng.integers(problem.dynamics.n_states, size=(4, problem.n_arms))
        return [
            Situation(problem, self.model.actions.columns, state, period)
            for state, period in zip(states, (0, 0, problem.horizon - 1, problem.horizon - 1), strict=True)
        ]

    def by_torch(self, network: Any, situation: Situation, actions: np.ndarray) -> np.ndarray:
        """The forward pass, (M,)."""
        import torch

        count = len(actions)
        with torch.no_grad():
            arms, rest = network(
                torch.tensor(np.tile(situation.state, (count, 1))),
                torch.full((count,), situation.period),
                torch.tensor(actions),
            )
        total = rest if arms is None else rest + arms.sum(dim=1)
        return np.asarray(total.double().numpy())


def parts_have_shape(case: NetworkCase) -> None:
    """The forward pass gives what each arm adds, (B, N) or nothing, and the rest, (B,), all finite."""
    import torch

    situation, count = case.situations[0], len(case.everything)
    state, action = np.tile(situation.state, (count, 1)), case.everything
    arms, rest = case.fresh()(torch.tensor(state), torch.zeros(count, dtype=torch.long), torch.tensor(action))
    require(rest.shape == (count,), f"the rest has shape {tuple(rest.shape)}")
    require(arms is None or arms.shape == (count, case.model.problem.n_arms), "the arms' part has another shape")
    require(bool(torch.isfinite(rest).all()), "a value is not finite")


def folded_is_the_forward_pass(case: NetworkCase) -> None:
    """What a decision maximises, the network folded at a situation, is the forward pass at every allowed action."""
    network = case.fresh()
    for situation in case.situations:
        folded = network.objective().batch_value(case.everything, situation)
        wanted = case.by_torch(network, situation, case.everything)
        off = np.abs(folded - wanted) / (1 + np.abs(wanted))
        require((off <= TOLERANCE).all(), f"at {case.everything[off.argmax()].tolist()} they differ by {off.max():.3g}")


def a_decision_is_the_best_of_all(case: NetworkCase) -> None:
    """Deciding by the network, by its program and by the way taken by itself, finds the best of all actions."""
    network = case.fresh()
    for situation in case.situations:
        values = network.objective().batch_value(case.everything, situation)
        for method in ("program", "auto"):
            made = decide(
                case.model.with_objective(network.objective()),
                situation.state, period=situation.period, solver="exact", method=method,
            )  # fmt: skip
            require(not case.model.actions.violations(made.action), "a forbidden action was decided")
            require(
                abs(made.value - values.max()) <= 1e-5 * (1 + abs(values.max())),
                f"{method}: {made.value:.9g}, the best is {values.max():.9g}",
            )


def same_seed_same_weights(case: NetworkCase) -> None:
    """Weights come from the seed alone; another seed gives others."""
    one, two, other = (case.fresh(seed, stir=0.0).state_dict() for seed in (1, 1, 2))
    require(list(one) == list(two), "the parts differ")
    require(all(same(one[name].numpy(), two[name].numpy()) for name in one), "two networks of one seed differ")
    require(any(not same(one[name].numpy(), other[name].numpy()) for name in one), "another seed gives the same")


def weights_come_back(case: NetworkCase) -> None:
    """A network of another seed that is given the weights says the same."""
    network, other = case.fresh(), case.fresh(2)
    other.load_state_dict(network.state_dict())
    for situation in case.situations:
        first, second = (case.by_torch(n, situation, case.everything) for n in (network, other))
        require(same(first, second), "the same weights say something else")


def learns_in_its_unit(case: NetworkCase) -> None:
    """A unit twice as large doubles what the weights say; the unit comes back."""
    small, large = (case.fresh(scale=scale, stir=0.0) for scale in (0.5, 1.0))
    require(abs(small.arm_unit - 0.5) <= 1e-6, f"made with unit 0.5, it says {small.arm_unit:.6g}")
    if small.begins_at is not None:
        return
    for situation in case.situations:
        first, second = (case.by_torch(n, situation, case.everything) for n in (small, large))
        require(same(2.0 * first, second), "the value does not double")


def a_run_repeats(case: NetworkCase) -> None:
    """Two short runs of one seed end with the same weights, and the finished run decides what the run's policy does."""
    from rmab_opt.learning import DQNConfig, load_policy, train

    config = DQNConfig(
        network=case.kind, episodes=2, hidden=(4,), head=2, pretrain_steps=3, batch=4, validation_episodes=2
    )
    with tempfile.TemporaryDirectory() as folder:
        one, two = (train(case.model, config, seed=1, out=f"{folder}/{name}") for name in ("a", "b"))
        require(one.weights_hash() == two.weights_hash(), "two runs of one seed differ")
        read, rng = load_policy(f"{folder}/a", case.model), np.random.default_rng(0)
        for situation in case.situations:
            first, second = (p.decide(situation.state, situation.period, rng) for p in (one.policy, read))
            require(same(first.action, second.action), "the run read back decides otherwise")


NETWORK_PROMISES: tuple[Promise, ...] = (
    parts_have_shape,
    folded_is_the_forward_pass,
    a_decision_is_the_best_of_all,
    same_seed_same_weights,
    weights_come_back,
    learns_in_its_unit,
    a_run_repeats,
)


def check_network(kind: str, model: Model, *, promises: Sequence[Promise] = NETWORK_PROMISES) -> None:
    """Hold a registered network to its promises on a small model, whose allowed actions are all tried.

    Raises
    ------
    ContractError
        At the first promise that does not hold; names the network and the promise.
    """
    keep(f"network {kind!r}", NetworkCase(kind, model), promises)
