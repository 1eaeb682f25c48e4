"""Learning while acting: which tables a list is planned on when it should also find things out.

Re-fitting is the default and suffices with a fair prior: calls happen every week anyway, and who is not called is
learned from for nothing. Sampling (Jung & Tewari 2019) is insurance against a prior that calls useless what is not;
measured here it is not better otherwise. Optimism adds half a confidence width to what calls do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rmab_opt.programme.estimate import FEW_MOVES, STATES, Estimate
from rmab_opt.programme.targeted import tables_of

__all__ = ["Counts", "Explore", "Planned", "called_useless", "planned_tables"]

Explore = Literal["none", "optimism", "sampling"]

USELESS, WOULD_MATTER = 0.02, 0.10
"""Mean uplift below which a plan hardly ever calls, and the interval's end above which that may be wrong."""


@dataclass(frozen=True, eq=False)
class Planned:
    """Tables (N, A, S, S) that a list is planned on, and how they came about; ``drawn`` goes into the ledger."""

    transition: np.ndarray
    drawn: str = ""


def planned_tables(made: Estimate, explore: Explore, period: int, *, seed: int = 0, block: int = 1) -> Planned:
    """What to plan on in a round: the estimate's mean, a draw of it, or the mean with what calls may do at best.

    Parameters
    ----------
    seed, block
        The draw is that of the seed and the block of so many rounds; a block's index is kept, so that with new data the
        same quantile of the new estimate is taken.
    """
    if explore == "none":
        return Planned(made.transition)
    if explore == "sampling":
        number = period // block
        draws = made.fit.draws
        draw = int(np.random.default_rng([seed, number]).integers(len(draws)))
        tables = tables_of(draws[draw].astype(np.float64))
        said = f"sampling: seed {seed}, block {number}, draw {draw} of {len(draws)}"
    else:
        up = made.fit.draws[..., 0].astype(np.float64)
        mean, spread = made.transition[..., 1], np.maximum(up.var(axis=0), 1e-9)
        count = np.maximum(mean * (1 - mean) / spread - 1.0, 1.0)
        tables = _hopeful(made.transition, count, made.weeks + period)
        said = "optimism: half a confidence width on called rows"
    digest = hashlib.sha256(np.ascontiguousarray(tables, dtype="<f8").tobytes()).hexdigest()
    return Planned(tables, f"{said}; tables {digest[:16]}")


def _hopeful(transition: np.ndarray, count: np.ndarray, weeks: int) -> np.ndarray:
    """Tables in which called rows reach the good state by half of sqrt(log(t + 2) / (2 n)) more often."""
    up = transition[..., 1].copy()
    up[:, 1] = np.minimum(up[:, 1] + 0.5 * np.sqrt(np.log(weeks + 2) / (2 * count[:, 1])), 1.0)
    return np.stack([1.0 - up, up], axis=-1)


def called_useless(made: Estimate) -> list[str]:
    """Sentences where a plan hardly ever calls and the data do not show that it is right."""
    return [
        f"the plan takes calls to {row['group']}/{row['state']} as useless (uplift {row['uplift']:.3f}), which "
        f"{row['called moves']} called moves do not show (up to {row['high']:.2f}); plan.explore: sampling in "
        "columns.yaml would find out"
        for row in made.uplifts()
        if row["uplift"] < USELESS and row["high"] > WOULD_MATTER and row["called moves"] < 10 * FEW_MOVES
    ]


class Counts:
    """Dirichlet counts alpha (N, A, S, S) of arms that are learned while they are acted on."""

    def __init__(self, prior: np.ndarray) -> None:
        self.alpha = np.array(prior, dtype=np.float64)

    def see(self, state: np.ndarray, action: np.ndarray, after: np.ndarray) -> None:
        """A move of every arm."""
        self.alpha[np.arange(len(state)), action, state, after] += 1.0

    def mean(self) -> np.ndarray:
        """Posterior mean, (N, A, S, S)."""
        return np.asarray(self.alpha / self.alpha.sum(axis=-1, keepdims=True))

    def tables(self, explore: Explore, week: int, rng: np.random.Generator) -> np.ndarray:
        """What to plan on, as :func:`planned_tables` says for an estimate."""
        if explore == "sampling":
            drawn = rng.standard_gamma(self.alpha)
            return np.asarray(drawn / drawn.sum(axis=-1, keepdims=True))
        if explore == "optimism":
            assert self.alpha.shape[-1] == len(STATES)
            return _hopeful(self.mean(), self.alpha.sum(axis=-1), week)
        return self.mean()
