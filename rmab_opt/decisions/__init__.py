"""Choose, certify, explain: every decision is a mathematical program with a re-checked answer."""

from rmab_opt.decisions.bounds import save_bound, verify_bound
from rmab_opt.decisions.chooser import Chooser, decide
from rmab_opt.decisions.decision import Decision
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import (
    Immediate,
    Interpolated,
    LinearObjective,
    NetworkObjective,
    Objective,
    Scores,
    Situation,
)
from rmab_opt.decisions.saved import Verification, verify
from rmab_opt.decisions.upper import bound, margin

__all__ = [
    "Chooser",
    "Decision",
    "Immediate",
    "Interpolated",
    "LinearObjective",
    "Model",
    "NetworkObjective",
    "Objective",
    "Scores",
    "Situation",
    "Verification",
    "bound",
    "decide",
    "margin",
    "save_bound",
    "verify",
    "verify_bound",
]
