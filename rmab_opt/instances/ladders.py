"""Seeded instances of the published coupled settings: arms that climb a ladder under shared workers.

References
----------
Xu, Wilder, Khalil, Tambe (ICLR 2025); the released code's distributions.
"""

from __future__ import annotations

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.instances.instance import Instance, domain
from rmab_opt.problem import Arms, Ladder, Problem, Table

__all__ = ["START_PROBABILITY", "budget", "capacity", "interventions", "path", "scheduling"]

START_PROBABILITY = 0.2
"""Each arm starts in state 1 with this probability, else in 0."""


def _ladder(n_arms: int, n_valuable: int, rng: np.random.Generator) -> Ladder:
    """Four-state arms; the first ``n_valuable`` lose reward on the way up to a large last rung, the others do not."""
    up = np.stack([rng.uniform(0.0, 0.2, n_arms), rng.uniform(0.7, 0.9, n_arms)], axis=1)
    valuable = np.arange(n_arms) < n_valuable
    top = np.where(valuable, rng.choice([4.0, 5.0, 6.0], n_arms), rng.choice([1.0, 2.0, 3.0], n_arms))
    lower = np.where(valuable[:, None], [0.20, 0.15, 0.10], [0.10, 0.15, 0.20])
    return Ladder(up, np.concatenate([lower, top[:, None]], axis=1))


def _problem(arms: Arms, dynamics: Ladder, horizon: int, discount: float) -> Problem:
    start = np.zeros((len(arms), dynamics.n_states))
    start[:, 0], start[:, 1] = 1.0 - START_PROBABILITY, START_PROBABILITY
    return Problem(arms, dynamics, horizon=horizon, discount=discount, start=start)


def _check(n_arms: int, n_workers: int) -> None:
    if n_arms < 1 or n_workers < 1:
        raise ModelError(f"n_arms {n_arms}, n_workers {n_workers}", "give at least one of each.")


@domain("budget")
def budget(
    *,
    n_arms: int = 20,
    n_valuable: int = 5,
    n_villages: int = 0,
    horizon: int = 20,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Published arms without further structure; ``n_valuable`` plays the part of the published budget.

    With ``n_villages`` arm i lives in ``village`` i mod n_villages, for limits and comparisons of groups.
    """
    _check(n_arms, max(1, n_valuable))
    dynamics = _ladder(n_arms, n_valuable, np.random.default_rng(seed))
    village = {"village": [f"v{i % n_villages}" for i in range(n_arms)]} if n_villages > 0 else {}
    return Instance(_problem(Arms.from_arrays(n_arms, **village), dynamics, horizon, discount), {})


@domain("scheduling")
def scheduling(
    *, n_arms: int = 20, n_workers: int = 5, n_slots: int = 5, horizon: int = 20, discount: float = 1.0, seed: int = 0
) -> Instance:
    """Arms available in two slots, workers on duty in three; arms prefer late slots, workers early ones."""
    _check(n_arms, n_workers)
    if n_slots < 3:
        raise ModelError(f"n_slots is {n_slots}", "give at least 3, every worker is on duty in three.")
    arm_seed, slot_seed = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(slot_seed)
    names = [f"slot{k + 1}" for k in range(n_slots)]
    late, early = np.sort(rng.random(n_slots)), np.sort(rng.random(n_slots))[::-1]

    def draw(size: int, popularity: np.ndarray) -> list[str]:
        return [names[k] for k in sorted(_distinct(rng, size, popularity / popularity.sum()))]

    cells = [";".join(draw(2, late)) for _ in range(n_arms)]
    duty = [(f"worker{i + 1}", slot) for i in range(n_workers) for slot in draw(3, early)]
    roster = Table({"worker": [worker for worker, _ in duty], "slot": [slot for _, slot in duty]}, source="roster")
    dynamics = _ladder(n_arms, n_workers, np.random.default_rng(arm_seed))
    return Instance(_problem(Arms.from_arrays(n_arms, slots=cells), dynamics, horizon, discount), {"roster": roster})


@domain("capacity")
def capacity(
    *, n_arms: int = 20, n_workers: int = 5, horizon: int = 20, discount: float = 1.0, seed: int = 0
) -> Instance:
    """Arms with loads 2 to 6, workers with capacities 2 to 7: generalised assignment without another budget."""
    _check(n_arms, n_workers)
    arm_seed, load_seed = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(load_seed)
    workers = Table(
        {"worker": [f"worker{i + 1}" for i in range(n_workers)], "capacity": rng.integers(2, 8, n_workers).tolist()},
        source="workers",
    )
    arms = Arms.from_arrays(n_arms, load=rng.integers(2, 7, n_arms).tolist())
    dynamics = _ladder(n_arms, n_workers, np.random.default_rng(arm_seed))
    return Instance(_problem(arms, dynamics, horizon, discount), {"workers": workers})


def _distinct(rng: np.random.Generator, size: int, chance: np.ndarray) -> list[int]:
    """Different positions drawn with these chances, as ``rng.choice`` without replacement draws them, without its cost.

    Uniform numbers are looked up in the cumulated chances; those that fall on a position again are drawn anew among
    the rest. A hundred thousand arms take a second.
    """
    found: list[int] = []
    left = chance
    while len(found) < size:
        reach = left.cumsum()
        new = (reach / reach[-1]).searchsorted(rng.random(size - len(found)), side="right").tolist()
        found += [k for k in dict.fromkeys(new) if k not in found]
        if len(found) < size:
            left = chance.copy()
            left[found] = 0.0
    return found


LONDON_20 = (
    "0-4 0-12 0-15 0-19 1-3 1-5 1-7 1-8 1-18 2-12 2-15 3-6 3-14 3-16 4-10 4-11 4-13 5-8 6-14 6-17 7-16 9-18 9-19 10-13 "
    "10-14 11-19 12-13 12-17 13-17"
)
LONDON_40 = (
    "0-4 0-13 1-11 1-26 1-34 1-38 2-7 2-25 3-10 3-28 4-19 5-10 5-13 5-15 5-20 5-37 6-20 6-32 7-30 7-31 7-32 7-33 8-10 "
    "8-28 9-26 9-30 9-34 10-14 10-29 10-35 11-23 11-24 11-27 12-18 12-39 13-20 14-29 14-36 15-16 15-35 16-28 17-26 "
    "17-36 18-21 19-21 20-25 22-37 22-38 23-27 23-29 24-38 26-27 26-36 27-36 29-39 33-38"
)
PUBLISHED_GRAPHS = {20: (LONDON_20, 0), 40: (LONDON_40, 10)}
"""Edges and depot of the two published graphs that are data (parts of the London Underground)."""

PUBLISHED_EDGES = {60: 82, 80: 108, 100: 133}
"""Edge counts of the published graphs whose edges are not public."""


def _planar_edges(n_arms: int, n_edges: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """A connected graph of near neighbours: a shortest spanning tree of random points and the next shortest edges."""
    points = rng.random((n_arms, 2))
    first, second = np.triu_indices(n_arms, 1)
    order = np.argsort(np.linalg.norm(points[first] - points[second], axis=1), kind="stable")
    group = np.arange(n_arms)
    tree, spare = [], []
    for edge in order:
        i, j = int(first[edge]), int(second[edge])
        if group[i] != group[j]:
            group[group == group[j]] = group[i]
            tree.append((i, j))
        else:
            spare.append((i, j))
    return sorted(tree + spare[: max(0, n_edges - len(tree))])


@domain("path")
def path(*, n_arms: int = 20, n_stops: int = 5, horizon: int = 20, discount: float = 1.0, seed: int = 0) -> Instance:
    """Arms on a graph, visited along a walk; published graphs for 20 and 40 arms, else a seeded planar-like one.

    Table ``edges`` has columns ``from`` and ``to``; the depot is arm0, with 40 arms arm10.
    """
    _check(n_arms, n_stops)
    arm_seed, graph_seed = np.random.SeedSequence(seed).spawn(2)
    if n_arms in PUBLISHED_GRAPHS:
        text = PUBLISHED_GRAPHS[n_arms][0]
        edges = [(int(a), int(b)) for a, b in (pair.split("-") for pair in text.split())]
    else:
        n_edges = PUBLISHED_EDGES.get(n_arms, round(1.35 * n_arms))
        edges = _planar_edges(n_arms, n_edges, np.random.default_rng(graph_seed))
    table = Table({"from": [f"arm{i}" for i, _ in edges], "to": [f"arm{j}" for _, j in edges]}, source="edges")
    dynamics = _ladder(n_arms, n_stops, np.random.default_rng(arm_seed))
    return Instance(_problem(Arms.from_arrays(n_arms), dynamics, horizon, discount), {"edges": table})


@domain("interventions")
def interventions(
    *,
    n_arms: int = 20,
    n_interventions: int = 10,
    budget: int = 5,
    weights: str = "common",
    horizon: int = 20,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Interventions that touch three arms each; an arm climbs by a sigmoid of the weights of those chosen.

    With ``weights: common`` all weigh 3 and an arm's action is the number of chosen interventions that touch it
    (0 to 3), so that the link is exact at its attainable points 0, 3, 6, 9. With ``general`` each weighs 1 to 5 on
    each of its arms, and an arm's action is the sum of the weights (0 to 15). Steep arms need two or three together:
    the trap for greedy choices.

    Raises
    ------
    ModelError
        When there are too few arms for the interventions to touch arms of their own, or ``weights`` is unknown.
    """
    if weights not in ("common", "general"):
        raise ModelError(f"weights is {weights!r}", "use 'common' or 'general'.")
    _check(n_arms, n_interventions)
    if not 0 < budget < n_interventions:
        raise ModelError(f"budget {budget} of {n_interventions} interventions", "choose at least one and not all.")
    n_shallow = -(-n_arms * budget // n_interventions)
    groups = {"good": (np.arange(n_shallow, n_arms), budget), "bad": (np.arange(n_shallow), n_interventions - budget)}
    for arms, count in groups.values():
        needed = 3 * (count // 3 + count % 3)
        if needed > len(arms):
            raise ModelError(
                f"{count} interventions need {needed} arms of their group, there are {len(arms)}",
                "give more arms, or fewer interventions.",
            )
    arm_seed, link_seed = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(link_seed)
    steep = np.arange(n_arms) >= n_shallow
    alpha = np.round(np.where(steep, 0.7, 0.2) + rng.uniform(0, 0.3, n_arms), 1)
    beta = np.where(steep, np.round(1.4 + rng.uniform(0, 0.5, n_arms), 1), 1.0)
    middle = np.where(steep, rng.integers(9, 11, n_arms), rng.integers(1, 3, n_arms)).astype(float)
    level = 3.0 * np.arange(4) if weights == "common" else np.arange(16.0)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-x))

    rise = sigmoid(beta[:, None] * level - middle[:, None]) - sigmoid(-middle)[:, None]
    up = 0.98 * alpha[:, None] * rise + 0.01
    effect = np.zeros((n_interventions, n_arms))
    order = rng.permutation(n_interventions)
    for (arms, count), members in zip(groups.values(), (order[:budget], order[budget:]), strict=True):
        free = iter(arms.tolist())
        triples = [members[k : k + 3] for k in range(0, count - count % 3, 3)]
        for together in [*triples, *([one] for one in members[count - count % 3 :])]:
            touched = [next(free) for _ in range(3)]
            effect[np.ix_(np.asarray(together), np.array(touched))] = 1.0
    if weights == "general":
        effect *= rng.integers(1, 6, effect.shape)
    base = _ladder(n_arms, budget, np.random.default_rng(arm_seed))
    problem = _problem(Arms.from_arrays(n_arms), Ladder(up, base.reward), horizon, discount)
    return Instance(problem, {}, (tuple(f"act{i}" for i in range(n_interventions)), effect))
