"""The neural index as something that `train` trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmab_opt.learning.learners import Lesson
from rmab_opt.registry import register

if TYPE_CHECKING:
    from rmab_opt.decisions import Model


@register("learner", "neural_index")
def neural_index(
    model: Model,
    *,
    out: Path,
    seed: int = 0,
    device: str = "cpu",
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Lesson:
    """A network of indices, trained through a differentiable allocation."""
    from rmab_opt.settings.neural_index.index import train_neural_index

    def told(row: dict[str, Any]) -> None:
        if on_event is not None:
            said = f"loss {row['loss']:.4g}" + ("" if row["reward"] is None else f" · reward {row['reward']:.5g}")
            on_event({"done": row["step"], "total": row["steps"], "said": said})

    run = train_neural_index(model, seed=seed, out=out, device=device, on_event=told)
    last = run.log[-1]
    summary = {
        "folder": str(run.folder),
        "policy": "neural_index",
        "steps": last["step"],
        "loss": last["loss"],
        "simulated_reward": last["reward"],
        "weights_sha256": run.weights_hash(),
        "seconds": run.seconds,
    }
    text = f"{last['step']} steps in {run.folder}; loss {last['loss']:.4g}; {run.seconds:.0f} s"
    return Lesson(out, summary, text, ("lagrangian", "myopic", "none"))
