"""Write the page of all shipped models, ``docs/gallery.md``: what the arms are, what is declared, what comes out.

    python scripts/gallery.py

A test holds that the names and sentences on the committed page are those of the models.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rmab_opt import decide
from rmab_opt.catalog import load, model_names
from rmab_opt.decisions import Model

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gallery.md"
HEAD = """# Every model that comes along

Written by `scripts/gallery.py` from the model files. `rmab-opt new NAME FOLDER` copies one to change it; *comes out* is the first
round's decision from the model's start (the first state of every arm where the start is random), under a few seconds of
search. A gap of 0 is proven; a model decided by another verb says so.
"""


def facts(name: str, model: Model) -> list[str]:
    """What a model is, without deciding anything: lines that a test compares."""
    problem = model.problem
    lines = [f"## {name}", "", f"**{model.title}.** {' '.join(model.about.split())}", ""]
    lines.append(f"- arms: {problem.n_arms}; columns: {len(model.actions)}; rounds: {problem.horizon}")
    lines += [f"- {rule}: {' '.join(said.split())}" for rule, said in model.actions.describe().items()]
    lines.append(f"- decided by: {type(model.objective).__name__}")
    return [*lines, *([f"- source: {model.source}"] if model.source else [])]


def outcome(model: Model) -> str:
    """The first round's decision in one line."""
    state = model.problem.start
    if state is None or state.ndim != 1:
        state = np.zeros(model.problem.n_arms, dtype=int)
    found = decide(model, state, solver="quick", seconds=5.0)
    gap = f"gap {100 * found.relative_gap:.2g} %" if np.isfinite(found.relative_gap) else "no proof in that time"
    return f"- comes out: {len(found.chosen)} of {len(found.ids)} columns, value {found.value:.5g}, {gap}"


def main() -> None:
    """Decide every model and write the page."""
    lines = [HEAD]
    for name in model_names():
        model = load(name)
        lines += [*facts(name, model), outcome(model), ""]
    PAGE.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
