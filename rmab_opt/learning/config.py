"""Settings of training, readable without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, get_type_hints

from rmab_opt.errors import ModelError
from rmab_opt.problem.table import nearest
from rmab_opt.registry import names, register

__all__ = ["PRESETS", "DQNConfig", "Settings"]


class Settings:
    """Base of frozen dataclasses that a model file's section gives values to."""

    section: ClassVar[str]
    """Name of the section, for messages."""
    ranges: ClassVar[dict[str, tuple[float, float]]] = {}
    """Least and largest value of numbers."""
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}
    """What a text may be."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Named sets of values, which the section's own values go over."""

    def __post_init__(self) -> None:
        for name, known in self.choices.items():
            value = getattr(self, name)
            if value not in known:
                raise ModelError(f"{self.section}.{name} is {value!r}", nearest(str(value), list(known)))
        for name, (least, most) in self.ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ModelError(f"{self.section}.{name} is {value!r}", f"give a number from {least:g} to {most:g}.")
        hidden = tuple(int(width) for width in getattr(self, "hidden", (1,)))
        if not hidden or min(hidden) < 1:
            raise ModelError(f"{self.section}.hidden is {hidden}", "give at least one width, each at least 1.")
        object.__setattr__(self, "hidden", hidden)

    @classmethod
    def from_mapping(cls, given: dict[str, Any]) -> Self:
        """Settings from a model file's section; unknown keys are refused.

        ``preset: NAME`` takes a named set of values first; the others go over it.
        """
        given = dict(given)
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        preset = given.pop("preset", None)
        if preset is not None:
            if not isinstance(preset, str) or preset not in cls.presets:
                raise ModelError(
                    f"{cls.section}.preset is {preset!r}",
                    nearest(str(preset), list(cls.presets)) if cls.presets else "leave it out, there is none.",
                )
            given = {**cls.presets[preset], **given}
        for name in given:
            if name not in known:
                raise ModelError(f"{cls.section}.{name} is not a setting", nearest(name, [*known, "preset"]))
        types = get_type_hints(cls)
        return cls(**{name: cls._typed(name, value, types[name]) for name, value in given.items()})

    @classmethod
    def _typed(cls, name: str, value: Any, wanted: Any) -> Any:
        """The value as its field has it: 1.5 is no whole number, a word no list."""
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(wanted).validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise ModelError(f"{cls.section}.{name} is {value!r}", f"{said[0].lower()}{said[1:]}.") from None


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "network": "dense",
        "hidden": (16, 32),
        "episodes": 100,
        "warm_start": "published",
        "pretrain_steps": 3000,
        "batch": 32,
        "updates": 1,
        "refreshes": 4,
        "double": False,
        "discount": 0.99,
        "learning_rate": 2.5e-4,
        "weight_decay": 0.01,
        "target": "periodic",
        "target_every": 300,
        "epsilon_start": 0.9,
        "epsilon_end": 0.05,
        "capacity": 10_000,
    }
}
"""``paper``: Xu, Wilder, Khalil, Tambe (ICLR 2025) as described, with the faults of its released code repaired; what
differs stands in the guide's page on training."""


@dataclass(frozen=True)
class DQNConfig(Settings):
    """Hyper-parameters of a run."""

    section: ClassVar[str] = "train"
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "argmax": ("program", "hill_climb"),
        "target": ("soft", "periodic"),
        "warm_start": ("lasting", "published"),
        "targets": ("bellman", "advantages"),
    }
    ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "episodes": (1, 10**7),
        "pretrain_steps": (0, 10**7),
        "batch": (1, 10**6),
        "updates": (0, 1000),
        "refreshes": (0, 1000),
        "next_states": (0, 1000),
        "head": (0, 1024),
        "capacity": (1, 10**7),
        "checkpoint_every": (1, 10**6),
        "learning_rate": (1e-9, 10.0),
        "weight_decay": (0.0, 100.0),
        "l1": (0.0, 100.0),
        "stability": (0.0, 100.0),
        "bound_product": (0.0, 100.0),
        "target_rate": (1e-9, 1.0),
        "target_every": (1, 10**9),
        "average_rate": (1e-9, 1.0),
        "epsilon_start": (0.0, 1.0),
        "epsilon_end": (0.0, 1.0),
        "validations": (1, 1000),
        "states": (8, 10**6),
        "draws": (2, 10**5),
        "rounds": (1, 10),
        "passes": (1, 10**5),
        "validation_episodes": (0, 10**6),
    }

    episodes: int = 100
    """Episodes of the problem's horizon."""
    network: str = "pooled"
    """``pooled`` (weights shared by arms), ``anchored`` (the same on top of known arm values), ``dense`` (one input an
    arm, as published), or for arms on a contact graph ``graph`` and ``graph_lookahead`` (messages along contacts)."""
    hidden: tuple[int, ...] = (32,)
    """Hidden widths of the arm network, or of the dense one."""
    head: int = 8
    """Width of the pooled head; 0 leaves it out."""
    anchor: str = "auto"
    """Arm values that an anchored network begins at: ``prices`` of the bound, or of the ``hull`` of allowed actions,
    ``rollout`` of the best constant action, ``open_loop`` (each arm's action kept to the end), or ``auto``, the best of
    them on validation episodes."""
    warm_start: str = "lasting"
    """What is fitted before learning: ``lasting``, the reward of random states and actions as if it went on to the
    end; ``published``, one round's reward on the published list of diverse states and actions."""
    pretrain_steps: int = 300
    """Gradient steps of the warm start; anchored networks need none and take none."""
    batch: int = 32
    """Transitions a gradient step."""
    updates: int = 2
    """Gradient steps a round."""
    refreshes: int = 1
    """Remembered next actions solved for again each round."""
    next_states: int = 1
    """Next states sampled for each Bellman target; 0 takes all of them with their probabilities (few arms only)."""
    double: bool = True
    """Next actions by the online network, valued by the target network; False takes the target network for both."""
    discount: float | None = None
    """Discount in the targets; None takes the problem's own."""
    learning_rate: float = 3e-3
    """Adam's first rate; falls to a tenth on a cosine over the rounds of the run."""
    weight_decay: float = 0.0
    """Pull of the weights towards zero (AdamW)."""
    l1: float = 0.0
    """For quicker programs: this times the sum of absolute weights is added to the loss in the second half of the run,
    and weights below 0.001 are zero after it."""
    stability: float = 0.0
    """For quicker programs: this times the mean over neurons of -tanh(1 + u l), with l and u a neuron's bounds over the
    allowed actions: neurons of one sign need no binary."""
    bound_product: float = 0.0
    """For quicker programs: this times the mean over neurons that can bend of u times -l."""
    target: str = "soft"
    """The target network follows the online one a little each step (``soft``) or is copied now and then
    (``periodic``)."""
    target_rate: float = 0.05
    """Share of the way of a soft update."""
    target_every: int = 300
    """Gradient steps between periodic copies."""
    average_rate: float = 0.005
    """Share of the way the kept weights move to the online ones each gradient step: this average does not swing with
    the last few minibatches."""
    epsilon_start: float = 0.5
    """Share of random actions at first ..."""
    epsilon_end: float = 0.05
    """... and from half of the rounds on."""
    capacity: int = 5000
    """Transitions remembered."""
    argmax: str = "program"
    """Next actions in training by ``program`` (exact up to the profile's gap) or ``hill_climb`` (one column at a time
    by true marginals). Decisions of the finished run are exact either way."""
    solver: str = "training"
    """Profile of the argmax in training; no clock in it, so that runs repeat."""
    validations: int = 2
    """Moments, evenly spread and the last at the end, at which the averaged weights are tried on the validation
    episodes; the best are the run's result."""
    validation_episodes: int = 12
    """Episodes of a trial, the same draws for all, of no other use; 0 leaves trials out and keeps the last average."""
    targets: str = "bellman"
    """``bellman``: deep Q-learning, as published. ``advantages``: policy iteration whose targets are what actions add,
    simulated with common random numbers; for arms coupled by a shared quantity or known by a simulator only."""
    states: int = 250
    """States of one round of ``advantages`` ..."""
    draws: int = 8
    """... roll-outs for each of them and each column in the first round; twice as many in each later one ..."""
    rounds: int = 2
    """... rounds at most: the first that gains nothing on the validation episodes is the last ..."""
    passes: int = 60
    """... and passes over the states in the fit."""
    rivals: tuple[str, ...] = ("mean_field", "hand", "single_gains")
    """Planning rules that a network of ``advantages`` has to beat, those of them that the arms allow; the best of them
    is the first base. ``none`` alone asks a simulator for nothing beyond the roll-outs."""
    ablations: bool = True
    """Whether ``advantages`` also fits to independent returns and tries a silent head, for the run's record."""
    checkpoint_every: int = 1
    """Episodes between checkpoints."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ["auto", *names("anchor")]
        if self.anchor not in known:
            raise ModelError(f"train.anchor is {self.anchor!r}", nearest(str(self.anchor), known))
        if self.discount is not None and not 0.0 < self.discount <= 1.0:
            raise ModelError(f"train.discount is {self.discount!r}", "give a number above 0 and at most 1.")
        if not isinstance(self.double, bool):
            raise ModelError(f"train.double is {self.double!r}", "use true or false.")
        if self.anchor == "auto" and self.validation_episodes == 0 and self.network == "anchored":
            raise ModelError("train.anchor is 'auto' without validation episodes", "name the anchor, or allow some.")


@register("section", "train")
def train_section(given: dict[str, Any]) -> DQNConfig:
    """Hyper-parameters of deep Q-learning."""
    return DQNConfig.from_mapping(given)
