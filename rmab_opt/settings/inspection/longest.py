"""The best walk of every arm at prices of its slots, by dynamic programs over days that all arms go through together.

Slots stand before arms in every array, so that a step of the program is one pass over neighbouring memory. Walks are
found twice: the best one (``best``), and all of them weighed by what they are worth (``soft``), which makes what arms
ask for at prices a smooth function of the prices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["LAYERS", "NEVER", "Longest"]

LAYERS = 4
"""Visits up to which an arm's best walk is found with their number exactly; above, with any number."""

NEVER = -1e15
"""Worth of what cannot be; finite, so that sums with it stay numbers."""

BLOCK = 128
"""Arms that go through a step together: what a step touches then lies near."""


@dataclass(frozen=True, eq=False)
class Longest:
    """What walks of some arms gain, slots S by arms n.

    Parameters
    ----------
    first
        (S, n): gain of a walk's first visit, by slot; ``NEVER`` where there is no cell.
    lead, tail, between
        (S, n), (S, n), (L, n): a visit in v after one in u gains ``lead[v] + tail[u] + between[v - u]``.
    least
        Visits each arm needs, (n,).
    many
        Visits an arm can get at most; above ``LAYERS`` any number.
    apart
        Slots from visit to visit at least.
    """

    first: np.ndarray
    lead: np.ndarray
    tail: np.ndarray
    between: np.ndarray
    least: np.ndarray
    many: int
    apart: int

    @property
    def free(self) -> bool:
        """Whether walks are found with any number of visits."""
        return self.many > LAYERS

    def of(self, arms: np.ndarray | slice) -> Longest:
        """Some of the arms."""
        return replace(
            self, first=self.first[:, arms], lead=self.lead[:, arms], tail=self.tail[:, arms],
            between=self.between[:, arms], least=self.least[arms],
        )  # fmt: skip

    def at(self, cost: np.ndarray) -> Longest:
        """The same when a visit costs so much, (S, n)."""
        return replace(self, first=self.first - cost, lead=self.lead - cost)

    def only(self, open_: np.ndarray) -> Longest:
        """The same with some cells alone, bool (S, n)."""
        shut = np.where(open_, 0.0, -NEVER)
        return replace(self, first=self.first - shut, lead=self.lead - shut)

    def worth(self, visits: np.ndarray) -> np.ndarray:
        """What some walks gain, (n,), from their visits, bool (S, n)."""
        total, last = np.zeros(visits.shape[1]), np.full(visits.shape[1], -1)
        for v in np.flatnonzero(visits.any(axis=1)).tolist():
            here = np.flatnonzero(visits[v])
            before = last[here]
            follows = self.lead[v, here] + self.tail[before, here] + self.between[v - before, here]
            total[here] += np.where(before < 0, self.first[v, here], follows)
            last[here] = v
        return total

    def means(self, begin: np.ndarray) -> Longest:
        """Mean gains of neighbouring arms, groups beginning at ``begin`` (G,): a visit of each gains the mean."""
        count = np.diff(np.append(begin, self.first.shape[1]))
        parts = (np.add.reduceat(each, begin, axis=1) / count for each in (self.first, self.lead, self.tail))
        first, lead, tail = parts
        between = np.add.reduceat(self.between, begin, axis=1) / count
        return replace(self, first=first, lead=lead, tail=tail, between=between, least=self.least[begin])

    # --------------------------------------------------------------------------------------------------- the best walk
    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """(worth of each arm's best walk (n,), its visits bool (S, n)); 0 and none where no walk is better."""
        worth, visits = np.zeros(self.first.shape[1]), np.zeros(self.first.shape, dtype=bool)
        for begin in range(0, len(worth), BLOCK):
            part = slice(begin, begin + BLOCK)
            worth[part], visits[:, part] = self.of(part)._walks()
        return worth, visits

    def _walks(self) -> tuple[np.ndarray, np.ndarray]:
        layers = [self._any()] if self.free else [self.first]
        for _ in range(0 if self.free else self.many - 1):
            layers.append(self._next(layers[-1]))
        n = self.first.shape[1]
        ends, each = np.stack([layer.argmax(axis=0) for layer in layers]), np.arange(n)
        tops = np.stack([layer[end, each] for layer, end in zip(layers, ends, strict=True)])
        count = np.arange(1, len(layers) + 1)[:, None]
        tops = np.where(self.free | (count >= self.least), tops, NEVER)
        level = tops.argmax(axis=0)
        best = tops[level, each]
        stays = (self.least <= 0) | self.free
        walking = (best > NEVER / 2) & ~(stays & (best <= 0))
        visits, arm, every = np.zeros(self.first.shape, dtype=bool), np.flatnonzero(walking), np.stack(layers)
        level, slot = level[arm], ends[level[arm], arm]
        while arm.size:
            visits[slot, arm] = True
            before = every[np.maximum(level - 1, 0), :, arm].T
            came = self._came(before, arm, slot, (self.first[slot, arm] if self.free else np.full(len(arm), NEVER)))
            on = (came >= 0) & (self.free | (level > 0))
            arm, slot, level = arm[on], came[on], level[on] - (not self.free)
        return np.where(walking, best, 0.0), visits

    def _reach(self, ahead: np.ndarray, v: int) -> np.ndarray:
        """Worth of coming to slot v from each slot before it, (v - apart + 1, n); ``ahead`` with the tails."""
        found: np.ndarray = ahead[: v - self.apart + 1] + self.between[v : self.apart - 1 : -1]
        return found

    def _next(self, layer: np.ndarray) -> np.ndarray:
        """The best walks with one visit more, by last slot, (S, n)."""
        found, ahead = np.full(layer.shape, 2 * NEVER), layer + self.tail
        for v in range(self.apart, len(layer)):
            found[v] = self._reach(ahead, v).max(axis=0) + self.lead[v]
        return found

    def _any(self) -> np.ndarray:
        """The best walks with any number of visits, by last slot, (S, n): slots before are settled."""
        found, ahead = self.first.copy(), self.first + self.tail
        for v in range(self.apart, len(found)):
            found[v] = np.maximum(found[v], self._reach(ahead, v).max(axis=0) + self.lead[v])
            ahead[v] = found[v] + self.tail[v]
        return found

    def _came(self, before: np.ndarray, arm: np.ndarray, slot: np.ndarray, alone: np.ndarray) -> np.ndarray:
        """The slot before ``slot`` (k,) on the best walk of each arm; -1 where it begins there, for ``alone`` (k,)."""
        when = np.arange(len(before))[:, None]
        away = slot - when
        reach = before + self.tail[:, arm] + self.between[np.maximum(away, 0), arm]
        reach = np.where(away >= self.apart, reach, 4 * NEVER)
        at = reach.argmax(axis=0)
        found = reach[at, np.arange(len(arm))]
        return np.where((found > 3 * NEVER) & (found + self.lead[slot, arm] > alone), at, -1)

    # -------------------------------------------------------------------------------------- all walks, by their worth
    def soft(self, heat: float) -> tuple[np.ndarray, np.ndarray]:
        """(worth (n,), visits (S, n)) when each walk is taken with weight exp(worth / heat).

        The worth is ``heat log sum exp(worth / heat)`` over walks, above the best walk's; its derivative by the price
        of a cell is minus the visits there.
        """
        layers, steps = [self.first], []
        if self.free:
            layers = []
            layer, weights, fresh = self._soft_any(heat)
            layers.append(layer)
        else:
            for _ in range(self.many - 1):
                layer, weights = self._soft_next(layers[-1], heat)
                layers.append(layer)
                steps.append(weights)
        every = np.stack(layers)
        count = np.arange(1, len(layers) + 1)[:, None, None]
        every = np.where(self.free | (count >= self.least), every, NEVER)
        none = np.where((self.least <= 0) | self.free, 0.0, NEVER)
        top = np.maximum(every.max(axis=(0, 1)), none)
        share = np.exp(np.maximum((every - top) / heat, -700.0))
        total = share.sum(axis=(0, 1)) + np.exp(np.maximum((none - top) / heat, -700.0))
        ends = share / total
        if self.free:
            visits = self._soft_back(ends[0], weights, fresh)
            return top + heat * np.log(total), visits
        visits, now = np.zeros(self.first.shape), np.zeros(self.first.shape)
        for k in range(len(layers) - 1, -1, -1):
            now = now + ends[k]
            visits += now
            if k:
                now = self._soft_before(now, steps[k - 1])
        return top + heat * np.log(total), visits

    def _softmax(self, reach: np.ndarray, heat: float) -> tuple[np.ndarray, np.ndarray]:
        """(heat log sum exp, weights) over the first axis."""
        top = reach.max(axis=0)
        weights = np.exp(np.maximum((reach - top) / heat, -700.0))
        total = weights.sum(axis=0)
        weights /= total
        return top + heat * np.log(total), weights

    def _soft_next(self, layer: np.ndarray, heat: float) -> tuple[np.ndarray, list[np.ndarray]]:
        found, ahead, kept = np.full(layer.shape, 2 * NEVER), layer + self.tail, []
        for v in range(self.apart, len(layer)):
            worth, weights = self._softmax(self._reach(ahead, v), heat)
            found[v] = worth + self.lead[v]
            kept.append(weights)
        return found, kept

    def _soft_before(self, now: np.ndarray, steps: list[np.ndarray]) -> np.ndarray:
        """Where the walks that are in each slot were before, (S, n)."""
        before = np.zeros(now.shape)
        for v in range(self.apart, len(now)):
            before[: v - self.apart + 1] += now[v] * steps[v - self.apart]
        return before

    def _soft_any(self, heat: float) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """(worth by last slot, weights of the slots before, share that begins in each slot)."""
        found, ahead, kept = self.first.copy(), self.first + self.tail, []
        fresh = np.ones(found.shape)
        for v in range(self.apart, len(found)):
            came, weights = self._softmax(self._reach(ahead, v), heat)
            pair = np.stack([self.first[v], came + self.lead[v]])
            found[v], share = self._softmax(pair, heat)
            fresh[v] = share[0]
            ahead[v] = found[v] + self.tail[v]
            kept.append(weights)
        return found, kept, fresh

    def _soft_back(self, ends: np.ndarray, steps: list[np.ndarray], fresh: np.ndarray) -> np.ndarray:
        visits = ends.copy()
        for v in range(len(ends) - 1, self.apart - 1, -1):
            visits[: v - self.apart + 1] += visits[v] * (1.0 - fresh[v]) * steps[v - self.apart]
        return visits
