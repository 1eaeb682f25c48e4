"""The problem as a Gymnasium environment, for other people's learners."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmab_opt.decisions import Model
from rmab_opt.errors import CapabilityError
from rmab_opt.learning.simulator import Simulator

try:
    import gymnasium
except ImportError:  # pragma: no cover - depends on the installation
    raise CapabilityError(
        "the Gymnasium environment", object, ("install rmab-opt[learn]", "use rmab_opt.learning.Simulator")
    ) from None

__all__ = ["RestlessBanditEnv"]


Observation = np.ndarray | dict[str, np.ndarray]


class RestlessBanditEnv(gymnasium.Env[Observation, np.ndarray]):
    """One episode of a model.

    Observation: the arms' states, MultiDiscrete (N,); where the arms share a state a Dict of ``state`` and ``shared``,
    Box (K,) of float64. An observation is the caller's own copy. Action: 0/1 over the columns, MultiBinary (C);
    a forbidden action raises ModelError. Reward: the sum of realised rewards of the round; ``info``
    holds ``expected_reward`` and the ``reward`` of each arm.
    """

    metadata = {"render_modes": ["ansi"]}

    def __init__(self, model: Model) -> None:
        self.model = model
        dynamics = model.problem.dynamics
        states = gymnasium.spaces.MultiDiscrete(np.full(dynamics.n_arms, dynamics.n_states))
        count = len(model.problem.shared_names)
        shared = gymnasium.spaces.Box(-np.inf, np.inf, (count,), dtype=np.float64)
        self.observation_space: Any = gymnasium.spaces.Dict({"state": states, "shared": shared}) if count else states
        self.action_space = gymnasium.spaces.MultiBinary(len(model.actions))
        self.render_mode = "ansi"
        self._simulator: Simulator | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; ``seed`` fixes its draws, without one it continues the environment's generator."""
        super().reset(seed=seed)
        entropy = int(self.np_random.integers(2**63))
        self._simulator = Simulator(self.model.problem, self.model.actions, [np.random.SeedSequence(entropy)])
        return self._observation(self._simulator), {}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One round; truncated at the horizon."""
        if self._simulator is None:
            raise CapabilityError("step before reset", self, ("call reset() first", "use rmab_opt.evaluate"))
        _, reward, expected, done = self._simulator.step(np.asarray(action)[None])
        info = {"expected_reward": float(expected.sum()), "reward": reward[0].copy()}
        return self._observation(self._simulator), float(reward.sum()), False, done, info

    def sample_action(self) -> np.ndarray:
        """A random action that is allowed now."""
        actions = self.model.actions if self._simulator is None else self._simulator.sets()[0]
        return actions.sample(self.np_random)[0]

    @staticmethod
    def _observation(simulator: Simulator) -> Observation:
        # A copy: what a learner does to its observation must not move the arms.
        state = simulator.state[0].copy()
        return state if simulator.shared is None else {"state": state, "shared": simulator.shared[0].copy()}

    def render(self) -> str:
        """The state as text."""
        return "" if self._simulator is None else " ".join(map(str, self._simulator.state[0]))
