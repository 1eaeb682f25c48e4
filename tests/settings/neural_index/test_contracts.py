"""Everything that the setting registers keeps the promises of its kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from contract_models import registered, several_actions_model

from rmab_opt.testing import check_policy, check_setting

SHORT = {"steps": 40, "log_every": 20, "checkpoint_every": 20, "log_episodes": 1, "hidden": (8,)}


def test_every_registered_name_has_an_example():
    assert registered("policy", "neural_index") == ["neural_index"]


@pytest.mark.slow
def test_the_setting_keeps_its_promises():
    check_setting("neural_index")


def test_policies_keep_their_promises():
    model = replace(several_actions_model(), settings={"neural_index": SHORT})
    check_policy("neural_index", model, scales=False)
