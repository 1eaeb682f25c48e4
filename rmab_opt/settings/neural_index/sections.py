"""Sections of a model file that belong to neural indices."""

from __future__ import annotations

from typing import Any

from rmab_opt.registry import register
from rmab_opt.settings.neural_index.config import NeuralIndexConfig


@register("section", "neural_index")
def neural_index(given: dict[str, Any]) -> NeuralIndexConfig:
    """Hyper-parameters of a neural index."""
    return NeuralIndexConfig.from_mapping(given)
