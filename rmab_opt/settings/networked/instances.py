"""Seeded contact networks: the published attribute ranges, regimes that tell policies apart, and your own edge list.

References
----------
Zhang, Sun, Wang (2025): attribute ranges and the size of the India network (202 nodes, 692 contacts).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rmab_opt.errors import Findings, ModelError
from rmab_opt.instances import Instance, domain
from rmab_opt.problem import Arms, Problem, Table
from rmab_opt.problem.table import TableLike, nearest
from rmab_opt.settings.networked.cascade import Cascade, Graph

__all__ = ["REGIMES", "attributes", "contact_edges", "contact_problem", "contacts", "read_contacts"]

REGIMES = {
    "reference": "published ranges: most arms are active anyway, and every sensible policy earns nearly the same",
    "slow_start": "arms hardly start by themselves: where the spread goes decides",
    "lapsing": "as slow_start, and half of the arms lapse at once while the others stay: tomorrow decides too",
}
"""Ranges of the arms' probabilities, by name."""


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
    dynamics: Any = Cascade(Graph.from_edges(edges, n_arms, probability), chance, value)
    return Problem(arms, dynamics, horizon, discount)


def read_contacts(
    arms: Arms,
    table: TableLike,
    *,
    ends: tuple[str, str] = ("u", "v"),
    probability: float | str = 0.05,
    directed: bool = False,
    others: str = "refuse",
) -> Graph:
    """Your own contacts: one row each with the ids of its ends.

    Parameters
    ----------
    ends
        Columns with the ids; activity goes from the first to the second when ``directed``.
    probability
        A number for all, or the column that holds each one's.
    others
        What to do with ids that are not in the cohort: ``refuse`` or ``ignore``.

    Raises
    ------
    ModelError
        Listing rows with unknown ids, doubled contacts and loops; or with probabilities out of range.
    """
    table = Table.read(table, needed=ends).without_totals(ends[0])
    findings = Findings(table.source)
    first, second = table.text(ends[0]), table.text(ends[1])
    kept = []
    seen: dict[tuple[str, str], int] = {}
    for row, (one, two) in enumerate(zip(first, second, strict=True)):
        unknown = [name for name in (one, two) if name not in arms]
        key = (one, two) if directed else (min(one, two), max(one, two))
        if unknown:
            for name in unknown if others != "ignore" else []:
                findings.add(table.place(row), f"no arm {name!r} in the cohort", nearest(name, arms.ids))
        elif one == two:
            findings.add(table.place(row), f"joins {one!r} to itself", "remove the row")
        elif key in seen:
            findings.add(table.place(row), f"{one!r} and {two!r} stand in row {table.place(seen[key])} too", "keep one")
        else:
            seen[key] = row
            kept.append(row)
    findings.raise_if_any()
    chance = (
        table.numbers(probability, minimum=0, maximum=1)[kept]
        if isinstance(probability, str)
        else np.full(len(kept), float(probability))
    )
    tail, head = (arms.indices([column[row] for row in kept]) for column in (first, second))
    return Graph(len(arms), tail, head, chance, directed)
