"""The search's recorded tree covers the set and closes the proof; a search that lies about it proves nothing false."""

import numpy as np
import pytest
from proof_models import EVERY, network, problem_of, sets

from rmab_opt.decisions import Chooser, NetworkObjective
from rmab_opt.decisions.leaves import Leaves
from rmab_opt.decisions.proof import layers_of, rows_of_set
from rmab_opt.encoder import Support
from rmab_opt.errors import CertificateError
from rmab_opt.search import branch_and_bound, maximise


@pytest.mark.parametrize("seed", range(6))
def test_the_recorded_tree_closes_the_proof(seed):
    rng = np.random.default_rng(seed)
    actions, net = sets(rng), network(rng)
    model = actions.model()
    found = maximise(net, Support.from_model(model, list(model.act.values())), actions.allows)
    tree = found.tree
    assert tree is not None
    assert len(tree) == 2 * (tree >= 0).sum() + 1
    target = found.value + 1e-4 * max(1.0, abs(found.value))
    leaves = Leaves(layers_of(net), rows_of_set(actions))
    assert tree.max() < leaves.n + sum(leaves.sizes)
    closed = leaves.close(target, actions.allows, tree)
    assert closed.whole
    assert closed.bound >= float(net(EVERY[[actions.allows(a) for a in EVERY]]).max())


LIES = {
    "a node dropped without a reason": "drop",
    "closed leaves": "closed",
    "slopes outside [0, 1]": "alpha",
    "multipliers below 0": "beta",
    "one neuron's upper bound halved": "neuron",
    "fixing with the loss doubled": "loss",
}


NETWORKS = 40


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES)
def test_a_search_that_lies_makes_no_wrong_certificate(lie, monkeypatch):
    """Whatever the search says it has closed, `optimal` and the bound are the proof's: 40 networks a lie."""
    bounds, search = branch_and_bound.NodeBounds, branch_and_bound._Search
    real = {"tighten": bounds.tighten, "improve": bounds.improve, "look": search.look, "fix": search.fix}

    def tighten(self, node, cutoff=-np.inf):
        alive = real["tighten"](self, node, cutoff)
        if LIES[lie] == "neuron" and node["upper"].shape[1]:
            node["upper"][:, 0] = 0.5 * (node["lower"][:, 0] + node["upper"][:, 0])
        return alive

    def improve(self, node, steps, cutoff):
        real["improve"](self, node, steps, cutoff)
        if LIES[lie] == "alpha":
            node["alpha"] = 3.0 * node["alpha"] - 1.0
        if LIES[lie] == "beta":
            node["beta"] = -np.abs(node["beta"]) - 0.1

    def look(self, node, steps):
        kept = real["look"](self, node, steps)
        if LIES[lie] == "closed" and self.nodes > 1:
            return branch_and_bound.rows(kept, np.zeros(len(kept["bound"]), dtype=bool))
        if LIES[lie] == "drop" and len(kept["bound"]) > 1:
            return branch_and_bound.rows(kept, np.arange(len(kept["bound"])) > 0)
        return kept

    def fix(self, node, found, limit):
        if LIES[lie] == "loss":
            found = {**found, "loss": 2.0 * found["loss"]}
        return real["fix"](self, node, found, limit)

    told = 0
    for seed in range(NETWORKS):
        rng = np.random.default_rng(seed)
        actions, net = sets(rng), network(rng)
        best = float(net(EVERY[[actions.allows(a) for a in EVERY]]).max())
        chooser = Chooser(
            problem_of(actions), actions, NetworkObjective(lambda _, net=net: net), method="search", many=False
        )
        with monkeypatch.context() as patch:
            patch.setattr(bounds, "tighten", tighten)
            patch.setattr(bounds, "improve", improve)
            patch.setattr(search, "look", look)
            patch.setattr(search, "fix", fix)
            try:
                made = chooser.decide()
            except CertificateError:
                told += 1
                continue
        assert made.bound >= best - 1e-9 * (1 + abs(best)), seed
        assert made.status != "optimal" or made.value >= best - 1e-4 * (1 + abs(best)), seed
    assert told < NETWORKS
