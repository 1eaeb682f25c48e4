"""Write the page of all shipped models, ``docs/gallery.md``, with a picture of each: the arms and one decision.

    python scripts/gallery.py                    # the page
    python scripts/gallery.py --pictures         # and the pictures; a minute or two
    python scripts/gallery.py --pictures budget  # and that one

A test holds that the committed page is what this writes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import rmab_opt as ro
from rmab_opt.catalog import load, model_names

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gallery.md"
HEAD = """# Every model that comes along

Written by `scripts/gallery.py` from the model files. `rmab-opt new NAME FOLDER` copies one to change it. *Comes out* is
the model's own regression test: the value that trying every allowed action finds and that `decide` finds too, with the
values of the file that were made small for it. In a picture every dot is an arm, its colour its state (a drawn one,
where the start is drawn); a ring says that the decision which `decide` makes there acts on it; lines are contacts.
Calendars show arms by slots instead.
"""
PICTURES = PAGE.parent / "images" / "gallery"
GROUPS = ("village", "group", "worker", "role", "region", "district")
"""Columns of the arms' table that set the dots apart, the first that is there."""
RING = "#c1272d"
# Drawn narrow, so that the letters stay legible on a telephone.
SIZE, DOTS = (4.8, 2.5), 150


def section(name: str) -> list[str]:
    """Lines of one model: what it is, what is declared, what comes out."""
    model = load(name)
    problem = model.problem
    lines = [f"## {name}", "", f"**{model.title}.** {' '.join(model.about.split())}", ""]
    lines += [f"![The arms of {name} and one decision](images/gallery/{name}.png)", ""]
    lines.append(f"- arms: {problem.n_arms}; columns: {len(model.actions)}; rounds: {problem.horizon}")
    lines += [f"- {rule}: {' '.join(said.split())}" for rule, said in model.actions.describe().items()]
    lines.append(f"- decided by: {type(model.objective).__name__}")
    check = model.settings.get("check")
    if check:
        small = ", ".join(f"`{key}={value}`" for key, value in check.get("set", {}).items())
        lines.append(f"- comes out: {check['optimum']:.6g}{f' with {small}' if small else ''}")
    return [*lines, *([f"- source: {model.source}"] if model.source else [])]


def places(model: Any) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Where every arm's dot stands, (N, 2), and the names of the groups with their places."""
    table = model.problem.arms.table
    column = next((name for name in GROUPS if name in table.columns), None)
    groups = np.full(model.problem.n_arms, "") if column is None else np.array(table.text(column))
    spots, labels, left = np.zeros((model.problem.n_arms, 2)), [], 0.0
    names = sorted(set(groups))
    # A square of dots for the whole, or one column of dots a group.
    for name in names:
        members = np.flatnonzero(groups == name)
        wide = int(np.ceil(np.sqrt(len(members) * (2.6 if len(names) == 1 else 2.6 / len(names)))))
        spots[members, 0] = left + np.arange(len(members)) % wide
        spots[members, 1] = -(np.arange(len(members)) // wide)
        labels.append((left + (wide - 1) / 2, 0.0, name if len(names) <= 12 else ""))
        left += wide + 1.0
    return spots, labels


def contacts(model: Any) -> np.ndarray | None:
    """Pairs of arms in contact, (E, 2); none where the model has no graph."""
    graph = getattr(model.problem.dynamics, "graph", None)
    if graph is None or not hasattr(graph, "tail"):
        return None
    return np.stack([np.asarray(graph.tail), np.asarray(graph.head)], axis=1)


def picture(name: str) -> None:
    """Draw one model: its arms by state and group, and who is acted on in one decision."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    model = load(name)
    figure, axes = plt.subplots(figsize=SIZE, dpi=DOTS)
    if len(model.actions) > 2 * model.problem.n_arms:
        _calendar(model, axes)
    else:
        _cohort(model, axes)
    figure.tight_layout()
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURES / f"{name}.png", metadata={"Software": None})
    plt.close(figure)


def _calendar(model: Any, axes: Any) -> None:
    """Arms by slots: when a visit is allowed, and when it is."""
    action = ro.decide(model).action.reshape(model.problem.n_arms, -1)
    axes.imshow(action.T, aspect="auto", cmap="Reds", interpolation="nearest", vmin=0, vmax=1.3)
    axes.set_xlabel("arms")
    axes.set_ylabel("slot")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"visits of the best calendar: {int(action.sum())}", fontsize=8, loc="left")


def _cohort(model: Any, axes: Any) -> None:
    problem = model.problem
    state = problem.start
    if state is None or state.ndim == 2:
        state = problem.sample_start(np.random.default_rng(0))
    decision = ro.decide(model, state, solver="quick")
    columns = model.actions.columns
    acted = np.asarray(columns.arm_action(decision.action)) > 0
    spots, labels = places(model)
    size = float(np.clip(1800 / problem.n_arms, 6, 90))
    edges = contacts(model)
    if edges is not None:
        ends = spots[edges]
        axes.plot(ends[:, :, 0].T, ends[:, :, 1].T, color="#999999", lw=0.3, alpha=0.5, zorder=0)
    shown = axes.scatter(*spots.T, c=state, s=size, cmap="viridis", vmin=0, vmax=max(1, int(np.max(state))), zorder=1)
    axes.scatter(*spots[acted].T, s=size * 1.5, facecolors="none", edgecolors=RING, linewidths=1.6, zorder=2)
    tall = max(1.0, -float(spots[:, 1].min()))
    for across, _, text in labels:
        axes.text(across, 0.1 * tall, text, ha="center", va="bottom", fontsize=7)
    axes.set_ylim(-1.1 * tall, (0.3 if labels[0][2] else 0.12) * tall)
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.025, pad=0.01)
    bar.set_label("state", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.ax.yaxis.get_major_locator().set_params(integer=True)
    axes.set_axis_off()
    axes.margins(x=0.05)
    found = f"{int(acted.sum())} of {problem.n_arms} arms are acted on (ringed); value {decision.value:.5g}"
    axes.set_title(f"{found}, bound {decision.bound:.5g}", fontsize=8, loc="left")


def main() -> None:
    """Write the page, and the pictures that are asked for."""
    if "--pictures" in sys.argv:
        for name in [each for each in sys.argv[1:] if not each.startswith("-")] or model_names():
            picture(name)
    blocks = ["\n".join(section(name)) for name in model_names()]
    PAGE.write_text("\n".join([HEAD, *(f"{block}\n" for block in blocks)]), encoding="utf-8")


if __name__ == "__main__":
    main()
