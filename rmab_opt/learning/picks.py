"""One round as single choices, for learners that know no sets: a column that still fits, or "enough"."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from rmab_opt.decisions.model import Model
from rmab_opt.learning import targets
from rmab_opt.learning.environment import RestlessBanditEnv
from rmab_opt.learning.simulator import Simulator

__all__ = ["Picks", "stop_after"]


class Picks(gymnasium.Env[np.ndarray, int]):
    """The model's environment, flat, with what has been chosen in this round behind it; C + 1 choices, the last is
    "enough".

    A round is taken when nothing more fits, at "enough", or at a column that does not fit; its reward is the expected
    one in units of the model's usual reward, all other choices bring nothing.

    Attributes
    ----------
    rounds
        Taken so far.
    most
        Choices of one round at most.
    """

    def __init__(self, model: Model, rng: np.random.Generator) -> None:
        self._inner = RestlessBanditEnv(model, flat=True)
        self.rounds, count = 0, len(model.actions)
        self.most = max(1, min(count, model.actions.shape.at_most or count))
        self._unit = targets.reward_unit(model.problem, model.actions, rng) or 1.0
        wide = gymnasium.spaces.flatdim(self._inner.observation_space) + count
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (wide,), dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(count + 1)  # type: ignore[assignment]
        self._partial, self._fits = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int8)
        self._seen = np.zeros(0)

    def seen(self, at: Simulator) -> np.ndarray:
        """The flat observation of one situation."""
        return np.asarray(self._inner._rules.seen(at))[0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._seen, _ = self._inner.reset(seed=seed)  # type: ignore[assignment]
        return self._anew(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        pick = int(action)
        if pick < len(self._partial) and self._fits[pick]:
            self._partial[pick] = 1
            self._fits = self._inner.mask(self._partial)
            if self._fits.any():
                return self._told(), 0.0, False, False, {}
        self._seen, _, over, _, info = self._inner.step(self._partial)  # type: ignore[assignment]
        self.rounds += 1
        return self._anew(), float(info["expected_reward"]) / self._unit, over, False, {}

    def _anew(self) -> np.ndarray:
        self._partial = np.zeros_like(self._partial)
        self._fits = self._inner.mask()
        return self._told()

    def _told(self) -> np.ndarray:
        return np.concatenate([self._seen, self._partial]).astype(np.float32)


def stop_after(world: Picks, rounds: int) -> Any:
    """A callback of Stable-Baselines3 that ends training after so many rounds."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return world.rounds < rounds

    return Stop()
