"""The equity settings are the published ones, to the last digit that is known of them."""

from __future__ import annotations

import numpy as np
import pytest

from rmab_opt.errors import ModelError
from rmab_opt.settings.equity.curves import ChargeTable
from rmab_opt.settings.equity.instances import digital_diabetes, equity_synthetic, group_blocks, maternal_health


def test_maternal_arms_have_the_published_fingerprint():
    transition = maternal_health().problem.dynamics.transition
    first = [transition[0, 0, 0, 0], transition[0, 1, 0, 0], transition[0, 0, 1, 2], transition[0, 1, 1, 0]]
    assert first == pytest.approx([0.676405, 0.540016, 0.798937, 0.862045], abs=5e-7)
    assert [transition[0, 0, 2, 2], transition[0, 1, 2, 2]] == pytest.approx([0.749405, 0.521818], abs=5e-7)
    assert transition[:, 1, 1, 0].sum() == pytest.approx(115.765173, abs=5e-7)


def test_diabetes_arms_have_the_published_fingerprint_and_group_sizes():
    problem = digital_diabetes().problem
    # From maintenance (states 8 to 15) a passive arm drops out with pMD0.
    assert problem.dynamics.transition[:, 0, 8, :8].sum() == pytest.approx(27.308794, abs=5e-7)
    sizes = [len(members) for members in problem.arms.groups("group").values()]
    assert sizes == [53, 45, 60, 45, 37, 60]
    assert (problem.start == 16).all()
    assert problem.dynamics.state_names[16] == "engaged/high/11"


@pytest.mark.parametrize("weak", [0, 1])
def test_the_diabetes_kernel_is_the_product_of_its_three_moves(weak):
    """Written state by state, without Kronecker structure."""
    means = {
        0: (0.5599315068, 0.03, 0.122, 0.99, 0.08653735277, 0.9940700531, 0.06922988221, 0.9920934041),
        1: (0.5, 0.03, 0.3, 0.99, 0.025, 0.85, 0.02, 0.8),
    }[weak]
    pme, pmd1, pmd0, pee, qe0, qe1, q0, q1 = means
    problem = digital_diabetes(noise=0.0, weak=weak).problem
    arm = problem.arms.groups("group")["3"][0]
    for state in range(24):
        e, c, m0, m1 = state // 8, state // 4 % 2, state // 2 % 2, state % 2
        for action in (0, 1):
            moves = {
                (0, 0): {0: 1.0},
                (0, 1): {0: 1.0},
                (1, 0): {0: pmd0, 1: 1 - pmd0},
                (1, 1): {0: pmd1, 2: pme, 1: 1 - pmd1 - pme},
                (2, 0): {1: 1.0},
                (2, 1): {2: pee, 1: 1 - pee},
            }[e, action]
            low = (qe0, qe1)[c] if m1 else (q0, q1)[c]
            row = np.zeros(24)
            for e_next, chance in moves.items():
                memory = 2 * int(e == 2) + m0
                row[8 * e_next + 4 + memory] += chance * low
                row[8 * e_next + memory] += chance * (1 - low)
            assert problem.dynamics.transition[arm, action, state] == pytest.approx(row, abs=1e-12)


@pytest.mark.parametrize(
    ("alpha", "group", "published"),
    [
        (0.0, "0", (0.13228, 0.10405, 0.10265, 0.01823)),
        (0.0, "2", (0.39384, 0.38344, 0.33531, 0.04685)),
        (0.5, "0", (0.36662, 0.63592, 0.63467, 0.60382)),
        (1.0, "2", (0.41597, 1.16861, 1.16861, 1.16861)),
    ],
)
def test_diabetes_indices_of_group_means_are_the_published_ones(alpha, group, published):
    problem = digital_diabetes(noise=0.0, alpha=alpha).problem
    arm = problem.arms.groups("group")[group][:1]
    transition, reward = problem.dynamics.tabular()
    table = ChargeTable(transition[arm], reward[arm], horizon=20, discount=problem.discount, charges=2000)
    found = [table.indices(np.array([state]), 20)[0] for state in (16, 8, 11, 12)]
    assert found == pytest.approx(published, abs=1e-4)


@pytest.mark.parametrize(("alpha", "high", "negative"), [(0.0, 50, 1536), (0.5, 72, 71), (1.0, 1432, 0)])
def test_as_many_sampled_diabetes_indices_are_large_or_harmful_as_published(alpha, high, negative):
    problem = digital_diabetes(alpha=alpha).problem
    table = ChargeTable(*problem.dynamics.tabular(), horizon=20, discount=problem.discount)
    index = table.index[19][table.kind]
    # An index within rounding of zero falls on either side.
    assert (index > 1).sum() == high
    assert (index < 0).sum() == pytest.approx(negative, abs=2)


@pytest.mark.parametrize(
    ("left", "published"),
    [(20, (1.342665, 0.639936, 0.947269, 0.849915, 0.0)), (2, (0.939906, 0.639936, 0.899910, 0.849915, 0.0))],
)
def test_synthetic_indices_are_the_published_ones(left, published):
    problem = equity_synthetic().problem
    table = ChargeTable(*problem.dynamics.tabular(), horizon=20, discount=problem.discount, charges=4000)
    first = {name: members[0] for name, members in problem.arms.groups("group").items()}
    ones, zeros = np.ones(100, dtype=int), np.zeros(100, dtype=int)
    bad, good = table.indices(zeros, left), table.indices(ones, left)
    found = (bad[first["A"]], good[first["A"]], bad[first["B"]], good[first["B"]], bad[first["D"]])
    assert found == pytest.approx(published, abs=2e-4)
    assert (table.indices(zeros, 1) == 0).all()


def test_blocks_floor_their_sizes_and_the_rest_joins_the_first_group():
    assert group_blocks(10, np.array([0.25, 0.45, 0.3])).tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2, 0]


def test_seed_zero_is_published_and_other_seeds_differ():
    assert np.array_equal(
        maternal_health(seed=3).problem.dynamics.transition, maternal_health(seed=3).problem.dynamics.transition
    )
    assert not np.array_equal(
        maternal_health(seed=3).problem.dynamics.transition, maternal_health().problem.dynamics.transition
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: maternal_health(large="Z"),
        lambda: digital_diabetes(alpha=1.5),
        lambda: digital_diabetes(weak=2),
        lambda: equity_synthetic(n_arms=0),
        lambda: maternal_health(noise=-1.0),
    ],
)
def test_parameters_out_of_range_are_refused(make):
    with pytest.raises(ModelError):
        make()
