"""Learners of another library as policies: ``sb3:ppo`` and ``sb3:dqn`` (Stable-Baselines3, extra ``rl``).

Both choose one column after the other: an action is a column that still fits, or "enough", so that no wish has to be
repaired and DQN, which knows single choices only, plays by the same rules. They learn from the expected reward of each
round, as the learners here do, and ``steps`` counts rounds of the simulator, not single choices.

References
----------
Raffin, Hill, Gleave, Kanervisto, Ernestus, Dormann, JMLR 22 (2021).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.shape import Room
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.policy import Memory, Policy, policy
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.overdue import checkpoint
from rmab_opt.problem.table import nearest

__all__ = ["Outside"]

ALGORITHMS = ("ppo", "dqn")


@policy("sb3")
class Outside(Policy):
    """PPO or DQN of Stable-Baselines3, trained on the model when the policy is made.

    Parameters
    ----------
    algorithm
        ``ppo`` or ``dqn``, with that library's own settings.
    steps
        Rounds of the simulator to learn from.
    seed
        Of everything that is drawn in training.
    """

    name = "sb3"

    def __init__(self, model: Model, *, algorithm: str, steps: int = 20_000, seed: int = 0) -> None:
        super().__init__(model)
        if algorithm not in ALGORITHMS:
            raise ModelError(f"sb3 algorithm is {algorithm!r}", nearest(algorithm, list(ALGORITHMS)))
        if steps < 1:
            raise ModelError(f"sb3 steps is {steps}", "give at least 1.")
        try:
            import stable_baselines3
        except ImportError:
            raise CapabilityError(
                "learners of Stable-Baselines3", type(self), ("install rmab-opt[rl]", "use `rmab-opt train`")
            ) from None
        from rmab_opt.learning.picks import Picks, stop_after

        self._world = Picks(model, np.random.default_rng(seed))
        discount = model.problem.discount
        settings: dict[str, Any] = {"seed": seed, "device": "cpu", "gamma": discount if discount < 1.0 else 0.99}
        made: Any = getattr(stable_baselines3, algorithm.upper())("MlpPolicy", self._world, **settings)
        made.learn(steps * self._world.most, callback=stop_after(self._world, steps))
        self._learned = made

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        from rmab_opt.learning.environment import nearest_allowed

        beside = None if question.shared is None else question.shared[None]
        at: Any = SimpleNamespace(state=question.state[None], period=question.period, shared=beside)
        seen = self._world.seen(at)
        partial = np.zeros(len(question.actions), dtype=np.int64)
        fitting = _fitting(question.actions, partial)
        while fitting.any():
            checkpoint()
            pick = int(self._learned.predict(np.concatenate([seen, partial]).astype(np.float32), deterministic=True)[0])
            if pick >= len(partial) or not fitting[pick]:
                break
            partial[pick] = 1
            fitting = _fitting(question.actions, partial)
        return Proposal(nearest_allowed(question.actions, partial)), memory


def _fitting(actions: ActionSet, partial: np.ndarray) -> np.ndarray:
    """Columns that can be added to a partial action (C,), bool."""
    room, free = Room(actions.shape), np.zeros(len(partial), dtype=bool)
    for column in np.flatnonzero(partial):
        room.take(int(column))
    free[room.fitting(np.flatnonzero(partial == 0))] = True
    return free
