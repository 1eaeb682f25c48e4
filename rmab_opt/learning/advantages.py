"""Policy iteration on advantages: a network is fitted to what actions add, simulated with common random numbers.

    base <- the best of the planning rules on the validation episodes
    repeat: states met by the base and by a mixture; effects of single columns (and of whole actions, where one round is
        no sum) by roll-outs of the base that all meet the same chance; fit differences of Q to them; the network's own
        choice is the next base, while the validation episodes say that it gains.
    keep the best network only if it beats every planning rule by more than a standard error; else keep the rule.

Differences alone are fitted: the level of Q changes no decision, and carries nearly all of the noise.

References
----------
Bertsekas, Tsitsiklis (1996), sections 6.1 and 6.2; Lagoudakis, Parr (2003), roll-outs as training examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import process_time
from typing import Any

import numpy as np
import torch

from rmab_opt.decisions import Chooser, Model
from rmab_opt.decisions.policy import ChooserPolicy, Policy, round_of
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.learning import targets
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.loads import LoadQ, LoadRule
from rmab_opt.learning.networks import PooledQ, QNetwork, make_network
from rmab_opt.learning.penalties import Penalties
from rmab_opt.learning.run_folder import RunFolder
from rmab_opt.learning.runs import load_network
from rmab_opt.learning.simulator import Simulator, played
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.anchors import anchor_values
from rmab_opt.planning.improve import BatchRule, Rollouts, ScoreRule, base_rule, brought_rule, on_arrays
from rmab_opt.solver import repeatable

__all__ = ["learn", "rule_of"]

JOINT = 16
"""Whole actions a state, for networks that see more than one column at a time."""

TRIED = 48
"""Columns tried alone in one state; where there are more, half are the base's best and half are drawn."""

BATCH = 16
"""States of one gradient step."""

LISTED = 4096
"""Allowed actions up to which a network's choice is the best of them all, without a program."""

CELLS = 3_000_000
"""Arm-states that one call of the roll-outs holds: memory, not results, depends on it."""


@dataclass(frozen=True, eq=False)
class Effects:
    """What actions add over doing nothing: columns tried alone (B, m), whole actions (B, M, C), their effects."""

    state: np.ndarray
    period: np.ndarray
    shared: np.ndarray | None
    tried: np.ndarray
    single: np.ndarray
    action: np.ndarray
    joint: np.ndarray


def learn(
    folder: RunFolder,
    model: Model,
    config: DQNConfig,
    seed: int,
    record: dict[str, Any],
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train into a folder; (log, what stands in the run's record).

    Raises
    ------
    CapabilityError
        When columns are not the arms themselves, or the network cannot be asked for effects.
    """
    _demand(model, config)
    work = _Work(model, config, seed)
    log: list[dict[str, Any]] = []
    for turn in range(config.rounds):
        row = work.round(turn)
        log.append(row)
        if on_event is not None:
            on_event(row)
        if row["gain"] <= row["error"]:
            break
    outcome = work.outcome()
    chosen, slope = work.best, work.slopes.get(work.best)
    arrays = {key: value.detach().cpu().numpy() for key, value in work.nets[chosen].state_dict().items()}
    meta: dict[str, Any] = {"config": record["config"], "fingerprint": record["fingerprint"], "anchor": None}
    if slope is not None:
        meta |= {"anchor": "costate", "slope": slope}
    if outcome["kept"] != chosen:
        meta |= {"policy": "planned", "planned": work.planned[0]}
    outcome["digests"] = {"weights": folder.write_tensors("weights", arrays, meta)}
    folder.write_log(log)
    return log, outcome


def rule_of(folder: str | Any, model: Model) -> BatchRule:
    """A finished run's best network as a rule on arrays, whether or not the run kept it."""
    network = load_network(RunFolder(folder), model)
    return _rule(model, network)


class _Work:
    """Everything that rounds of one run share; a fit's randomness depends on the seed and the round alone."""

    def __init__(self, model: Model, config: DQNConfig, seed: int) -> None:
        self.model, self.config = model, config
        weights, walk, rolls, fits, self.validation = np.random.SeedSequence(seed).spawn(5)
        problem, actions = model.problem, model.actions
        self.clock = {"planning rules": 0.0, "effects": 0.0, "fit": 0.0, "validation": 0.0}
        self.scale = targets.reward_unit(problem, actions, np.random.default_rng(walk))
        self.fit_seed, self.rng = int(weights.generate_state(1)[0]), np.random.default_rng(walk)
        self.rolls, self.fits = rolls, fits
        names, self.skipped = _rivals(model, config.rivals)
        with _timed(self.clock, "planning rules"):
            rules = {name: brought_rule(problem, actions, name) or on_arrays(problem, actions, name) for name in names}
            self.totals = {name: self._played(rule) for name, rule in rules.items()}
        self.planned = sorted(names, key=lambda name: -self.totals[name].mean())
        """Planning rules, the best first."""
        self.base: BatchRule = base_rule(problem, actions, self.planned[0])
        self.base_name = self.planned[0]
        self.mixture = [base_rule(problem, actions, name) for name in dict.fromkeys(("none", *self.planned[1:]))]
        self.prior = anchor_values(problem, actions, "costate") if self._may_anchor(names) else None
        self.nets: dict[str, QNetwork] = {}
        self.slopes: dict[str, float] = {}
        self.first: Effects | None = None

    def _may_anchor(self, names: list[str]) -> bool:
        return self.config.network == "pooled" and "mean_field" in names

    @property
    def best(self) -> str:
        """Name of the best network on the validation episodes."""
        return max(self.nets, key=lambda name: self.totals[name].mean())

    def round(self, turn: int) -> dict[str, Any]:
        """One round: states, effects, fits with and without the anchor, validation; the log's row."""
        config, model = self.config, self.model
        met = _states(model, self.base, self.mixture, config.states, self.rng)
        generator = np.random.default_rng(self.rolls.spawn(1)[0])
        with _timed(self.clock, "effects"):
            effects = _effects(model, config, self.base, met, config.draws * 2**turn, generator, common=True)
        self.first = effects if self.first is None else self.first
        names, losses = [f"round {turn + 1}"], []
        if self.prior is not None:
            names.append(f"round {turn + 1}, anchored")
        order = self.fits.spawn(1)[0]
        for name in names:
            network = self._fresh(self.fit_seed + turn)
            if name != names[0]:
                assert isinstance(network, PooledQ)
                self.slopes[name] = _anchor(network, self.prior, effects)
            with _timed(self.clock, "fit"):
                losses.append(_fit(model, network, effects, config, np.random.default_rng(order)))
            self.nets[name] = network
            with _timed(self.clock, "validation"):
                self.totals[name] = self._tried(network)
        name = max(names, key=lambda each: self.totals[each].mean())
        gain, error = _apart(self.totals[name], self.totals[self.base_name])
        reward = float(self.totals[name].mean())
        row = {"episode": turn + 1, "reward": reward, "loss": losses[names.index(name)], "base": self.base_name}
        row |= {"validation": reward, "kept": name, "gain": gain, "error": error}
        if gain > error:
            self.mixture.append(self.base)
            self.base, self.base_name = _rule(model, self.nets[name]), name
        return row

    def outcome(self) -> dict[str, Any]:
        """What the run's record says: what was kept, by which paired differences, and the ablations."""
        chosen = self.best
        beaten = {name: _apart(self.totals[chosen], self.totals[name]) for name in self.planned}
        keeps = all(gain > error for gain, error in beaten.values())
        return {
            "targets": "advantages",
            "kept": chosen if keeps else f"planning rule kept: {self.planned[0]}",
            "validation": {name: float(each.mean()) for name, each in self.totals.items()},
            "paired": {name: {"gain": gain, "standard_error": error} for name, (gain, error) in beaten.items()},
            "left_out": self.skipped,
            "slope": self.slopes.get(chosen),
            "ablations": self._ablations(self.totals[chosen]) if self.config.ablations else {},
            "seconds_by_part": {name: round(spent, 2) for name, spent in self.clock.items()},
        }

    def _fresh(self, seed: int, **changed: Any) -> QNetwork:
        config = replace(self.config, **changed)
        problem, columns = self.model.problem, self.model.actions.columns
        return make_network(config.network, problem, columns, config.hidden, config.head, self.scale, seed % 2**31)

    def _seeds(self) -> list[np.random.SeedSequence]:
        root, count = self.validation, self.config.validation_episodes
        return [np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, k)) for k in range(count)]

    def _played(self, rule: BatchRule) -> np.ndarray:
        return played(self.model.problem, self.model.actions, rule, self._seeds())

    def _tried(self, network: QNetwork) -> np.ndarray:
        """The network's exact choice on the validation episodes."""
        exact = _exact_rule(self.model, network)
        if exact is not None:
            return self._played(exact)
        return _totals(self.model, _policy(self.model, self.config, network), self._seeds())

    def _ablations(self, kept: np.ndarray) -> dict[str, Any]:
        """The first round against itself without a part: separable scores, independent returns, the frozen plan."""
        found: dict[str, Any] = {}
        model, config, effects = self.model, self.config, self.first
        assert effects is not None

        def note(name: str, total: np.ndarray) -> None:
            gain, error = _apart(kept, total)
            found[name] = {"mean": float(total.mean()), "kept_is_better_by": gain, "standard_error": error}

        plain = self._fresh(self.fit_seed, network="pooled", head=0)
        _fit(
            model,
            plain,
            effects,
            replace(config, l1=0.0, stability=0.0, bound_product=0.0),
            np.random.default_rng(self.fit_seed),
        )
        note("head 0", self._tried(plain))
        rng = np.random.default_rng(self.fit_seed)
        base = base_rule(model.problem, model.actions, self.planned[0])
        met = effects.state, effects.period, effects.shared
        noisy = self._fresh(self.fit_seed)
        _fit(model, noisy, _effects(model, config, base, met, config.draws, rng, common=False), config, rng)
        note("returns as targets", self._tried(noisy))
        try:
            frozen = on_arrays(model.problem, model.actions, "mean_field:frozen=true")
        except CapabilityError:
            return found
        note("frozen mean field", self._played(frozen))
        return found


@contextmanager
def _timed(clock: dict[str, float], part: str) -> Iterator[None]:
    """Adds the CPU seconds of what is inside."""
    begun = process_time()
    yield
    clock[part] += process_time() - begun


def _demand(model: Model, config: DQNConfig) -> None:
    effect = model.actions.columns.effect
    if config.network == "anchored":
        raise CapabilityError(
            "targets 'advantages' on known arm values", config.network, ("use network 'pooled'", "use targets bellman")
        )
    if model.problem.dynamics.n_actions != 2 or effect.shape[0] != effect.shape[1] or (effect.diagonal() != 1).any():
        raise CapabilityError(
            "targets 'advantages' over other columns than the arms",
            model.actions.columns,
            ("use targets bellman", "use one column an arm"),
        )
    if config.validation_episodes < 2:
        raise ModelError("train.validation_episodes is below 2", "advantages are kept or not by paired episodes.")


def _rivals(model: Model, named: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Rivals that the arms allow, and why the others are left out; acting on nobody where none is left."""
    found, skipped = [], {}
    for name in named:
        try:
            base_rule(model.problem, model.actions, name)
        except (CapabilityError, ModelError) as error:
            skipped[name] = error.message
        else:
            found.append(name)
    return found or ["none"], skipped


# ------------------------------------------------------------------------------------------------------------ episodes
def _totals(model: Model, policy: Policy, seeds: list[np.random.SeedSequence]) -> np.ndarray:
    """Expected total of each episode under a policy that decides by a program, the same draws as :func:`played`."""
    simulator, done, total, weight = Simulator(model.problem, model.actions, seeds), False, np.zeros(len(seeds)), 1.0
    memories = [policy.begin(np.random.default_rng(seed)) for seed in seeds]
    while not done:
        checkpoint()
        made = round_of(policy, simulator.state, simulator.period, memories, simulator.shared)
        memories = made.memories
        actions = np.stack([decision.action for decision in made.decisions])
        _, _, expected, done = simulator.step(actions, checked=True)
        total += weight * expected.sum(axis=1)
        weight *= model.problem.discount
    return total


def _apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Mean of a paired difference and its standard error."""
    apart = one - other
    return float(apart.mean()), float(apart.std(ddof=1) / len(apart) ** 0.5)


def _states(
    model: Model, base: BatchRule, mixture: list[BatchRule], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """States (B, N), rounds (B,) and shared states: half met by the base, half by a random rule of a mixture."""
    problem = model.problem
    rules = [base, *mixture, _at_random(model, rng)]
    which = np.where(np.arange(count) < count // 2, 0, rng.integers(len(rules), size=count))
    period = rng.integers(problem.horizon, size=count)
    state = problem.sample_start(rng, count)
    shared = None if problem.start_shared is None else np.repeat(problem.start_shared[None], count, axis=0)
    kept = state.copy(), None if shared is None else shared.copy()
    for now in range(int(period.max())):
        checkpoint()
        action = np.zeros((count, len(model.actions)), dtype=np.int64)
        for number, rule in enumerate(rules):
            rows = which == number
            if rows.any():
                action[rows] = rule(state[rows], now, None if shared is None else shared[rows])
        state, _, shared = problem.step(state, model.actions.columns.arm_action(action), shared, rng)
        due = period == now + 1
        kept[0][due] = state[due]
        if shared is not None and kept[1] is not None:
            kept[1][due] = shared[due]
    return kept[0], period, kept[1]


def _at_random(model: Model, rng: np.random.Generator) -> ScoreRule:
    def draws(states: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        score = rng.random(states.shape)
        return np.stack([np.zeros_like(score), score], axis=-1)

    return ScoreRule(model.problem, model.actions, draws)


def _effects(
    model: Model,
    config: DQNConfig,
    base: BatchRule,
    met: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    draws: int,
    rng: np.random.Generator,
    *,
    common: bool,
) -> Effects:
    """Effects at every state; ``common`` False draws anew for each action, as independent returns do."""
    states, periods, shared = met
    rollouts, n, count = Rollouts(model.problem, model.actions, base), len(model.actions), len(states)
    whole = 0 if config.network == "pooled" and not config.head else JOINT
    wide = min(n, TRIED if not whole else TRIED // 2)
    tried, action = np.zeros((count, wide), dtype=np.int64), np.zeros((count, whole, n), dtype=np.int64)
    single, joint = np.zeros((count, wide)), np.zeros((count, whole))
    for period in np.unique(periods).tolist():
        rows = np.flatnonzero(periods == period)
        size = max(1, CELLS // max(1, (wide + whole + 1) * draws * n))
        for some in np.array_split(rows, -(-len(rows) // size)):
            beside = None if shared is None else shared[some]
            tried[some] = _columns(base, states[some], period, beside, wide, rng)
            if whole:
                action[some] = _whole(model, base, states[some], period, beside, whole, rng)
            first = np.concatenate([np.zeros((len(some), 1, n), dtype=np.int64), np.eye(n, dtype=np.int64)[tried[some]],
                                    action[some]], axis=1)  # fmt: skip
            mean = rollouts.many(states[some], period, beside, first, draws, rng, common=common).mean(axis=2)
            single[some], joint[some] = mean[:, 1 : wide + 1] - mean[:, :1], mean[:, wide + 1 :] - mean[:, :1]
    return Effects(states, periods, shared, tried, single, action, joint)


def _columns(
    base: BatchRule, states: np.ndarray, period: int, shared: np.ndarray | None, wide: int, rng: np.random.Generator
) -> np.ndarray:
    """Columns tried alone at each state, (B, wide): all, or the base's best half of them and others drawn."""
    n = states.shape[1]
    if wide == n:
        return np.broadcast_to(np.arange(n), (len(states), n))
    rank = rng.random(states.shape)
    if isinstance(base, ScoreRule):
        score = np.asarray(base.scores(states, period, shared))
        order = np.argsort(-(score[..., 1] - score[..., 0]), axis=1, kind="stable")
        np.put_along_axis(rank, order[:, : wide // 2], -1.0, axis=1)
    return np.sort(np.argsort(rank, axis=1)[:, :wide], axis=1)


def _whole(
    model: Model,
    base: BatchRule,
    states: np.ndarray,
    period: int,
    shared: np.ndarray | None,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Whole actions at each state, (B, count, C): the base's own, allowed ones drawn, and those within one group."""
    problem, n = model.problem, len(model.actions)
    action = np.zeros((len(states), count, n), dtype=np.int64)
    action[:, 0] = base(states, period, shared)
    group = getattr(problem.dynamics, "group", None)
    allowed = count - 1 if group is None else (count - 1) // 2
    for k in range(len(states)):
        beside = None if shared is None else shared[k]
        now = model.actions.at(period, problem.shared_values(beside))
        action[k, 1 : allowed + 1] = now.sample(rng, allowed)
        for j in range(allowed + 1, count):
            assert group is not None
            own = np.flatnonzero(group == rng.choice(group))
            action[k, j, rng.permutation(own)[: rng.integers(1, len(own) + 1)]] = 1
    return action


# ----------------------------------------------------------------------------------------------------------------- fit
def _anchor(network: PooledQ, prior: np.ndarray | None, effects: Effects) -> float:
    """Begin the network at the costate's index times the slope that fits the effects best; the slope."""
    assert prior is not None
    rows = np.arange(len(effects.state))[:, None]
    at = prior[effects.period[:, None], effects.tried, effects.state[rows, effects.tried]]
    index = at[..., 1] - at[..., 0]
    slope = float((index * effects.single).sum() / max(float((index**2).sum()), 1e-300))
    network.prior = torch.as_tensor(slope * prior)
    with torch.no_grad():
        # The residual begins at nothing.
        last = network.arm[-1]
        assert isinstance(last, torch.nn.Linear)
        last.weight.zero_()
        last.bias.zero_()
    return slope


def _fit(model: Model, network: QNetwork, effects: Effects, config: DQNConfig, rng: np.random.Generator) -> float:
    """Fit differences of Q to effects; mean squared error of the last pass, in units of the mean absolute effect."""
    unit = float(np.abs(np.concatenate([effects.single.ravel(), effects.joint.ravel()])).mean()) or 1.0
    # The read-out starts at the effects' own size, so that rewards in another unit give the same run.
    if isinstance(network, PooledQ):
        network.scale.fill_(unit / max(1.0, float(network.horizon) / 2.0))
    state, period, tried = (torch.as_tensor(part) for part in (effects.state, effects.period, effects.tried))
    shared = None if effects.shared is None else torch.as_tensor(effects.shared)
    single = torch.as_tensor(effects.single / unit, dtype=torch.float32)
    action, joint = torch.as_tensor(effects.action), torch.as_tensor(effects.joint / unit, dtype=torch.float32)
    # Effects of several arms together are larger than those of one: each whole action counts by its size.
    size = action.sum(dim=2).clamp(min=1).float()
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    steps, penalties = max(1, -(-len(state) // BATCH)), Penalties(model, config, network)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.passes * steps)
    error = 0.0
    for turn in range(config.passes):
        checkpoint()
        order, error = rng.permutation(len(state)), 0.0
        for part in np.array_split(order, steps):
            rows = torch.as_tensor(part)
            at = state[rows], period[rows]
            beside = None if shared is None else shared[rows]
            said = torch.gather(network.single_effects(*at, beside), 1, tried[rows]) / unit
            loss = ((said - single[rows]) ** 2).mean()
            if action.shape[1]:
                apart = network.effects(*at, action[rows], beside) / unit - joint[rows]
                loss = loss + (apart**2 / size[rows]).mean()
            error += float(loss.detach()) / steps
            loss = loss + penalties(network, *at, beside, (turn + 1) / config.passes)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    penalties.settle(network)
    return error


class _ListedRule:
    """The best of all allowed actions by any network, on arrays; exact."""

    def __init__(self, network: QNetwork, listed: np.ndarray) -> None:
        self._network = network
        # Where nothing gains, nothing is done: ties go to the action listed first.
        self._listed = listed[np.argsort(listed.sum(axis=1), kind="stable")].astype(np.int64)

    def __call__(self, states: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        """Actions (B, C) at states (B, N) and shared states (B, K)."""
        every = torch.as_tensor(self._listed)
        best = np.zeros(len(states), dtype=np.int64)
        for part in np.array_split(np.arange(len(states)), max(1, len(states) * every.numel() // CELLS)):
            beside = None if shared is None else torch.as_tensor(np.asarray(shared[part]))
            at = torch.full((len(part),), period, dtype=torch.long)
            with torch.no_grad():
                here = every.expand(len(part), -1, -1)
                value = self._network.effects(torch.as_tensor(np.array(states[part])), at, here, beside)
            best[part] = value.argmax(dim=1).numpy()
        return np.asarray(self._listed[best])


def _exact_rule(model: Model, network: QNetwork) -> BatchRule | None:
    """The network's exact choice on arrays, by loads, a list, or effects that add up; None: by a program only."""
    if isinstance(network, LoadQ):
        try:
            return LoadRule(model.problem, model.actions, network)
        except CapabilityError:
            return None
    if isinstance(network, PooledQ) and network.head is None:
        return _by_single_effects(model, network)
    listed = None if model.actions.open_constraints else model.actions.enumerate(LISTED)
    return None if listed is None else _ListedRule(network, listed)


def _rule(model: Model, network: QNetwork) -> BatchRule:
    """The network's choice on arrays: exact where that needs no program, else by its single effects."""
    exact = _exact_rule(model, network)
    return _by_single_effects(model, network) if exact is None else exact


def _by_single_effects(model: Model, network: QNetwork) -> ScoreRule:
    def effects(states: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        beside = None if shared is None else torch.as_tensor(np.asarray(shared))
        with torch.no_grad():
            at = torch.full((len(states),), period, dtype=torch.long)
            said = network.single_effects(torch.as_tensor(np.array(states)), at, beside).double().numpy()
        return np.stack([np.zeros_like(said), said], axis=-1)

    return ScoreRule(model.problem, model.actions, effects)


def _policy(model: Model, config: DQNConfig, network: QNetwork) -> Policy:
    chooser = Chooser(model.problem, model.actions, network.objective(), repeatable(config.solver), title=model.title)
    return ChooserPolicy(chooser, "learned")
