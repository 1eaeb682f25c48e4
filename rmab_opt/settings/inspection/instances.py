"""Seeded cohorts of establishments with inspection windows: the published generators and a loader of tables.

References
----------
Mao, Perrault (AAMAS 2024) and the released code's distributions.
"""

from __future__ import annotations

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.instances import Instance, domain
from rmab_opt.problem import Arms, Problem
from rmab_opt.settings.inspection.beliefs import BeliefChains, EncodedArms, Windows, rescale

__all__ = ["GENERATORS", "HIGH", "LOW", "chains_at", "draw", "inspection", "inspection_arms"]

LOW, HIGH = "persistence_low", "persistence_high"
"""Columns of the arms with the interval of their persistence: a plan says what it earns at both ends."""

GENERATORS = {
    "narrow": lambda rng, n: (rng.uniform(0.8, 0.9, n), rng.uniform(0.1, 0.2, n)),
    "beta": lambda rng, n: (rng.beta(5, 1, n), rng.beta(1, 5, n)),
    "uniform": lambda rng, n: (rng.uniform(0, 1, n), rng.uniform(0, 1, n)),
}
"""(stay_good, recover) a month; ``narrow`` is the published table's, found by reproduction."""


def draw(
    generator: str, n_arms: int, n_slots: int, length: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(stay_good, recover, first slot of the window), each (N,); starts are uniform where the window still fits."""
    if generator not in GENERATORS:
        raise ModelError(f"generator is {generator!r}", f"use one of {', '.join(GENERATORS)}.")
    if n_arms < 1 or not 1 <= length <= n_slots:
        raise ModelError(
            f"{n_arms} arms, windows of {length} in {n_slots} slots", "give at least 1 arm and a window that fits."
        )
    rng = np.random.default_rng(seed)
    good, back = GENERATORS[generator](rng, n_arms)
    return good, back, rng.integers(0, n_slots - length + 1, n_arms)


@domain("inspection")
def inspection(
    *,
    n_arms: int = 30,
    n_slots: int = 12,
    window: int = 2,
    visits: int = 1,
    n_districts: int = 1,
    generator: str = "narrow",
    rule: str = "limit",
    tolerance: float = 0.01,
    horizon: int = 12,
    seed: int = 0,
) -> Instance:
    """Establishments with one window of ``window`` slots a period (the whole period: ``window = n_slots``).

    ``visits`` inspections have an effect in a window; ``rule`` and ``tolerance`` cut the belief chains.
    """
    good, back, start = draw(generator, n_arms, n_slots, window, seed)
    if n_districts < 1:
        raise ModelError(f"n_districts is {n_districts}", "give at least 1.")
    if rule not in ("limit", "step"):
        raise ModelError(f"rule is {rule!r}", "use 'limit' or 'step'.")
    cells = [f"{s}-{s + window - 1}" for s in start.tolist()]
    arms = Arms.from_arrays(
        n_arms, window=cells, stay_good=good, recover=back, district=[f"d{i % n_districts + 1}" for i in range(n_arms)]
    )
    chains = BeliefChains.build(good, back, rule="limit" if rule == "limit" else "step", tolerance=tolerance)
    dynamics = EncodedArms(chains, Windows.spans(start, window, n_slots, visits))
    return Instance(Problem(arms, dynamics, horizon=horizon), {})


def inspection_arms(
    arms: Arms,
    n_slots: int,
    *,
    stay_good: str = "stay_good",
    recover: str = "recover",
    window: str | None = "window",
    visits: int = 1,
    given_for: int | None = None,
    rule: str = "limit",
    tolerance: float = 0.01,
) -> EncodedArms:
    """Dynamics of the user's own arms, from columns of their table.

    Parameters
    ----------
    stay_good, recover
        Columns with P(good stays good) and P(bad becomes good) in one slot.
    window
        Column with the open slots (``2-4``, ``0-1;6-7``); None for the whole period.
    given_for
        Slots a year that the probabilities are meant for, when not ``n_slots``: they are then rescaled.

    Raises
    ------
    ModelError
        Naming the rows that are wrong.
    """
    good, back = (arms.numbers(column, minimum=0, maximum=1) for column in (stay_good, recover))
    if given_for is not None and given_for != n_slots:
        good, back = rescale(good, back, n_slots, given_for=given_for)
    if rule not in ("limit", "step"):
        raise ModelError(f"rule is {rule!r}", "use 'limit' or 'step'.")
    chains = BeliefChains.build(good, back, rule="limit" if rule == "limit" else "step", tolerance=tolerance)
    length = 1.0 if given_for is None else given_for / n_slots
    if window is None:
        return EncodedArms(chains, Windows.free(len(arms), n_slots, visits), length)
    return EncodedArms(chains, Windows.parse(arms.text(window), n_slots, visits), length)


def chains_at(arms: Arms, column: str, length: float = 1.0) -> BeliefChains | None:
    """The arms' chains where their persistence is that of a column (:data:`LOW`, :data:`HIGH`), their bad share kept.

    Parameters
    ----------
    length
        Length of a slot against the one that the column means.

    Returns
    -------
    BeliefChains or None
        None where the table does not have the columns, as ``rmab-opt fit --out`` writes them.
    """
    if column not in arms.columns or "bad_share" not in arms.columns:
        return None
    persistence = arms.numbers(column, minimum=0, maximum=1) ** length
    bad = arms.numbers("bad_share", minimum=0, maximum=1)
    return BeliefChains.build(1 - bad * (1 - persistence), (1 - bad) * (1 - persistence))
