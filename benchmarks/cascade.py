"""Networked arms: simulation against a plain per-node simulation, lazy greedy decisions, a graph of 100,000 nodes.

Both sides of each ratio are measured in alternation in one run, in CPU seconds of one thread.
`python benchmarks/cascade.py [--quick]`
"""

from __future__ import annotations

import argparse
import random
import resource
from statistics import median
from time import process_time

import networkx
import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Chooser
from rmab_opt.instances import generate
from rmab_opt.problem import Arms, Problem
from rmab_opt.settings.networked.cascade import Cascade, Graph
from rmab_opt.settings.networked.greedy import CascadeObjective
from rmab_opt.settings.networked.instances import attributes


class Person:
    """One node of the plain simulation: an object with its own random draws, as the published code has it."""

    def __init__(self, chance: np.ndarray) -> None:
        self.chance = chance.tolist()
        self.active = False
        self.contacts: list[tuple[Person, float]] = []

    def move(self, acted: bool, rng: random.Random) -> None:
        """The node's own transition."""
        self.active = rng.random() < self.chance[int(self.active)][int(acted)]


class PlainVillage:
    """Nodes moved one by one, then the newly active ones try their contacts until nothing new happens."""

    def __init__(self, dynamics: Cascade, seed: int) -> None:
        self.people = [Person(chance) for chance in dynamics.chance]
        graph = dynamics.graph
        for one, two, chance in zip(graph.tail.tolist(), graph.head.tolist(), graph.probability.tolist(), strict=True):
            self.people[one].contacts.append((self.people[two], chance))
            self.people[two].contacts.append((self.people[one], chance))
        self.rng = random.Random(seed)

    def step(self, acted: set[int]) -> int:
        """One round; how many are active."""
        for number, person in enumerate(self.people):
            person.move(number in acted, self.rng)
        fresh = [person for person in self.people if person.active]
        while fresh:
            following = []
            for person in fresh:
                for other, chance in person.contacts:
                    if not other.active and self.rng.random() <= chance:
                        other.active = True
                        following.append(other)
            fresh = following
        return sum(person.active for person in self.people)


class GraphVillage:
    """The same on a networkx graph of node objects and attribute dictionaries, as the published simulation keeps it."""

    def __init__(self, dynamics: Cascade, seed: int) -> None:
        self.graph = networkx.Graph()
        for number, chance in enumerate(dynamics.chance):
            self.graph.add_node(number, person=Person(chance))
        pairs = zip(dynamics.graph.tail.tolist(), dynamics.graph.head.tolist(), strict=True)
        for (one, two), chance in zip(pairs, dynamics.graph.probability.tolist(), strict=True):
            self.graph.add_edge(one, two, weight=chance)
        self.rng = random.Random(seed)

    def step(self, acted: set[int]) -> int:
        """One round; how many are active."""
        for number in self.graph.nodes:
            self.graph.nodes[number]["person"].move(number in acted, self.rng)
        fresh = [number for number in self.graph.nodes if self.graph.nodes[number]["person"].active]
        while fresh:
            following = []
            for number in fresh:
                for other in self.graph.neighbors(number):
                    person = self.graph.nodes[other]["person"]
                    if not person.active and self.rng.random() <= self.graph.edges[number, other]["weight"]:
                        person.active = True
                        following.append(other)
            fresh = following
        return sum(self.graph.nodes[number]["person"].active for number in self.graph.nodes)


def simulation(dynamics: Cascade, budget: int, repeats: int) -> dict[str, float]:
    """Node-steps a second, in alternation."""
    # As in any process that has once freed some megabytes: the C library then keeps freed blocks of the size of a
    # step's results, instead of handing them back and clearing new pages at every step.
    np.empty(1 << 21)
    rng = np.random.default_rng(0)
    plain = PlainVillage(dynamics, 0)
    published = GraphVillage(dynamics, 0)
    n, rates, networked, ours, level = dynamics.n_arms, [], [], {1: [], 16: [], 256: []}, [[], []]
    visits = [set(rng.choice(n, budget, replace=False).tolist()) for _ in range(10)]
    picked = np.array([[int(k in chosen) for k in range(n)] for chosen in visits])
    actions = {size: [np.tile(row, (size, 1)) for row in picked] for size in ours}
    states = {size: np.zeros((size, n), dtype=np.int64) for size in ours}
    for _ in range(repeats):
        clock = process_time()
        for chosen in visits * 10:
            level[0].append(plain.step(chosen) / n)
        rates.append(100 * n / (process_time() - clock))
        clock = process_time()
        for chosen in visits * 2:
            published.step(chosen)
        networked.append(20 * n / (process_time() - clock))
        for size, kept in ours.items():
            clock = process_time()
            for action in actions[size] * 4:
                states[size], _ = dynamics.step(states[size], action, rng)
            kept.append(40 * size * n / (process_time() - clock))
        level[1].append(states[256].mean())
    result = {
        "networkx": median(networked),
        "objects": median(rates),
        **{f"batch {size}": median(kept) for size, kept in ours.items()},
    }
    half = repeats // 2
    print(f"  mean active: one by one {np.mean(level[0][100 * half :]):.3f}, batched {np.mean(level[1][half:]):.3f}")
    for name, rate in result.items():
        ratios = f"{rate / result['networkx']:7.1f} x networkx, {rate / result['objects']:6.1f} x objects"
        print(f"  {name:<10} {rate:12.3g} node-steps/s   {ratios}")
    return result


def against_cynetdiff(dynamics: Cascade, repeats: int) -> None:
    """Single cascades, when the C++ package is installed."""
    try:
        from cynetdiff.utils import networkx_to_ic_model
    except ImportError:
        print("  cynetdiff is not installed: left out")
        return
    graph = networkx.Graph(list(zip(dynamics.graph.tail.tolist(), dynamics.graph.head.tolist(), strict=True)))
    theirs, _ = networkx_to_ic_model(graph, activation_prob=float(dynamics.graph.probability[0]))
    rng = np.random.default_rng(0)
    active = np.zeros((1000, dynamics.n_arms), dtype=bool)
    active[:, :150] = True
    theirs.set_seeds(list(range(150)))
    clock = process_time()
    for _ in range(repeats * 10):
        theirs.reset_model()
        theirs.advance_until_completion()
    other = (process_time() - clock) / (repeats * 10)
    clock = process_time()
    for _ in range(repeats):
        dynamics.graph.spread(active, rng)
    own = (process_time() - clock) / (repeats * 1000)
    print(f"  150 seeds, microseconds a cascade: cynetdiff {1e6 * other:.2f}, here {1e6 * own:.2f} (states included)")


def decision(dynamics: Cascade, problem: Problem, budget: int, samples: int, repeats: int) -> float:
    """Median seconds of one lazy greedy decision with its bound and out-of-sample estimate."""
    actions = ActionSet(problem.arms, {"budget": Budget(at_most=budget)})
    objective = CascadeObjective(samples, estimator="moves_exact")
    chooser = Chooser(problem, actions, objective, method="greedy")
    rng, state, spent = np.random.default_rng(0), np.zeros(dynamics.n_arms, dtype=np.int64), []
    clock = process_time()
    made = chooser.decide(state)
    first = process_time() - clock
    for _ in range(repeats):
        state, _ = dynamics.step(state, made.action, rng)
        clock = process_time()
        made = chooser.decide(state)
        spent.append(process_time() - clock)
    middle = median(spent) if spent else first
    print(f"  k = {budget}, {samples} samples: first {first:.3g} s (samples drawn), then {1e3 * middle:.2f} ms median")
    print(f"  last one: {made.notes['out of sample']}, gap {100 * made.relative_gap:.2g} %")
    return middle


def large(n_nodes: int, n_contacts: int, samples: int) -> None:
    """A simulated step of 16 episodes and one decision on a large random graph."""
    clock = process_time()
    rng = np.random.default_rng(0)
    pairs = np.unique(np.sort(rng.integers(0, n_nodes, (int(1.05 * n_contacts), 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    pairs = pairs[np.sort(rng.permutation(len(pairs))[:n_contacts])]
    chance, value = attributes(n_nodes, rng, "slow_start")
    dynamics = Cascade(Graph.from_edges(pairs, n_nodes, 0.05), chance, value)
    print(f"  {n_nodes} nodes, {len(pairs)} contacts made in {process_time() - clock:.2f} s")
    clock = process_time()
    dynamics.step(np.zeros((16, n_nodes), dtype=np.int64), np.zeros((16, n_nodes), dtype=np.int64), rng)
    print(f"  one step of 16 episodes: {process_time() - clock:.3f} s")
    problem = Problem(Arms.from_arrays(n_nodes), dynamics)
    decision(dynamics, problem, 100, samples, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  all together {process_time() - clock:.1f} s, peak memory {peak:.2f} GiB")


def main() -> None:
    """Print all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few repeats, a tenth of the large graph")
    quick = parser.parse_args().quick
    for probability, budget in ((0.03, 30), (0.05, 10)):
        problem = generate("contacts", probability=probability).problem
        print(f"simulation, 202 nodes, 692 contacts, probability {probability}, {budget} acted on")
        simulation(problem.dynamics, budget, 3 if quick else 30)
        against_cynetdiff(problem.dynamics, 5 if quick else 20)
    print("decision by lazy greedy")
    problem = generate(
        "contacts",
    ).problem
    decision(problem.dynamics, problem, 30, 500, 10 if quick else 60)
    print("large graph")
    large(*((10_000, 50_000) if quick else (100_000, 500_000)), samples=100)


if __name__ == "__main__":
    main()
