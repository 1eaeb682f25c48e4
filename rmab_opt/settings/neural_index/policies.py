"""The neural index as a policy by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmab_opt.decisions.model import Model
from rmab_opt.decisions.policy import policy
from rmab_opt.registry import register


@policy("neural_index")
def _trained_here(model: Model) -> Any:
    """Trained on the spot with the model's own settings; train once and name the run's folder to save the time."""
    from rmab_opt.settings.neural_index.index import train_neural_index

    return train_neural_index(model).policy


@register("run", "neural_index")
def _finished(folder: str | Path, model: Model) -> Any:
    """The policy of a finished run of a neural index."""
    from rmab_opt.settings.neural_index.index import load_run

    return load_run(folder, model)
