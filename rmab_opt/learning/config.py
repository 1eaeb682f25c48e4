"""Hyper-parameters of training, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from rmab_opt.errors import ModelError
from rmab_opt.problem.table import nearest

__all__ = ["DQNConfig"]


@dataclass(frozen=True)
class DQNConfig:
    """Hyper-parameters of a run."""

    episodes: int = 100
    """Episodes of the problem's horizon."""
    network: str = "pooled"
    """``pooled`` (weights shared by arms), ``anchored`` (the same on top of the bound's own arm values) or ``dense``
    (one input an arm, as published)."""
    hidden: tuple[int, ...] = (32,)
    """Hidden widths of the arm network, or of the dense one."""
    head: int = 8
    """Width of the pooled head; 0 leaves it out."""
    anchor: str = "prices"
    """Arm values that an anchored network begins at: ``prices`` of the bound, or ``rollout`` of the best constant
    action, which is better where a few arms share a rigid set."""
    pretrain_steps: int = 300
    """Gradient steps on the expected reward of random states and actions before learning."""
    batch: int = 32
    """Transitions a gradient step."""
    updates: int = 2
    """Gradient steps a round."""
    refreshes: int = 1
    """Remembered next actions solved for again each round."""
    learning_rate: float = 3e-3
    """Adam's first rate; falls to a tenth on a cosine over the run."""
    target_rate: float = 0.05
    """Share of the way the target network moves to the online one each gradient step."""
    average_rate: float = 0.005
    """Share of the way the kept weights move to the online ones each gradient step: the run's result is this average,
    which does not swing with the last few minibatches."""
    epsilon_start: float = 0.5
    """Share of random actions at first ..."""
    epsilon_end: float = 0.05
    """... and from half of the run on."""
    capacity: int = 5000
    """Transitions remembered."""
    argmax: str = "program"
    """Next actions in training by ``program`` (exact) or ``hill_climb`` (one column at a time by true marginals)."""
    solver: str = "training"
    """Profile of the argmax in training; no clock in it, so that runs repeat."""
    checkpoint_every: int = 1
    """Episodes between checkpoints."""

    def __post_init__(self) -> None:
        limits = {
            "episodes": (1, 10**7),
            "pretrain_steps": (0, 10**7),
            "batch": (1, 10**6),
            "updates": (0, 1000),
            "refreshes": (0, 1000),
            "head": (0, 1024),
            "capacity": (1, 10**7),
            "checkpoint_every": (1, 10**6),
            "learning_rate": (1e-9, 10.0),
            "target_rate": (1e-9, 1.0),
            "average_rate": (1e-9, 1.0),
            "epsilon_start": (0.0, 1.0),
            "epsilon_end": (0.0, 1.0),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ModelError(f"train.{name} is {value!r}", f"give a number from {least:g} to {most:g}.")
        if self.argmax not in ("program", "hill_climb"):
            raise ModelError(f"train.argmax is {self.argmax!r}", "use program or hill_climb.")
        object.__setattr__(self, "hidden", tuple(int(width) for width in self.hidden))
        if not self.hidden or min(self.hidden) < 1:
            raise ModelError(f"train.hidden is {self.hidden}", "give at least one width, each at least 1.")

    @classmethod
    def from_mapping(cls, given: dict[str, Any]) -> DQNConfig:
        """Settings from a model file's ``train`` section; unknown keys are refused."""
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise ModelError(f"train.{name} is not a setting", nearest(name, known))
        return cls(**given)
