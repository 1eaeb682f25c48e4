"""Policies and objectives that stand on a finished run, by name."""

from __future__ import annotations

from pathlib import Path

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import Objective
from rmab_opt.decisions.policy import Greedy, Policy, make_policy, policy
from rmab_opt.problem import Problem
from rmab_opt.registry import register

__all__ = ["iterative_dqn"]


@policy("iterative_dqn")
def iterative_dqn(model: Model, *, run: str) -> Greedy:
    """Adds the column with the largest gain in a trained run's Q, one by one: the published greedy baseline.

    References
    ----------
    Xu, Wilder, Khalil, Tambe (ICLR 2025), baseline of the same name; there it ranks by reward in one setting, may not
    end in another and is missing in a third.
    """
    from rmab_opt.learning.runs import load_policy

    return Greedy(model, load_policy(run, model).chooser.objective, "iterative_dqn")


@register("run", "planned")
def planned(folder: str | Path, model: Model) -> Policy:
    """The planning rule that a run kept in place of its network."""
    from rmab_opt.learning.run_folder import RunFolder

    stored = RunFolder(folder).read_tensors("weights")
    assert stored is not None
    return make_policy(str(stored[1]["planned"]), model)


@register("objective", "learned")
def learned(problem: Problem, actions: ActionSet, folder: Path, *, run: str) -> Objective:
    """The Q-network of a finished run."""
    from rmab_opt.learning.runs import load_policy

    return load_policy(folder / run, Model(problem, actions)).chooser.objective
