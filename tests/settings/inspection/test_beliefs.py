"""Belief chains, windows and the encoded state against hand computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Dynamics, Tabular
from rmab_opt.settings.inspection.beliefs import BeliefChains, EncodedArms, Windows, rescale


def walk(g: float, q: float, count: int) -> list[float]:
    beliefs = [1.0]
    for _ in range(count - 1):
        beliefs.append(g * beliefs[-1] + q * (1 - beliefs[-1]))
    return beliefs


@given(g=st.floats(0.01, 0.99), q=st.floats(0.01, 0.99), rule=st.sampled_from(["limit", "step"]))
def test_a_chain_is_the_walk_cut_where_its_rule_says(g, q, rule):
    chain = BeliefChains.build(np.array([g]), np.array([q]), rule=rule, longest=400)
    length = int(chain.length[0])
    beliefs = walk(g, q, length + 1)
    assert chain.beliefs[0, :length] == pytest.approx(beliefs[:length], abs=1e-9)
    limit = q / (1 - g + q)

    def stops(n: int) -> bool:
        here, following = walk(g, q, n + 2)[-2:]
        return abs(here - limit) < 1e-2 if rule == "limit" else abs(following - here) < 1e-2

    if not chain.cut[0]:
        assert stops(length - 1)
        assert length == 1 or not stops(length - 2)


def test_the_published_rule_freezes_a_durable_arm_and_the_default_does_not():
    g, q = np.array([0.995]), np.array([0.02])
    assert BeliefChains.build(g, q, rule="step").length[0] == 1
    assert BeliefChains.build(g, q).length[0] > 50


def test_mean_lengths_are_the_published_ones():
    rng = np.random.default_rng(0)
    narrow = BeliefChains.build(rng.uniform(0.8, 0.9, 5000), rng.uniform(0.1, 0.2, 5000), rule="step")
    beta = BeliefChains.build(rng.beta(5, 1, 5000), rng.beta(1, 5, 5000), rule="step")
    assert narrow.length.mean() == pytest.approx(9.2, abs=0.15)
    assert beta.length.mean() == pytest.approx(9.1, abs=0.15)
    assert (beta.length == 1).mean() == pytest.approx(0.0495, abs=0.01)


@given(g=st.floats(0.0, 1.0), share=st.floats(0.0, 1.0), slots=st.sampled_from([4, 12, 52]))
def test_rescaled_slots_add_up_to_the_old_ones(g, share, slots):
    q = g * share
    root = np.array(rescale(np.array([g]), np.array([q]), slots)).ravel()
    one = np.array([[root[0], 1 - root[0]], [root[1], 1 - root[1]]])
    assert (one >= -1e-12).all()
    year, old = np.linalg.matrix_power(one, slots), np.linalg.matrix_power(np.array([[g, 1 - g], [q, 1 - q]]), 12)
    assert year == pytest.approx(old, abs=1e-7)


def test_negative_persistence_is_refused_with_its_reason():
    with pytest.raises(ModelError, match="negative persistence") as caught:
        rescale(np.array([0.9, 0.2]), np.array([0.1, 0.6]), 52)
    assert "arm 1" in str(caught.value)
    assert "swings" in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "words"),
    [(["1-9"], "0 to 5"), (["x"], "not a list"), (["3-4;1"], "rising"), (["3-2"], "rising")],
)
def test_wrong_windows_name_their_row(cells, words):
    with pytest.raises(ModelError, match=words):
        Windows.parse(["0-1", *cells], 6)


def test_a_window_past_the_period_is_refused():
    with pytest.raises(ModelError, match="within the period"):
        Windows.spans(np.array([5]), 2, 6)


def test_states_move_as_written_in_the_table():
    chains = BeliefChains.build(np.array([0.8]), np.array([0.3]), rule="step", tolerance=0.1)
    arms = EncodedArms(chains, Windows.parse(["1-2;4"], 6, 2))
    last = int(chains.length[0]) - 1

    def after(age: int, slot: int, used: int, action: int) -> tuple[int, int, int]:
        state = arms.encode(np.array([age]), slot, used)
        return tuple(int(part[0]) for part in arms.decode(arms.move(state, np.array([action]))))

    assert after(0, 0, 0, 1) == (1, 1, 0)  # closed slot: nothing happens
    assert after(0, 1, 0, 1) == (0, 2, 1)  # an inspection in the window
    assert after(0, 1, 0, 0) == (1, 2, 0)
    assert after(1, 2, 1, 1) == (0, 3, 0)  # the second one, and the window ends
    assert after(1, 2, 2, 1) == (min(2, last), 3, 0)  # allowance used
    assert after(last, 5, 0, 0) == (last, 0, 0)  # the chain's end absorbs, the period wraps
    assert isinstance(arms, Dynamics)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_dense_tables_say_what_moves_say(seed):
    rng = np.random.default_rng(seed)
    chains = BeliefChains.build(rng.beta(5, 1, 3), rng.beta(1, 5, 3), tolerance=0.1)
    arms = EncodedArms(chains, Windows.parse(["0-1", "1;3", ""], 4, int(rng.integers(1, 3))))
    transition, reward = arms.tabular()
    Tabular(transition, reward)
    state = arms.encode(rng.integers(0, 9, 3), rng.integers(0, 4, 3))
    action = rng.integers(0, 2, 3)
    following, paid = arms.step(state, action, rng)
    assert transition[np.arange(3), action, state, following] == pytest.approx(1.0)
    assert reward[np.arange(3), state, action] == pytest.approx(paid)


def test_tables_of_a_large_cohort_are_refused_with_a_way_out():
    chains = BeliefChains.build(np.full(5000, 0.9), np.full(5000, 0.1))
    with pytest.raises(CapabilityError, match=r"inspection\.indices"):
        EncodedArms(chains, Windows.free(5000, 12)).tabular()
