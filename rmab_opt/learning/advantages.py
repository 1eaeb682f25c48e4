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

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rmab_opt.decisions import Chooser, Model
from rmab_opt.decisions.policy import Policy, make_policy, round_of
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.learning import targets
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.networks import PooledQ, make_network
from rmab_opt.learning.run_folder import RunFolder
from rmab_opt.learning.simulator import Simulator
from rmab_opt.planning.improve import BatchRule, Rollouts, ScoreRule, base_rule
from rmab_opt.solver import repeatable

__all__ = ["RIVALS", "learn"]

RIVALS = ("mean_field", "hand", "single_gains")
"""Planning rules that a network has to beat, those of them that the arms allow."""

JOINT = 8
"""Random whole actions a state, where one round is no sum over arms."""

BATCH = 16
"""States of one gradient step."""


@dataclass(frozen=True, eq=False)
class Effects:
    """What actions add over doing nothing: single columns (B, C), and whole actions (B, M, C) with theirs (B, M)."""

    state: np.ndarray
    period: np.ndarray
    shared: np.ndarray | None
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
        When the network is not pooled, or columns are not the arms themselves.
    """
    _demand(model, config)
    weights, walk, rolls, fits, validation = np.random.SeedSequence(seed).spawn(5)
    scale = targets.reward_unit(model.problem, model.actions, np.random.default_rng(walk))
    planned, skipped = _planned(model)
    totals = {name: _totals(model, make_policy(name, model), config, validation) for name in planned}
    best = max(planned, key=lambda name: totals[name].mean())
    base, base_name = base_rule(model.problem, model.actions, best), best
    rng, fit_seed = np.random.default_rng(walk), int(weights.generate_state(1)[0])
    mixture: list[BatchRule] = [base_rule(model.problem, model.actions, name) for name in ("none", "single_gains")]
    log: list[dict[str, Any]] = []
    nets: dict[str, PooledQ] = {}
    first: Effects | None = None
    for turn in range(config.rounds):
        generator = np.random.default_rng(rolls.spawn(1)[0])
        met = _states(model, base, mixture, config.states, rng)
        effects = _effects(model, base, met, config.draws * 2**turn, generator, common=True)
        first = effects if first is None else first
        network = _fresh(model, config, scale, fit_seed + turn)
        loss = _fit(network, effects, config, np.random.default_rng(fits.spawn(1)[0]))
        name = f"round {turn + 1}"
        nets[name], totals[name] = network, _totals(model, _policy(model, config, network), config, validation)
        row = {"episode": turn + 1, "reward": float(totals[name].mean()), "loss": loss, "base": base_name}
        log.append({**row, "validation": float(totals[name].mean())})
        if on_event is not None:
            on_event(log[-1])
        gain, error = _apart(totals[name], totals[base_name])
        if gain <= error:
            break
        mixture.append(base)
        base, base_name = _rule(model, network), name
    chosen = max(nets, key=lambda name: totals[name].mean())
    beaten = {name: _apart(totals[chosen], totals[name]) for name in planned}
    keeps = all(gain > error for gain, error in beaten.values())
    outcome = {
        "targets": "advantages",
        "kept": chosen if keeps else f"planning rule kept: {best}",
        "validation": {name: float(each.mean()) for name, each in totals.items()},
        "paired": {name: {"gain": gain, "standard_error": error} for name, (gain, error) in beaten.items()},
        "left_out": skipped,
        "ablations": _ablations(model, config, nets[chosen], met, scale, fit_seed, totals[chosen], validation)
        if config.ablations
        else {},
    }
    arrays = {key: value.detach().cpu().numpy() for key, value in nets[chosen].state_dict().items()}
    meta: dict[str, Any] = {"config": record["config"], "fingerprint": record["fingerprint"], "anchor": None}
    if not keeps:
        meta |= {"policy": "planned", "planned": best}
    outcome["digests"] = {"weights": folder.write_tensors("weights", arrays, meta)}
    folder.write_log(log)
    return log, outcome


def _demand(model: Model, config: DQNConfig) -> None:
    effect = model.actions.columns.effect
    if config.network != "pooled":
        raise CapabilityError("effects of single arms", config.network, ("use network 'pooled'", "use targets bellman"))
    if model.problem.dynamics.n_actions != 2 or effect.shape[0] != effect.shape[1] or (effect.diagonal() != 1).any():
        raise CapabilityError(
            "targets 'advantages' over other columns than the arms",
            model.actions.columns,
            ("use targets bellman", "use one column an arm"),
        )
    if config.validation_episodes < 2:
        raise ModelError("train.validation_episodes is below 2", "advantages are kept or not by paired episodes.")


def _planned(model: Model) -> tuple[list[str], dict[str, str]]:
    """Rivals that the arms allow, and why the others are left out."""
    found, skipped = [], {}
    for name in RIVALS:
        try:
            make_policy(name, model)
            base_rule(model.problem, model.actions, name)
        except (CapabilityError, ModelError) as error:
            skipped[name] = error.message
        else:
            found.append(name)
    return found, skipped


# ------------------------------------------------------------------------------------------------------------ episodes
def _totals(model: Model, policy: Policy, config: DQNConfig, validation: np.random.SeedSequence) -> np.ndarray:
    """Expected total of each validation episode, the same draws for every policy."""
    count, problem = config.validation_episodes, model.problem
    seeds = [np.random.SeedSequence(validation.entropy, spawn_key=(*validation.spawn_key, k)) for k in range(count)]
    simulator, done, total, weight = Simulator(problem, model.actions, seeds), False, np.zeros(count), 1.0
    memories = [policy.begin(np.random.default_rng(seed)) for seed in seeds]
    while not done:
        made = round_of(policy, simulator.state, simulator.period, memories, simulator.shared)
        memories = made.memories
        actions = np.stack([decision.action for decision in made.decisions])
        _, _, expected, done = simulator.step(actions, checked=True)
        total += weight * expected.sum(axis=1)
        weight *= problem.discount
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
    base: BatchRule,
    met: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    draws: int,
    rng: np.random.Generator,
    *,
    common: bool,
) -> Effects:
    """Effects at every state; ``common`` False draws anew for each action, as independent returns do."""
    states, periods, shared = met
    rollouts, n = Rollouts(model.problem, model.actions, base), len(model.actions)
    whole = JOINT if getattr(model.problem.dynamics, "coupled", False) else 0
    alone = np.vstack([np.zeros((1, n), dtype=np.int64), np.eye(n, dtype=np.int64)])
    single, action, joint = (
        np.zeros((len(states), n)),
        np.zeros((len(states), whole, n)),
        np.zeros((len(states), whole)),
    )
    for k, (state, period) in enumerate(zip(states, periods.tolist(), strict=True)):
        beside = None if shared is None else shared[k]
        first = alone
        if whole:
            now = model.actions.at(period, model.problem.shared_values(beside))
            own = base(state[None], period, None if beside is None else beside[None])
            action[k] = np.vstack([own, now.sample(rng, whole - 1)])
            first = np.vstack([alone, action[k].astype(np.int64)])
        mean = rollouts(state, period, beside, first, draws, rng, common=common).mean(axis=1)
        single[k], joint[k] = mean[1 : n + 1] - mean[0], mean[n + 1 :] - mean[0]
    return Effects(states, periods, shared, single, action, joint)


# ----------------------------------------------------------------------------------------------------------------- fit
def _fresh(model: Model, config: DQNConfig, scale: float, seed: int) -> PooledQ:
    made = make_network(
        config.network, model.problem, model.actions.columns, config.hidden, config.head, scale, seed % 2**31
    )
    assert isinstance(made, PooledQ)
    return made


def _fit(network: PooledQ, effects: Effects, config: DQNConfig, rng: np.random.Generator) -> float:
    """Fit differences of Q to effects; mean squared error of the last pass, in units of the mean absolute effect."""
    unit = float(np.abs(np.concatenate([effects.single.ravel(), effects.joint.ravel()])).mean()) or 1.0
    # The read-out starts at the effects' own size, so that rewards in another unit give the same run.
    horizon = float(network.horizon)
    network.scale.fill_(unit / max(1.0, horizon / 2.0))
    state, period = torch.as_tensor(effects.state), torch.as_tensor(effects.period)
    shared = None if effects.shared is None else torch.as_tensor(effects.shared)
    single = torch.as_tensor(effects.single / unit, dtype=torch.float32)
    action = torch.as_tensor(effects.action.astype(np.int64))
    joint = torch.as_tensor(effects.joint / unit, dtype=torch.float32)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = max(1, -(-len(state) // BATCH))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.passes * steps)
    error = 0.0
    for _ in range(config.passes):
        order, error = rng.permutation(len(state)), 0.0
        for part in np.array_split(order, steps):
            rows = torch.as_tensor(part)
            beside = None if shared is None else shared[rows]
            said = network.single_effects(state[rows], period[rows], beside) / unit
            loss = ((said - single[rows]) ** 2).mean()
            if action.shape[1]:
                loss = loss + _joint_loss(network, (state[rows], period[rows], beside), action[rows], joint[rows], unit)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            error += float(loss.detach()) / steps
    return error


def _joint_loss(
    network: PooledQ,
    at: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    action: torch.Tensor,
    effect: torch.Tensor,
    unit: float,
) -> torch.Tensor:
    """Squared error of Q(s, a) - Q(s, nothing) for whole actions (B, M, C)."""
    (state, period, shared), (count, many, _) = at, action.shape
    flat = [None if part is None else part.repeat_interleave(many, dim=0) for part in (state, period, shared)]
    none = torch.zeros((count, action.shape[2]), dtype=torch.long)
    values = []
    for given, chosen in ((tuple(flat), action.flatten(0, 1)), ((state, period, shared), none)):
        arms, rest = network(given[0], given[1], chosen, given[2])
        values.append(rest + (arms.sum(dim=1) if arms is not None else 0.0))
    apart = values[0].reshape(count, many) - values[1][:, None]
    # Effects of several arms together are larger than those of one, and as many in a state as fit here.
    return (((apart / unit) - effect) ** 2).mean() / max(1.0, float(action.sum(dim=2).float().mean()))


def _rule(model: Model, network: PooledQ) -> ScoreRule:
    """The network's single effects as a rule on arrays."""

    def effects(states: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        beside = None if shared is None else torch.as_tensor(np.asarray(shared))
        with torch.no_grad():
            at = torch.full((len(states),), period, dtype=torch.long)
            said = network.single_effects(torch.as_tensor(np.array(states)), at, beside).double().numpy()
        return np.stack([np.zeros_like(said), said], axis=-1)

    return ScoreRule(model.problem, model.actions, effects)


def _policy(model: Model, config: DQNConfig, network: PooledQ) -> Policy:
    from rmab_opt.decisions.policy import ChooserPolicy

    chooser = Chooser(model.problem, model.actions, network.objective(), repeatable(config.solver), title=model.title)
    return ChooserPolicy(chooser, "learned")


def _ablations(
    model: Model,
    config: DQNConfig,
    network: PooledQ,
    met: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    scale: float,
    seed: int,
    kept: np.ndarray,
    validation: np.random.SeedSequence,
) -> dict[str, Any]:
    """The network against itself without a part: head 0, independent returns as targets, the frozen plan."""
    found: dict[str, Any] = {}

    def note(name: str, total: np.ndarray) -> None:
        gain, error = _apart(kept, total)
        found[name] = {"mean": float(total.mean()), "kept_is_better_by": gain, "standard_error": error}

    base = base_rule(model.problem, model.actions, "single_gains")
    for name, common in (("head 0", True), ("returns as targets", False)):
        plain = _fresh(model, config if name != "head 0" else _headless(config), scale, seed)
        rng = np.random.default_rng(seed)
        _fit(plain, _effects(model, base, met, config.draws, rng, common=common), config, rng)
        note(name, _totals(model, _policy(model, config, plain), config, validation))
    try:
        frozen = make_policy("mean_field:frozen=true", model)
    except CapabilityError:
        return found
    note("frozen mean field", _totals(model, frozen, config, validation))
    return found


def _headless(config: DQNConfig) -> DQNConfig:
    from dataclasses import replace

    return replace(config, head=0)
