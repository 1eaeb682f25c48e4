"""What an inspection is worth: Whittle indices of arms with windows, all arms in lockstep, and exact gains.

An inspection resets its arm, so between two inspections everything is known: an arm is a small program over the
slots of its next inspection. For one charge a policy iteration over "next inspection after this one" solves it
exactly; the index is the charge at which inspecting now and the best other course are worth the same, found by
Newton steps on that piecewise linear difference, with bisection to fall back on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.settings.inspection.beliefs import BeliefChains, Windows

__all__ = ["EncodedIndices", "encoded_indices", "exact_gains", "free_indices"]

CHUNK = 1_500_000
"""Numbers in the largest array of one lockstep step; keeps it in the cache's reach."""

ADVANTAGE_TOLERANCE = 1e-11
"""A difference of two values this small is zero: values reach 1 / (1 - discount), known to about 1e-14 of that."""

DECIDED = 1e-8
"""An advantage below this does not count for or against indexability."""

PROBES = 32
"""Charges an arm is tested at for its verdict, spread over the gaps between its indices."""

MOST_STEPS = 200
"""Newton and bisection steps; bisection alone needs 60."""


@dataclass(frozen=True, eq=False)
class EncodedIndices:
    """Whittle indices of every state of encoded arms.

    ``values[n, k, t, m]``, shape (N, K, T, M): belief index k, slot t, m inspections used in the window. Exactly 0 in
    states where an inspection has no effect; negative where waiting gains more. ``indexable`` (N,) is the verdict:
    at each of up to ``PROBES`` charges between the arm's indices, exactly the states of smaller index are passive.
    """

    values: np.ndarray
    indexable: np.ndarray

    def at(self, age: np.ndarray, slot: np.ndarray | int, used: np.ndarray | int) -> np.ndarray:
        """Index of every arm in its state, (N,); 0 once the allowance is used."""
        n, k, _, m = self.values.shape
        used = np.broadcast_to(used, n)
        found = self.values[np.arange(n), np.minimum(age, k - 1), slot, np.minimum(used, m - 1)]
        return np.where(used < m, found, 0.0)


def _check_discount(discount: float) -> None:
    if not 0 < discount < 1:
        raise ModelError(f"discount is {discount!r}", "give a number above 0 and below 1.")


def free_indices(chains: BeliefChains, discount: float) -> np.ndarray:
    """Whittle index of arms that may be inspected in every slot, by belief index; shape (N, K).

    w(k) = sum_{i=0..k} discount^i (b_i - b_{k+1}), exact for persistence >= 0.

    Raises
    ------
    ModelError
        When an arm's persistence is negative: threshold policies are then not optimal and the formula is wrong.
    """
    _check_discount(discount)
    bad = np.flatnonzero(chains.persistence < 0)
    if bad.size:
        raise ModelError(
            f"arm {bad[0]} has negative persistence {chains.persistence[bad[0]]:g}: its index has no closed form",
            "use encoded_indices with a window over the whole period.",
        )
    beliefs = chains.beliefs
    power = discount ** np.arange(beliefs.shape[1])
    after = np.concatenate([beliefs[:, 1:], beliefs[:, -1:]], axis=1)
    return np.cumsum(beliefs * power, axis=1) - after * np.cumsum(power)


class _Pattern:
    """The moves of arms that share one window pattern, from the pattern's first open slot on.

    A node is "inspected at slot u, the c-th time in this window". From a node, or from a query (slot t with m
    inspections used and none now), the next inspection comes d slots later and leads to another node.
    """

    def __init__(self, label: np.ndarray, allowance: np.ndarray, longest: int, discount: float) -> None:
        period = len(label)
        slots = np.flatnonzero(label >= 0)
        self.queries = [(int(t), m) for t in slots for m in range(allowance[label[t]])]
        self.nodes = [(t, m + 1) for t, m in self.queries]
        number = {node: i for i, node in enumerate(self.nodes)}
        # Past the chain's end nothing changes but the slot: if no inspection within one period more, then never.
        reach = [[d for d in range(1, longest + period) if label[(u + d) % period] >= 0] for u in range(period)]
        rest = [np.array([v for v in slots if v > u and label[v] == label[u]]) - u for u in range(period)]
        # With a negative charge an arm collects it in the slots where its window is used up.
        idle = [
            float((discount ** rest[u]).sum()) if count == allowance[label[u]] and rest[u].size else 0.0
            for u, count in self.nodes
        ]

        def moves(slot: int, used: int) -> list[tuple[int, int]]:
            found = []
            for d in reach[slot]:
                v, same = (slot + d) % period, slot + d < period and label[(slot + d) % period] == label[slot]
                if same and used >= allowance[label[slot]]:
                    continue
                found.append((d, number[v, used + 1 if same else 1]))
            return found

        def arrays(lists: list[list[tuple[int, int]]], lag: int) -> tuple[np.ndarray, ...]:
            width = max(len(found) for found in lists)
            d = np.array([[m[0] for m in found] + [0] * (width - len(found)) for found in lists])
            target = np.array([[m[1] for m in found] + [0] * (width - len(found)) for found in lists])
            pay = np.where(d > 0, discount ** (d - lag), 0.0)
            return d, target, pay, pay * np.array(idle)[target], np.where(d > 0, discount ** (d - lag + 1), 0.0)

        # After a node the clock starts one slot later (the reset slot is counted with the inspection itself).
        self.node = arrays([moves(u, c) for u, c in self.nodes], lag=1)
        self.query = arrays([moves(t, m) for t, m in self.queries], lag=0)
        self.idle = np.array(idle)
        self.width = max(self.node[0].shape[1], self.query[0].shape[1]) + 1


class _Lockstep:
    """Values of a group of arms with one pattern, as functions of the charge."""

    def __init__(self, chains: BeliefChains, pattern: _Pattern, discount: float) -> None:
        self.pattern, self.discount = pattern, discount
        beliefs, size = chains.beliefs, chains.beliefs.shape[1]
        farthest = int(max(pattern.node[0].max(initial=1), pattern.query[0].max(initial=1)))
        index = np.minimum(np.arange(size + farthest + 1), size - 1)
        terms = beliefs[:, index] * discount ** np.arange(len(index))
        sums = np.concatenate([np.zeros((len(beliefs), 1)), np.cumsum(terms, axis=1)], axis=1)
        endless = sums[:, -1] + beliefs[:, -1] * discount ** len(index) / (1 - discount)
        d = pattern.node[0]
        constant = (sums[:, np.maximum(d, 1)] - sums[:, 1, None, None]) / discount + pattern.node[2]
        constant = np.where(d > 0, constant, -np.inf)
        never = ((endless - sums[:, 1]) / discount)[:, None, None].repeat(len(d), axis=1)
        self.node_constant = np.concatenate([constant, never], axis=2)
        k = np.arange(size)
        scale = discount ** (k + 1.0)
        d = pattern.query[0]
        steps = np.arange(farthest + 1)
        passive = (sums[:, k[:, None] + 1 + steps] - sums[:, k + 1][:, :, None]) / scale[:, None]
        self.passive = passive + discount**steps
        self.passive_never = (endless[:, None] - sums[:, k + 1]) / scale
        pad = np.zeros((len(pattern.nodes), 1))
        _, target, pay, idle, weight = pattern.node
        self.node_target = np.concatenate([target, pad.astype(np.int64)], axis=1)
        self.node_pay, self.node_idle = np.concatenate([pay, pad], axis=1), np.concatenate([idle, pad], axis=1)
        self.node_weight = np.concatenate([weight, pad], axis=1)
        self.policy: np.ndarray | None = None

    def nodes(self, arm: np.ndarray, charge: np.ndarray, policy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of all nodes and their slopes in the charge, both (Q, n); improves ``policy`` (Q, n) in place."""
        constant = self.node_constant[arm]
        gained = (
            constant - charge[:, None, None] * self.node_pay - np.minimum(charge, 0)[:, None, None] * self.node_idle
        )
        slope_of = -(self.node_pay + np.where(charge < 0, 1.0, 0.0)[:, None, None] * self.node_idle)
        row = np.arange(len(self.pattern.nodes))
        queries = np.arange(len(arm))[:, None]
        while True:
            weight, target = self.node_weight[row, policy], self.node_target[row, policy]
            right = np.stack([gained[queries, row, policy], slope_of[queries, row, policy]], axis=2)
            values = self._evaluate(weight, target, right)
            worth = gained + self.node_weight * values[:, self.node_target, 0]
            best = worth.argmax(axis=2)
            better = worth[queries, row, best] > worth[queries, row, policy] + ADVANTAGE_TOLERANCE
            if not better.any():
                return values[..., 0], values[..., 1]
            policy[better] = best[better]

    @staticmethod
    def _evaluate(weight: np.ndarray, target: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Solution of x_i = right_i + weight_i x_target(i), by path doubling."""
        values, queries = right.copy(), np.arange(len(weight))[:, None]
        while (weight > 1e-17).any():
            values = values + weight[..., None] * values[queries, target]
            weight, target = weight * weight[queries, target], target[queries, target]
        return values

    def advantage(
        self,
        arm: np.ndarray,
        k: np.ndarray,
        query: np.ndarray,
        charge: np.ndarray,
        nodes: np.ndarray,
        slopes: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inspecting now minus the best other course, and its slope in the charge; all (Q,)."""
        distance, target, pay, idle, weight = self.pattern.query
        rows = np.arange(len(arm))
        negative = np.where(charge < 0, 1.0, 0.0)
        active = 1.0 - charge - np.minimum(charge, 0) * self.pattern.idle[query] + self.discount * nodes[rows, query]
        active_slope = -1.0 - negative * self.pattern.idle[query] + self.discount * slopes[rows, query]
        constant = self.passive[arm[:, None], k[:, None], distance[query]]
        constant = np.where(distance[query] > 0, constant, -np.inf)
        cost = charge[:, None] * pay[query] + np.minimum(charge, 0)[:, None] * idle[query]
        worth = constant - cost + weight[query] * nodes[rows[:, None], target[query]]
        best = worth.argmax(axis=1)
        passive, chosen = worth[rows, best], (query, best)
        passive_slope = -pay[chosen] - negative * idle[chosen] + weight[chosen] * slopes[rows, target[chosen]]
        never = self.passive_never[arm, k]
        passive_slope = np.where(never > passive, 0.0, passive_slope)
        return active - np.maximum(passive, never), active_slope - passive_slope

    def indices(self, arm: np.ndarray, k: np.ndarray, query: np.ndarray) -> np.ndarray:
        """The charge at which each query's advantage vanishes, (Q,)."""
        charge = np.zeros(len(arm))
        low, high = np.full(len(arm), -np.inf), np.full(len(arm), np.inf)
        policy = np.full((len(arm), len(self.pattern.nodes)), self.node_constant.shape[2] - 1)
        left = np.arange(len(arm))
        for _ in range(MOST_STEPS):
            at = charge[left]
            mine = policy[left]
            nodes, slopes = self.nodes(arm[left], at, mine)
            policy[left] = mine
            gain, slope = self.advantage(arm[left], k[left], query[left], at, nodes, slopes)
            low[left] = np.where(gain > 0, at, low[left])
            high[left] = np.where(gain < 0, at, high[left])
            # At a charge of exactly zero the slope to the left differs; its sign is settled, the step may overshoot.
            step = at - gain / np.where(np.abs(slope) > 1e-12, slope, -1.0)
            middle = np.where(gain > 0, 2.0 * np.abs(at) + 1.0, -2.0 * np.abs(at) - 1.0)
            held = np.isfinite(low[left]) & np.isfinite(high[left])
            middle[held] = 0.5 * (low[left][held] + high[left][held])
            inside = (step > low[left]) & (step < high[left]) & (slope < -1e-12)
            done = (np.abs(gain) <= ADVANTAGE_TOLERANCE) | (high[left] - low[left] < 1e-13)
            charge[left] = np.where(done, at, np.where(inside, step, middle))
            left = left[~done]
            if not left.size:
                return charge
        return charge


def _patterns(windows: Windows) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Groups of arms whose windows agree up to a shift: (arms, first open slots, label from there, allowance)."""
    some = np.flatnonzero(windows.open.any(axis=1))
    first = windows.open[some].argmax(axis=1)
    turned = np.take_along_axis(
        windows.label[some], (first[:, None] + np.arange(windows.n_slots)) % windows.n_slots, axis=1
    )
    key, group = np.unique(np.concatenate([turned, windows.allowance[some]], axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    return [
        (some[group == g], first[group == g], row[: windows.n_slots], row[windows.n_slots :])
        for g, row in enumerate(key)
    ]


def encoded_indices(
    chains: BeliefChains, windows: Windows, discount: float = 0.99, *, verdict: bool = True
) -> EncodedIndices:
    """Whittle indices of arms whose windows are part of their state, for every state of every arm.

    The charge lies on every inspection, the effect-free ones too; the reward is the belief after the slot
    ("successor convention": indices by the reward of the current state are ``discount`` times as large).

    Parameters
    ----------
    discount
        Per slot, in (0, 1); the encoded process is endless and repeats its period.
    verdict
        Whether to test indexability; all True otherwise.

    Raises
    ------
    ModelError
        When sizes or the discount do not fit.

    References
    ----------
    Mao, Perrault (AAMAS 2024); the reference bisects over whole value iterations and reports negative indices as
    zero.
    """
    _check_discount(discount)
    if len(chains) != windows.n_arms:
        raise ModelError(f"{len(chains)} belief chains, {windows.n_arms} arms with windows", "give one of each.")
    n_beliefs, most = chains.beliefs.shape[1], int(windows.allowance.max())
    values = np.zeros((len(chains), n_beliefs, windows.n_slots, most))
    indexable = np.ones(len(chains), dtype=bool)
    for arms, first, label, allowance in _patterns(windows):
        # Arms in the order of their chains' length: a chunk is as wide as its longest chain.
        order = np.argsort(chains.length[arms], kind="stable")
        at = 0
        while at < len(order):
            length = int(chains.length[arms[order[at]]])
            pattern = _Pattern(label, allowance, length, discount)
            count = max(1, CHUNK // (length * len(pattern.queries) * len(pattern.nodes) * pattern.width))
            part = order[at : at + count]
            part = part[chains.length[arms[part]] <= max(length + 1, int(1.1 * length))]
            at += len(part)
            longest = int(chains.length[arms[part]].max())
            pattern = _Pattern(label, allowance, longest, discount) if longest > length else pattern
            group = _Lockstep(chains.of(arms[part]), pattern, discount)
            found, fine = _solve(group, chains.length[arms[part]], verdict)
            indexable[arms[part]] = fine
            for number, (slot, used) in enumerate(pattern.queries):
                values[arms[part], :longest, (first[part] + slot) % windows.n_slots, used] = found[:, :, number]
            # Ages past an arm's own chain repeat its last belief, so that a lookup never meets a hole.
            for number, (slot, used) in enumerate(pattern.queries):
                here = (first[part] + slot) % windows.n_slots
                values[arms[part], longest:, here, used] = found[:, -1:, number]
    return EncodedIndices(values, indexable)


def _solve(group: _Lockstep, length: np.ndarray, verdict: bool) -> tuple[np.ndarray, np.ndarray]:
    """Indices (A, K, queries) and verdicts (A,) of one chunk."""
    n, size, n_queries = len(length), group.passive.shape[1], len(group.pattern.queries)
    arm, k, query = np.nonzero(np.arange(size)[None, :, None] < np.repeat(length, n_queries).reshape(n, 1, n_queries))
    found = np.zeros((n, size, n_queries))
    found[arm, k, query] = group.indices(arm, k, query)
    last = np.minimum(np.arange(size)[None, :], length[:, None] - 1)
    found = np.take_along_axis(found, last[:, :, None], axis=1)
    fine = np.ones(n, dtype=bool)
    if verdict:
        ordered = np.sort(found.reshape(n, -1), axis=1)
        middle = np.concatenate(
            [ordered[:, :1] - 0.1, 0.5 * (ordered[:, 1:] + ordered[:, :-1]), ordered[:, -1:] + 0.1], axis=1
        )
        chosen = np.unique(np.linspace(0, middle.shape[1] - 1, PROBES).astype(int))
        for probe in chosen:
            charge = middle[:, probe]
            policy = np.full((n, len(group.pattern.nodes)), group.node_constant.shape[2] - 1)
            nodes, slopes = group.nodes(np.arange(n), charge, policy)
            gain, _ = group.advantage(arm, k, query, charge[arm], nodes[arm], slopes[arm])
            above = found[arm, k, query] - charge[arm]
            wrong = (np.abs(gain) > DECIDED) & (np.abs(above) > DECIDED) & ((gain > 0) != (above > 0))
            fine[arm[wrong]] = False
    return found, fine


def exact_gains(chains: BeliefChains, age: np.ndarray, n_slots: int, *, slot: int = 0, beyond: int = 0) -> np.ndarray:
    """Reward gained by inspecting an arm in each slot of a period once, over not at all; shape (N, T).

    c[n, t] = sum_{i=0..T-1-t+beyond} (b_i - b_{age + (t - slot) + 1 + i}); exact, because beliefs are certain.
    Slots before ``slot`` are past and gain 0.

    Parameters
    ----------
    age
        Slots since the last inspection at the start of slot ``slot``, int (N,).
    n_slots
        Slots T of the period.
    beyond
        Slots after the period whose beliefs count too: 0 for a closed horizon, about T for a going concern.
    """
    age = np.asarray(age, dtype=np.int64)
    if age.shape != (len(chains),) or (age < 0).any():
        raise ModelError(f"ages have shape {age.shape}", "give whole numbers from 0, one an arm.")
    # Ages past the stored width repeat the last belief, so that the age itself may be cut there.
    age = np.minimum(age, chains.beliefs.shape[1])
    slots = np.arange(slot, n_slots)
    left = n_slots - slots + beyond
    sums = chains.sums(int(age.max(initial=0)) + n_slots - slot + beyond + 1)
    begin = age[:, None] + (slots - slot) + 1
    kept = np.take_along_axis(sums, begin + left, axis=1) - np.take_along_axis(sums, begin, axis=1)
    gains = np.zeros((len(chains), n_slots))
    gains[:, slot:] = sums[:, left] - kept
    return gains
