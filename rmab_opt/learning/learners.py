"""What `train` can train, by name: ``make(model, *, out, seed, device, on_event) -> Lesson``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmab_opt.registry import register

if TYPE_CHECKING:
    from rmab_opt.decisions import Model

__all__ = ["Lesson", "q_network"]


@dataclass(frozen=True)
class Lesson:
    """What came of a training run."""

    folder: Path
    summary: dict[str, Any]
    """For JSON: at least ``folder``, ``weights_sha256`` and ``seconds``."""
    text: str
    """For a person, one line."""
    rivals: tuple[str, ...]
    """Policies that it is fair to compare with."""


@register("learner", "q_network")
def q_network(
    model: Model,
    *,
    out: Path,
    seed: int = 0,
    device: str = "cpu",
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Lesson:
    """A Q-network whose argmax is the model's program.

    Parameters
    ----------
    on_event
        Called with ``{"done", "total", "said"}`` while it works.
    """
    from rmab_opt.learning.config import DQNConfig
    from rmab_opt.learning.dqn import train
    from rmab_opt.learning.plots import learning_plot

    config = DQNConfig.from_mapping(dict(model.settings.get("train", {})))

    def told(row: dict[str, Any]) -> None:
        if on_event is not None:
            on_event({"done": row["episode"], "total": config.episodes, "said": f"reward {row['reward']:.4g}"})

    run = train(model, config, seed=seed, out=out, device=device, on_event=told)
    learning_plot(run.log, run.folder / "learning.png", title=model.title)
    last = run.log[-10:]
    mean = sum(row["reward"] for row in last) / len(last)
    summary = {
        "folder": str(run.folder),
        "episodes": len(run.log),
        "mean_reward_last": mean,
        "weights_sha256": run.weights_hash(),
        "seconds": run.seconds,
    }
    said = f"mean reward of the last {len(last)}: {mean:.5g}; {run.seconds:.0f} s"
    text = f"{len(run.log)} episodes in {run.folder}; {said}"
    return Lesson(run.folder, summary, text, ("myopic", "random", "none"))
