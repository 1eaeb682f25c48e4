"""Draw the pictures of the concept pages: where a bound comes from, and what a certificate holds.

python scripts/drawings.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.instances.synthetic import ladder_mix
from rmab_opt.planning import sweep
from rmab_opt.problem import Arms, Problem

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
BLUE, RED, GREY = "#3f51b5", "#c1272d", "#777777"


def save(figure: plt.Figure, name: str) -> None:
    """Write a picture without the date of its making."""
    figure.tight_layout()
    figure.savefig(FOLDER / name, dpi=150, metadata={"Software": None})
    plt.close(figure)


def bounds() -> None:
    """The bound as the least of lines: what a price says at every budget, and the curve below them all."""
    cohort = ladder_mix(n_arms=40, n_states=4, n_actions=2, seed=0)
    arms = Arms.from_arrays(40)
    problem = Problem(arms, cohort.dynamics, horizon=12, start=cohort.start)
    budgets = [1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0]
    curve = sweep(problem, ActionSet(arms, {"weekly": Budget(at_most=4)}), budgets)
    values = curve.values
    figure, axes = plt.subplots(figsize=(4.8, 3.0))
    across = np.linspace(0, 20, 50)
    for k in range(1, len(budgets) - 1):
        line = values[k] + curve.marginal[k] * (across - budgets[k])
        axes.plot(across, line, color=GREY, lw=0.7, label="one price, at every budget" if k == 1 else None)
    axes.plot(budgets, values, color=BLUE, lw=2, marker="o", ms=3, label="bound: the least of them")
    axes.fill_between(budgets, 0, values, color=BLUE, alpha=0.1, lw=0)
    axes.text(9.0, 0.8 * values[4], "every policy is in here", color=BLUE, fontsize=9, ha="center")
    axes.set_ylim(0.7 * values[0], 1.06 * values[-1])
    axes.set_xlabel("arms a round")
    axes.set_ylabel("total reward")
    axes.set_xticks([0, 4, 8, 12, 16, 20])
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, "bound.png")


def box(axes: plt.Axes, middle: tuple[float, float], text: str, colour: str) -> None:
    """A word in a box."""
    axes.text(*middle, text, ha="center", va="center", fontsize=8, color=colour,
              bbox={"boxstyle": "round,pad=0.5", "fc": "white", "ec": colour})  # fmt: skip


def certificate() -> None:
    """Who says what about a decision: the solver proposes, three checks that never ask it decide."""
    figure, axes = plt.subplots(figsize=(4.8, 3.2))
    box(axes, (0.5, 0.92), "solver, rule or search: an action", GREY)
    checks = [
        (0.15, "violations():\nallowed?"),
        (0.5, "objective's own\nevaluator: value"),
        (0.85, "prices or tree:\nbound"),
    ]
    for across, text in checks:
        box(axes, (across, 0.52), text, BLUE)
        arrow = {"arrowstyle": "->", "color": GREY}
        axes.annotate("", (across, 0.64), (0.5, 0.84), arrowprops=arrow)
        axes.annotate("", (0.5, 0.2), (across, 0.4), arrowprops=arrow)
    box(axes, (0.5, 0.1), "decision: value \u2264 bound, gap, who proved it", RED)
    axes.text(0.5, 0.745, "not believed", ha="center", fontsize=7, color=GREY,
              bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
    axes.set_xlim(-0.08, 1.08)
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    save(figure, "certificate.png")


if __name__ == "__main__":
    bounds()
    certificate()
