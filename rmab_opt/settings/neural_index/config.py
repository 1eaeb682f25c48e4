"""Settings of a neural index, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rmab_opt.learning.config import Settings

__all__ = ["LOSSES", "NeuralIndexConfig"]

LOSSES = ("tempered", "occupancy", "rollout")
"""Losses by name: see :class:`NeuralIndexConfig`."""

STEPS = {"tempered": 800, "occupancy": 150, "rollout": 300}
"""Gradient steps of each loss. The published target is 0 or 1 almost everywhere: trained further, indices run apart and
lose the ranking that rounding needs (3 points of the bound between 150 and 1000 steps at 50 arms)."""


@dataclass(frozen=True)
class NeuralIndexConfig(Settings):
    """Hyper-parameters of a neural index."""

    section: ClassVar[str] = "neural_index"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "loss": LOSSES,
        "masses": ("upper", "equal"),
        "features": ("auto", "tables", "summary", "arms", "none"),
    }
    ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "epsilon": (1e-4, 1e3),
        "temperature": (1e-6, 1e3),
        "steps": (0, 10**7),
        "batch": (1, 10**5),
        "rounds": (1, 10**5),
        "learning_rate": (1e-9, 10.0),
        "weight_decay": (0.0, 100.0),
        "uniform": (0.0, 1.0),
        "log_every": (1, 10**7),
        "log_episodes": (0, 10**5),
        "checkpoint_every": (1, 10**7),
    }

    loss: str = "tempered"
    """``tempered``: distance to the softened choice of the decomposition's action values, which ranks all arms.
    ``occupancy``: distance to the occupancy program's own choice, as published. ``rollout``: reward of simulated
    rounds, from samples alone."""
    masses: str = "upper"
    """``upper``: limits may be left unused in training; ``equal``: they are used in full, as published."""
    epsilon: float = 0.1
    """Smoothing of the allocation, in units of the index."""
    temperature: float = 0.15
    """Softness of the tempered target, as a share of the arms' mean range of rewards."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    features: str = "auto"
    """What tells arms apart: ``tables`` (transition rows and rewards), ``summary`` (their means, for many states),
    ``arms`` (one input an arm: no dynamics needed, no unseen arms), ``none``; ``auto`` takes tables up to 256 numbers
    an arm, else the summary."""
    columns: tuple[str, ...] = ()
    """Columns of the arms' table that the network sees too."""
    steps: int = 0
    """Gradient steps; 0 takes the loss's own number, see :data:`STEPS`."""
    batch: int = 16
    """Joint states a step; parallel episodes of the roll-out loss."""
    rounds: int = 10
    """Rounds a step of the roll-out loss."""
    learning_rate: float = 3e-3
    """Adam's first rate; falls to a hundredth on a cosine."""
    weight_decay: float = 0.0
    """Pull of the weights towards zero (AdamW); 0.1 to 1 when the network is to act on other arms than it trains on."""
    uniform: float = 0.6
    """Share of states drawn evenly instead of from the program's own state frequencies, so that rare ones are seen."""
    log_every: int = 250
    """Steps between log rows, each with the simulated reward of the rounded policy."""
    log_episodes: int = 4
    """Episodes of that simulation; 0 leaves it out."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps == 0:
            object.__setattr__(self, "steps", STEPS[self.loss])
        object.__setattr__(self, "columns", tuple(str(name) for name in self.columns))
