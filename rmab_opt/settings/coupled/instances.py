"""Coupled settings whose best action depends on the state: the published restrictions, more general arms.

On the published arms one constant action earns most of the bound. Here an arm that stands well needs no attention, an
arm just touched is tired, and an arm is open in some rounds only, so that attention has to move from arm to arm.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.instances import Instance, domain, generate
from rmab_opt.instances.ladders import START_PROBABILITY
from rmab_opt.problem import Problem, Tabular
from rmab_opt.settings.coupled import generators  # noqa: F401  registers the worlds of coupled arms

__all__ = ["arms"]


def arms(
    n_arms: int,
    rng: np.random.Generator,
    *,
    n_conditions: int = 4,
    n_touches: int = 1,
    fatigue: float = 0.7,
    recovery: float = 0.7,
    cycle: int = 3,
    open_rounds: int = 2,
    late: float = 0.5,
) -> tuple[Tabular, np.ndarray]:
    """Arms with a condition, a fatigue and a clock.

    A state is (condition, tired or rested, round of the cycle). With a of m touches an arm in condition c of K climbs
    with probability up = q (1 - 0.6 c / (K - 1)) (1 - 0.4**a) / (1 - 0.4**m); else it falls with probability
    d (0.4 + 0.6 c / (K - 1)) 0.3**a, and stays otherwise; q is drawn from [0.7, 0.95], d from [0.1, 0.3]. Tired arms
    feel ``1 - fatigue`` of a touch. An arm touched while open is tired in the next round; otherwise it recovers with
    probability ``recovery``. In the closed rounds of its cycle a touch does nothing at all: no constraint kind knows
    the round, so the dynamics carry it, and acting there is allowed and wasted.

    Parameters
    ----------
    n_conditions
        Conditions K, at least 2; the reward is paid for the condition arrived at.
    n_touches
        Touches an arm can feel in one round; actions 0 .. n_touches. Further touches add less and less.
    fatigue, recovery
        Shares in [0, 1].
    cycle, open_rounds
        Length of the cycle in rounds and how many of them the arm is open; each arm starts at its own place.
    late
        Share of arms that pay for the top condition only; the others' reward saturates as 1 - e**-c.

    Returns
    -------
    Tabular, numpy.ndarray
        ``n_conditions * 2 * cycle`` states; probabilities of the first state, (N, S): condition 1 with probability
        0.2, else 0, rested, at the arm's own place in the cycle.

    Raises
    ------
    ModelError
        When a number is out of range.
    """
    if n_conditions < 2 or n_touches < 1 or not 1 <= open_rounds <= cycle:
        raise ModelError(
            f"{n_conditions} conditions, {n_touches} touches, open {open_rounds} of {cycle} rounds",
            "give at least 2 conditions, 1 touch, and between 1 and all rounds of the cycle.",
        )
    if not all(0.0 <= share <= 1.0 for share in (fatigue, recovery, late)):
        raise ModelError(f"fatigue {fatigue:g}, recovery {recovery:g}, late {late:g}", "give shares between 0 and 1.")
    climb, fall = rng.uniform(0.7, 0.95, n_arms), rng.uniform(0.1, 0.3, n_arms)
    worth, pays_late = rng.uniform(1.0, 3.0, n_arms), rng.permutation(n_arms) < round(late * n_arms)
    place = rng.integers(cycle, size=n_arms)
    rung = np.arange(n_conditions) / (n_conditions - 1)
    saturating = (1.0 - np.exp(-np.arange(n_conditions))) / (1.0 - np.exp(-(n_conditions - 1.0)))
    reward = worth[:, None] * np.where(pays_late[:, None], 0.1 * rung + 0.9 * (rung == 1.0), saturating)

    shape = n_conditions, n_touches, cycle, open_rounds
    kernel = _kernel(climb, fall, shape, fatigue, recovery)
    n_states = n_conditions * 2 * cycle
    names = tuple(
        f"{condition}{' tired' if tired else ''}{f' round {phase + 1}' if cycle > 1 else ''}"
        for condition in range(n_conditions)
        for tired in (0, 1)
        for phase in range(cycle)
    )
    dynamics = Tabular(
        kernel.reshape(n_arms, n_touches + 1, n_states, n_states),
        np.repeat(reward, 2 * cycle, axis=1),
        paid_on="arrival",
        state_names=names,
    )
    start = np.zeros((n_arms, n_conditions, 2, cycle))
    start[np.arange(n_arms), 0, 0, place] = 1.0 - START_PROBABILITY
    start[np.arange(n_arms), 1, 0, place] = START_PROBABILITY
    return dynamics, start.reshape(n_arms, n_states)


def _kernel(
    climb: np.ndarray, fall: np.ndarray, shape: tuple[int, int, int, int], fatigue: float, recovery: float
) -> np.ndarray:
    """Chances by touches, condition, tired, round of the cycle, and the next of the last three; see :func:`arms`.

    Parameters
    ----------
    climb, fall
        q and d of each arm, (N,).
    shape
        Conditions, touches an arm can feel, rounds of the cycle, how many of them are open.
    """
    n_conditions, n_touches, cycle, open_rounds = shape
    rung = np.arange(n_conditions) / (n_conditions - 1)
    kernel = np.zeros((len(climb), n_touches + 1, n_conditions, 2, cycle, n_conditions, 2, cycle))
    for touches, tired, phase in product(range(n_touches + 1), (0, 1), range(cycle)):
        open_ = phase < open_rounds
        felt = touches * (1.0 - fatigue * tired) if open_ else 0.0
        up = climb[:, None] * (1.0 - 0.6 * rung) * (1.0 - 0.4**felt) / (1.0 - 0.4**n_touches)
        down = fall[:, None] * (0.4 + 0.6 * rung) * 0.3**felt
        up[:, -1], down[:, 0] = 0.0, 0.0
        chance = {1: up, -1: down * (1.0 - up), 0: (1.0 - up) * (1.0 - down)}
        rested = 1.0 if not tired else recovery
        weight = (0.0, 1.0) if touches and open_ else (rested, 1.0 - rested)
        for (step, share), condition in product(chance.items(), range(n_conditions)):
            if 0 <= condition + step < n_conditions:
                for after, part in enumerate(weight):
                    cell = (touches, condition, tired, phase, condition + step, after, (phase + 1) % cycle)
                    kernel[(slice(None), *cell)] += share[:, condition] * part
    return kernel


def _restated(published: Instance, seed: int, n_touches: int, settings: dict[str, float | int]) -> Instance:
    """The published restrictions around general arms."""
    problem = published.problem
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7,)))
    dynamics, start = arms(problem.n_arms, rng, n_touches=n_touches, **settings)  # type: ignore[arg-type]
    return replace(published, problem=Problem(problem.arms, dynamics, problem.horizon, problem.discount, start))


def _touches(instance: Instance, n_touches: int) -> Instance:
    """One column a touch where an arm can feel several: each touch takes its own visit or load."""
    if n_touches == 1:
        return instance
    cohort = instance.problem.arms
    ids = tuple(f"{name}/{touch + 1}" for name in cohort.ids for touch in range(n_touches))
    attributes = {
        name: [cell for cell in cohort.table.cells(name) for _ in range(n_touches)]
        for name in cohort.columns
        if name != "id"
    }
    return replace(instance, columns=(ids, np.repeat(np.eye(len(cohort)), n_touches, axis=0)), attributes=attributes)


@domain("scheduling_stateful")
def scheduling_stateful(
    *,
    n_arms: int = 20,
    n_workers: int = 5,
    n_slots: int = 5,
    n_conditions: int = 4,
    n_touches: int = 1,
    fatigue: float = 0.7,
    recovery: float = 0.7,
    cycle: int = 3,
    open_rounds: int = 2,
    late: float = 0.5,
    horizon: int = 20,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Slots and workers of ``scheduling`` around the arms of :func:`arms`."""
    published = generate(
        "scheduling", n_arms=n_arms, n_workers=n_workers, n_slots=n_slots, horizon=horizon, discount=discount, seed=seed
    )
    made = _restated(published, seed, n_touches, _settings(locals()))
    return _touches(made, n_touches)


@domain("capacity_stateful")
def capacity_stateful(
    *,
    n_arms: int = 20,
    n_workers: int = 5,
    n_conditions: int = 4,
    n_touches: int = 1,
    fatigue: float = 0.7,
    recovery: float = 0.7,
    cycle: int = 3,
    open_rounds: int = 2,
    late: float = 0.5,
    horizon: int = 20,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Loads and capacities of ``capacity`` around the arms of :func:`arms`."""
    published = generate("capacity", n_arms=n_arms, n_workers=n_workers, horizon=horizon, discount=discount, seed=seed)
    made = _restated(published, seed, n_touches, _settings(locals()))
    return _touches(made, n_touches)


@domain("path_stateful")
def path_stateful(
    *,
    n_arms: int = 20,
    n_stops: int = 5,
    n_conditions: int = 4,
    fatigue: float = 0.7,
    recovery: float = 0.7,
    cycle: int = 3,
    open_rounds: int = 2,
    late: float = 0.5,
    horizon: int = 20,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Graph of ``path`` around the arms of :func:`arms`."""
    published = generate("path", n_arms=n_arms, n_stops=n_stops, horizon=horizon, discount=discount, seed=seed)
    return _restated(published, seed, 1, _settings(locals()))


@domain("interventions_stateful")
def interventions_stateful(
    *,
    n_arms: int = 20,
    n_interventions: int = 10,
    budget: int = 5,
    reach: int = 4,
    n_touches: int = 3,
    n_conditions: int = 4,
    fatigue: float = 0.7,
    recovery: float = 0.7,
    cycle: int = 3,
    open_rounds: int = 2,
    late: float = 0.5,
    horizon: int = 20,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Interventions that touch ``reach`` arms of :func:`arms` each; an arm is touched by ``n_touches`` at most.

    Raises
    ------
    ModelError
        When the arms cannot feel ``reach * n_interventions`` touches.
    """
    if not 0 < budget < n_interventions:
        raise ModelError(f"budget {budget} of {n_interventions} interventions", "choose at least one and not all.")
    if not 1 <= reach <= n_arms or reach * n_interventions > n_touches * n_arms:
        raise ModelError(
            f"{n_interventions} interventions touch {reach * n_interventions} times, "
            f"{n_arms} arms can feel {n_touches * n_arms}",
            "give more arms or touches, fewer interventions, or a shorter reach.",
        )
    published = generate("budget", n_arms=n_arms, n_valuable=0, horizon=horizon, discount=discount, seed=seed)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(8,)))
    effect, used = np.zeros((n_interventions, n_arms)), np.zeros(n_arms, dtype=np.int64)
    for intervention in range(n_interventions):
        # The least touched arms first, ties at random: touches spread evenly, so that no arm is asked to feel too many.
        chosen = np.lexsort((rng.random(n_arms), used))[:reach]
        effect[intervention, chosen] = 1.0
        used[chosen] += 1
    made = _restated(published, seed, n_touches, _settings(locals()))
    return replace(made, columns=(tuple(f"act{i}" for i in range(n_interventions)), effect))


_SETTINGS = ("n_conditions", "fatigue", "recovery", "cycle", "open_rounds", "late")


def _settings(given: dict[str, float | int]) -> dict[str, float | int]:
    return {name: given[name] for name in _SETTINGS}
