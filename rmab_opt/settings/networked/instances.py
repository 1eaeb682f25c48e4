"""Seeded contact networks: the published attribute ranges and regimes that tell policies apart.

References
----------
Zhang, Sun, Wang (2025): attribute ranges and the size of the India network (202 nodes, 692 contacts).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.instances import Instance, domain
from rmab_opt.problem import Arms, Problem, Table
from rmab_opt.problem.table import nearest
from rmab_opt.settings.networked.cascade import Cascade, Graph

__all__ = ["REGIMES", "TINY", "attributes", "contact_edges", "contact_problem", "contacts", "contacts_influencers"]

REGIMES = {
    "reference": "published ranges: most arms are active anyway, and every sensible policy earns nearly the same",
    "slow_start": "arms hardly start by themselves: where the spread goes decides",
    "lapsing": "as slow_start, and half of the arms lapse at once while the others stay: tomorrow decides too",
}
"""Ranges of the arms' probabilities, by name."""


TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "reference": ("contacts", {"n_arms": 8, "n_contacts": 11, "probability": 0.05, "at_most": 1, "shape": "random"}),
    "slow start": ("contacts_slow_start", {"n_arms": 8, "n_contacts": 8, "at_most": 1}),
    "slow start, stars": ("contacts_stars", {"n_arms": 8, "at_most": 1}),
    "lapsing": ("contacts_lapsing", {"n_arms": 8, "n_contacts": 10, "at_most": 1}),
    "lapsing, stars": ("contacts_lapsing_stars", {"n_arms": 8, "at_most": 1}),
    "lapsing, two visits": ("contacts_lapsing", {"n_arms": 8, "n_contacts": 10, "probability": 0.1, "at_most": 2}),
    "influencers": (
        "contacts_influencers",
        {"n_arms": 8, "influencers": 2, "each": 2, "probability": 0.4, "at_most": 1},
    ),
    "influencers, two visits": (
        "contacts_influencers",
        {"n_arms": 8, "influencers": 2, "each": 1, "probability": 0.4, "at_most": 2},
    ),
    "costs and quotas": ("contacts_quotas", {"n_arms": 8, "n_contacts": 12, "money.at_most": 4, "villages.at_most": 1}),
}
"""Nine regimes of eight arms whose optimum can be enumerated, by name: a shipped model and its settings."""


def attributes(n_arms: int, rng: np.random.Generator, regime: str = "reference") -> tuple[np.ndarray, np.ndarray]:
    """Random arms of a regime: ``chance[n, s, a]`` (N, 2, 2), rounded to four digits, and values U(1, 2), (N,).

    ``reference``: p(1,1) ~ U(0.8, 1), p(1,0) ~ U(0.7, p(1,1)), p(0,1) ~ U(0.5, 1), p(0,0) ~ U(0, p(0,1)).
    ``slow_start``: p(0,0) ~ U(0, 0.02) instead. ``lapsing``: besides, p(1,0) is 0.05 or 0.95 and
    p(1,1) ~ U(max(0.8, p(1,0)), 1).

    Raises
    ------
    ModelError
        When there is no such regime.
    """
    if regime not in REGIMES:
        raise ModelError(f"regime is {regime!r}", nearest(regime, list(REGIMES)))
    stays_acted = rng.uniform(0.8, 1.0, n_arms)
    stays = rng.uniform(0.7, stays_acted)
    starts_acted = rng.uniform(0.5, 1.0, n_arms)
    starts = rng.uniform(0.0, starts_acted)
    value = rng.uniform(1.0, 2.0, n_arms)
    if regime != "reference":
        starts = rng.uniform(0.0, 0.02, n_arms)
    if regime == "lapsing":
        stays = np.where(rng.random(n_arms) < 0.5, 0.05, 0.95)
        stays_acted = rng.uniform(np.maximum(0.8, stays), 1.0)
    chance = np.stack([np.stack([starts, starts_acted], axis=1), np.stack([stays, stays_acted], axis=1)], axis=1)
    return np.round(chance, 4), value


def contact_edges(
    n_arms: int, n_contacts: int, rng: np.random.Generator, shape: str = "contacts"
) -> tuple[np.ndarray, np.ndarray]:
    """Contacts (M, 2), without doubles, and the village of each node, (N,).

    ``contacts``: connected, most contacts within a village, a few people with many; ``random``: any pairs;
    ``stars``: each village is one hub and its spokes, hubs in a row (``n_contacts`` follows from that).
    """
    if n_arms < 2:
        raise ModelError(f"n_arms is {n_arms}", "give at least 2.")
    villages = np.sort(rng.integers(0, max(1, round(n_arms / 25)), n_arms)) if shape != "stars" else None
    if shape == "stars":
        hubs = max(1, n_arms // 5)
        villages = np.arange(n_arms) % hubs
        spokes = [(int(villages[v]), v) for v in range(hubs, n_arms)]
        return np.array([(h, h + 1) for h in range(hubs - 1)] + spokes, dtype=np.int64), villages
    assert villages is not None
    if shape not in ("contacts", "random"):
        raise ModelError(f"shape is {shape!r}", "use contacts, random or stars.")
    low, high = np.triu_indices(n_arms, 1)
    if n_contacts > len(low) or (shape == "contacts" and n_contacts < n_arms - 1):
        raise ModelError(
            f"{n_contacts} contacts of {n_arms} arms", f"give from {n_arms - 1} (connected) to {len(low)} (all pairs)."
        )
    if shape == "random":
        picked = np.sort(rng.choice(len(low), n_contacts, replace=False))
        return np.stack([low[picked], high[picked]], axis=1), villages
    liveliness = rng.lognormal(0.0, 0.5, n_arms)
    weight = liveliness[low] * liveliness[high] * np.where(villages[low] == villages[high], 12.0, 1.0)
    # The largest of -log(U)/weight from below is a draw without replacement in proportion to weight; the tree of the
    # smallest keys joins everybody first.
    key = rng.exponential(size=len(low)) / weight
    place = np.arange(n_arms)
    tree = []
    for pair in np.argsort(key):
        one, two = place[low[pair]], place[high[pair]]
        if one != two:
            place[place == two] = one
            tree.append(pair)
            if len(tree) == n_arms - 1:
                break
    key[tree] = 0.0
    picked = np.sort(np.argpartition(key, n_contacts - 1)[:n_contacts])
    return np.stack([low[picked], high[picked]], axis=1), villages


@domain("contacts")
def contacts(
    *,
    n_arms: int = 202,
    n_contacts: int = 692,
    probability: float = 0.03,
    regime: str = "reference",
    shape: str = "contacts",
    horizon: int = 30,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """A random contact network: same graph and attributes for the same seed; see :data:`REGIMES`."""
    graph_seed, arm_seed = (np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(2))
    edges, villages = contact_edges(n_arms, n_contacts, graph_seed, shape)
    problem = contact_problem(edges, n_arms, probability, arm_seed, regime, horizon, discount, villages)
    ids = problem.arms.ids
    table = Table({"from": [ids[u] for u in edges[:, 0]], "to": [ids[v] for v in edges[:, 1]]}, source="contacts")
    return Instance(problem, {"contacts": table})


def contact_problem(
    edges: np.ndarray,
    n_arms: int,
    probability: float | np.ndarray,
    rng: np.random.Generator,
    regime: str = "reference",
    horizon: int = 30,
    discount: float = 1.0,
    villages: np.ndarray | None = None,
) -> Problem:
    """Drawn attributes on given contacts (M, 2); everybody starts inactive.

    Arms carry ``village``, ``cost`` (1 to 4) and ``contacts`` (their number) for constraints.
    """
    chance, value = attributes(n_arms, rng, regime)
    degree = np.bincount(np.asarray(edges).reshape(-1), minlength=n_arms)
    arms = Arms.from_arrays(
        n_arms,
        village=[f"v{v}" for v in (np.zeros(n_arms, dtype=np.int64) if villages is None else villages)],
        cost=rng.integers(1, 5, n_arms).tolist(),
        contacts=degree.tolist(),
    )
    # Without tabular() on purpose: tables of the arms alone would ignore the spread.
    dynamics: Any = Cascade(Graph.from_edges(edges, n_arms, probability), chance, value, names=arms.ids)
    return Problem(arms, dynamics, horizon, discount)


@domain("contacts_influencers")
def contacts_influencers(
    *,
    n_arms: int = 200,
    influencers: int = 20,
    each: int = 3,
    probability: float = 0.3,
    horizon: int = 20,
    discount: float = 0.95,
    seed: int = 0,
) -> Instance:
    """Directed influence: a few people, the last of the cohort, are hard to win, stay, and pull others every round.

    Draws: ``each`` distinct influencers of every other arm, then value U(1, 2), p(0,1) and p(1,1) ~ U(0.8, 1) of all;
    others lapse at once when left alone. Influencers have value 0.3, p(0,1) 0.15, p(1,0) 0.95, p(1,1) 0.99. Rules that
    look one round ahead see little in them; their worth lies in the rounds to come, through others.

    Raises
    ------
    ModelError
        When there are not fewer influencers than arms, or an arm is to hear more than there are.
    """
    if not 1 <= influencers < n_arms or not 1 <= each <= influencers:
        raise ModelError(
            f"{influencers} influencers of {n_arms} arms, {each} heard by each other",
            "give fewer influencers than arms, and at most so many heard.",
        )
    rng, others = np.random.default_rng(seed), n_arms - influencers
    heard = np.stack([rng.choice(influencers, each, replace=False) for _ in range(others)])
    edges = np.stack([others + heard.reshape(-1), np.repeat(np.arange(others), each)], axis=1)
    value = rng.uniform(1.0, 2.0, n_arms)
    chance = np.zeros((n_arms, 2, 2))
    chance[:, 0, 1], chance[:, 1, 1] = rng.uniform(0.8, 1.0, n_arms), rng.uniform(0.8, 1.0, n_arms)
    value[others:] = 0.3
    chance[others:, 0, 1], chance[others:, 1, 0], chance[others:, 1, 1] = 0.15, 0.95, 0.99
    arms = Arms.from_arrays(
        n_arms,
        role=["member"] * others + ["influencer"] * influencers,
        cost=[1] * n_arms,
        contacts=np.bincount(edges.reshape(-1), minlength=n_arms).tolist(),
    )
    graph = Graph.from_edges(edges, n_arms, probability, directed=True)
    dynamics: Any = Cascade(graph, np.round(chance, 4), value, names=arms.ids)
    ids = arms.ids
    table = Table({"from": [ids[u] for u in edges[:, 0]], "to": [ids[v] for v in edges[:, 1]]}, source="contacts")
    return Instance(Problem(arms, dynamics, horizon, discount), {"contacts": table})
