"""The problem as Gymnasium environments, for other people's learners: one episode, or many side by side.

Observation: a Dict of ``state`` (the arms' states), ``shared`` (the shared state, where there is one) and ``time_left``
(share of the rounds to come); with ``flat`` one Box of float32. Every observation is the caller's own copy. Episodes
end by termination at the horizon: time left is observed, and nothing follows.

What happens to a forbidden action is said by ``forbidden``: ``repair`` takes the nearest allowed one, min sum |x - a|,
``penalty`` acts on as little as is allowed and takes an amount off the reward, ``raise`` raises.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.shape import Room
from rmab_opt.decisions import Model
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.learning.simulator import Simulator
from rmab_opt.planning.improve import best_action

try:
    import gymnasium
    from gymnasium.utils import seeding
except ImportError:  # pragma: no cover - depends on the installation
    raise CapabilityError(
        "the Gymnasium environment", object, ("install rmab-opt[learn]", "use rmab_opt.learning.Simulator")
    ) from None

__all__ = ["RestlessBanditEnv", "RestlessBanditVectorEnv", "nearest_allowed"]


Observation = np.ndarray | dict[str, np.ndarray]
Forbidden = Literal["repair", "penalty", "raise"]


def nearest_allowed(actions: ActionSet, wanted: np.ndarray) -> np.ndarray:
    """The allowed action x with the least sum |x - wanted|; of equally near ones that with lower columns."""
    wanted = np.asarray(wanted, dtype=np.int64)
    if actions.allows(wanted):
        return wanted
    n = len(actions)
    # All ties together are worth less than one change.
    tie = np.arange(n, 0, -1) / (n * (n + 1.0))
    return np.asarray(best_action(actions, (2.0 * wanted - 1.0 + tie)[None])[0])


class _Rules:
    """Spaces of a model and what is done with an action: the same for one episode and for many."""

    def __init__(self, model: Model, forbidden: Forbidden, penalty: float, flat: bool) -> None:
        if forbidden not in ("repair", "penalty", "raise"):
            raise ModelError(f"forbidden is {forbidden!r}", "use 'repair', 'penalty' or 'raise'.")
        # Columns that are more than one round's action (a period's visits) refuse here.
        model.actions.columns.arm_action(np.zeros(len(model.actions), dtype=np.int64))
        self.model, self.forbidden, self.penalty, self.flat = model, forbidden, float(penalty), flat
        problem = model.problem
        n, top, count = problem.n_arms, problem.dynamics.n_states, len(problem.shared_names)
        spaces: dict[str, Any] = {"state": gymnasium.spaces.MultiDiscrete(np.full(n, top))}
        if count:
            spaces["shared"] = gymnasium.spaces.Box(-np.inf, np.inf, (count,), dtype=np.float64)
        spaces["time_left"] = gymnasium.spaces.Box(0.0, 1.0, (1,), dtype=np.float64)
        wide = gymnasium.spaces.Box(-np.inf, np.inf, (n + count + 1,), dtype=np.float32)
        self.observation_space: Any = wide if flat else gymnasium.spaces.Dict(spaces)
        self.action_space: Any = gymnasium.spaces.MultiBinary(len(model.actions))
        start = np.zeros(0) if problem.start_shared is None else problem.start_shared
        self._unit = np.concatenate([np.full(n, max(1, top - 1)), np.maximum(1.0, np.abs(start)), [1.0]])

    def seen(self, simulator: Simulator) -> Observation:
        """Observations of all episodes, stacked; copies."""
        count, horizon = len(simulator.state), self.model.problem.horizon
        left = np.full((count, 1), 1.0 - simulator.period / horizon)
        if self.flat:
            parts = [simulator.state, *([] if simulator.shared is None else [simulator.shared]), left]
            return np.asarray(np.hstack(parts) / self._unit, dtype=np.float32)
        found = {"state": simulator.state.astype(np.int64)}
        if simulator.shared is not None:
            found["shared"] = np.array(simulator.shared, dtype=np.float64)
        return {**found, "time_left": left}

    def taken(self, action: np.ndarray, allowed: ActionSet) -> tuple[np.ndarray, int, float]:
        """(what is done, columns changed, what is taken off the reward) for a wished action (C,)."""
        wished = np.asarray(action, dtype=np.int64)
        if wished.shape != (len(allowed),) or ((wished != 0) & (wished != 1)).any():
            raise ModelError(f"action {wished.tolist()}", f"give {len(allowed)} numbers, each 0 or 1.")
        # Where actions are refused, the simulator says which constraint is broken.
        if self.forbidden == "raise" or allowed.allows(wished):
            return wished, 0, 0.0
        if self.forbidden == "penalty":
            return nearest_allowed(allowed, np.zeros_like(wished)), 0, self.penalty
        done = nearest_allowed(allowed, wished)
        return done, int((done != wished).sum()), 0.0


class RestlessBanditEnv(gymnasium.Env[Observation, np.ndarray]):
    """One episode of a model; see the module.

    Action: 0/1 over the columns, MultiBinary (C). Reward: the sum of realised rewards of the round. ``info`` holds
    ``action`` (what was done), ``repaired`` (columns changed), ``expected_reward``, the ``reward`` of each arm, and
    ``action_mask``: columns that can be added to an empty action now.

    Parameters
    ----------
    forbidden
        ``repair``, ``penalty`` or ``raise``.
    penalty
        Taken off the reward of a round with a forbidden action, in reward units.
    flat
        Whether observations are one array.

    Raises
    ------
    ModelError
        When an action is not 0/1 over the columns, or is forbidden where that raises; names the constraint.
    CapabilityError
        On a step before the first reset or after the end.
    """

    metadata = {"render_modes": ["ansi"]}

    def __init__(
        self,
        model: Model,
        *,
        forbidden: Forbidden = "repair",
        penalty: float = 1.0,
        flat: bool = False,
        render_mode: str | None = "ansi",
    ) -> None:
        self.model, self.render_mode = model, render_mode
        self._rules = _Rules(model, forbidden, penalty, flat)
        self.observation_space = self._rules.observation_space
        self.action_space = self._rules.action_space
        self._simulator: Simulator | None = None
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; ``seed`` fixes its draws, without one it continues the environment's generator."""
        super().reset(seed=seed)
        if seed is not None:
            self.action_space.seed(seed)
        entropy = int(self.np_random.integers(2**63))
        self._simulator = Simulator(self.model.problem, self.model.actions, [np.random.SeedSequence(entropy)])
        self._over = False
        return self._observation(self._simulator), {"action_mask": self.mask()}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One round; terminated at the horizon, never truncated."""
        simulator = self._running()
        done, repaired, lost = self._rules.taken(action, simulator.sets()[0])
        checked = self._rules.forbidden != "raise"
        _, reward, expected, self._over = simulator.step(done[None], checked=checked)
        info = {"expected_reward": float(expected.sum()), "reward": reward[0].copy(), "action": done.copy()}
        info |= {"repaired": repaired, "penalty": lost, "action_mask": self.mask()}
        return self._observation(simulator), float(reward.sum()) - lost, bool(self._over), False, info

    def mask(self, partial: np.ndarray | None = None) -> np.ndarray:
        """Columns that break no upper limit when added to a partial action (C,), int8; by default to an empty one.

        All 0 after the end.
        """
        count = len(self.model.actions)
        free = np.zeros(count, dtype=np.int8)
        if self._simulator is None or self._over:
            return free
        # Also where a least number is asked for, which an unfinished action need not have reached.
        room = Room(self._simulator.sets()[0].shape)
        begun = np.zeros(count, dtype=np.int64) if partial is None else np.asarray(partial, dtype=np.int64)
        for column in np.flatnonzero(begun == 1):
            room.take(int(column))
        free[room.fitting(np.flatnonzero(begun == 0))] = 1
        return free

    def sample_action(self, seed: int | None = None) -> np.ndarray:
        """A random action that is allowed now, by the action set's sampler: grown column by column until none fits."""
        actions = self.model.actions if self._simulator is None else self._simulator.sets()[0]
        return actions.sample(self.np_random if seed is None else np.random.default_rng(seed))[0]

    def render(self) -> str:
        """The state as text."""
        return "" if self._simulator is None else " ".join(map(str, self._simulator.state[0]))

    def _running(self) -> Simulator:
        if self._simulator is None or self._over:
            when = "before reset" if self._simulator is None else "after the end of the episode"
            raise CapabilityError(f"step {when}", self, ("call reset() first", "use rmab_opt.evaluate"))
        return self._simulator

    def _observation(self, simulator: Simulator) -> Observation:
        found = self._rules.seen(simulator)
        return {name: part[0] for name, part in found.items()} if isinstance(found, dict) else found[0]


class RestlessBanditVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """E episodes of a model side by side, as E single environments with the seeds s, s + 1, ...; see the module.

    All episodes have one horizon and end together. The step after the end starts them anew: its actions count for
    nothing, its rewards are zero (Gymnasium's next-step mode).
    """

    metadata = {"render_modes": [], "autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        model: Model,
        num_envs: int,
        *,
        forbidden: Forbidden = "repair",
        penalty: float = 1.0,
        flat: bool = False,
    ) -> None:
        if num_envs < 1:
            raise ModelError(f"num_envs is {num_envs}", "give at least 1.")
        self.model, self.num_envs = model, num_envs
        self._rules = _Rules(model, forbidden, penalty, flat)
        self.single_observation_space, self.single_action_space = (
            self._rules.observation_space,
            self._rules.action_space,
        )
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator] = []
        self._simulator: Simulator | None = None
        self._over = True

    def reset(  # type: ignore[override]
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start all episodes; a seed s gives them s, s + 1, ..., a list one seed each."""
        if seed is not None or not self._generators:
            given: list[int | None] = [None] * self.num_envs
            if seed is not None:
                given = list(seed) if isinstance(seed, list) else [seed + k for k in range(self.num_envs)]
            self._generators = [seeding.np_random(each)[0] for each in given]
        entropies = [int(rng.integers(2**63)) for rng in self._generators]
        seeds = [np.random.SeedSequence(entropy) for entropy in entropies]
        self._simulator = Simulator(self.model.problem, self.model.actions, seeds)
        self._over = False
        return self._rules.seen(self._simulator), {}

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One round of all episodes, or their new beginning after the end."""
        never = np.zeros(self.num_envs, dtype=bool)
        if self._simulator is None:
            raise CapabilityError("step before reset", self, ("call reset() first", "use rmab_opt.evaluate"))
        if self._over:
            seen, info = self.reset()
            return seen, np.zeros(self.num_envs), never, never.copy(), info
        sets, wished = self._simulator.sets(), np.asarray(actions)
        made = [self._rules.taken(row, allowed) for row, allowed in zip(wished, sets, strict=True)]
        done, lost = np.stack([part[0] for part in made]), np.array([part[2] for part in made])
        checked = self._rules.forbidden != "raise"
        _, reward, expected, self._over = self._simulator.step(done, checked=checked)
        info = {
            "action": done,
            "repaired": np.array([part[1] for part in made]),
            "expected_reward": expected.sum(axis=1),
        }
        ended = np.full(self.num_envs, self._over)
        return self._rules.seen(self._simulator), reward.sum(axis=1) - lost, ended, never, info
