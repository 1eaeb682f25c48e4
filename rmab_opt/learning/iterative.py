"""The greedy baseline on a learned network: ``iterative_dqn:RUN``."""

from __future__ import annotations

from rmab_opt.decisions import Model
from rmab_opt.decisions.policy import WITH_ARGUMENT, Greedy, policy
from rmab_opt.learning.dqn import load_policy

__all__ = ["iterative_dqn"]

WITH_ARGUMENT["iterative_dqn"] = "FOLDER OF A TRAINED RUN"


@policy("iterative_dqn")
def iterative_dqn(model: Model, run: str) -> Greedy:
    """Adds the column with the largest gain in a trained run's Q, one by one; errors as in :func:`load_policy`.

    References
    ----------
    Xu, Wilder, Khalil, Tambe (ICLR 2025), baseline of the same name; there it ranks by reward in one setting, may not
    end in another and is missing in a third.
    """
    return Greedy(model, load_policy(run, model).chooser.objective, "iterative_dqn")
