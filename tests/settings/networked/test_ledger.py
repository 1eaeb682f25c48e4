"""Rounds recorded of arms on a contact graph."""

from __future__ import annotations

import json

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.decisions import decide
from rmab_opt.problem import Table
from rmab_opt.programme.ledger import Ledger


def test_activity_of_unobserved_contacts_is_forecast(tmp_path):
    model = ro.load("contacts_lapsing", n_arms=8, n_contacts=10, samples=20)
    made = json.loads(decide(model).to_json())
    ledger = Ledger(tmp_path, model)
    ledger.record(made, Table({"id": ["arm3"], "done": [""], "state": ["active"]}, source="outcomes.csv"))
    dynamics = model.problem.dynamics
    acted = np.isin(model.problem.arms.ids, made["action"]).astype(int)
    exact = dynamics.expected_reward(np.array(made["state"]), acted) / dynamics.value
    exact[3] = 1.0
    assert ledger.standing().belief[:, 1] == pytest.approx(exact)
