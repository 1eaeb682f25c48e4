"""Pictures of runs and tables, written as PNG (extra ``report``)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.errors import CapabilityError
from rmab_opt.learning.evaluation import Evaluation
from rmab_opt.planning import Curve
from rmab_opt.records import write_atomically

__all__ = ["curve_plot", "learning_plot", "policy_plot", "time_plot"]


def _axes(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise CapabilityError("plots", object, ("install rmab-opt[report]", "read the CSV files beside it")) from None
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Any, path: str | Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())


def policy_plot(table: Evaluation, path: str | Path) -> None:
    """Reward by policy with 95 % intervals, best on top; the bound as a line when there is one."""
    rows = sorted((row for row in table.rows if row["reward"] is not None), key=lambda row: row["reward"])
    figure, axes = _axes(7.0, 1.2 + 0.45 * len(rows))
    middle = np.array([row["reward"] for row in rows])
    ends = [(row["reward"], row["low"], row["high"]) for row in rows]
    spread = np.array([[0.0, 0.0] if low is None else [mid - low, high - mid] for mid, low, high in ends]).T
    axes.barh(range(len(rows)), middle, xerr=spread, color="#4878a8", ecolor="#222222", capsize=3, height=0.6)
    axes.set_yticks(range(len(rows)), [row["policy"] for row in rows])
    bound = table.header.get("bound")
    if bound is not None:
        axes.axvline(bound, color="#b03030", linestyle="--", label=f"upper bound {bound:.5g}")
        axes.legend(loc="lower right", fontsize=8)
    for height, row in enumerate(rows):
        # Inside the bar, where neither the interval nor the bound's line crosses it.
        at = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": 8, "color": "white"}
        axes.annotate(f"{row['reward']:.4g}", (min(0.0, row["reward"]), height), **at)
    axes.margins(x=0.1)
    axes.set_xlabel(f"{table.header['reward']} reward of an episode ({table.header['horizon']} rounds), 95 % interval")
    axes.set_title(str(table.header["model"]), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def time_plot(seconds: Mapping[str, np.ndarray], path: str | Path, title: str = "") -> None:
    """How long decisions took, by policy: quartiles as a box, whiskers from 1 % to 99 %, log axis."""
    names = sorted(seconds, key=lambda name: float(np.median(seconds[name])), reverse=True)
    figure, axes = _axes(7.0, 1.2 + 0.4 * len(names))
    axes.boxplot(
        [1e3 * np.maximum(seconds[name], 1e-6) for name in names],
        orientation="horizontal",
        whis=(1, 99),
        showfliers=False,
        widths=0.6,
        patch_artist=True,
        boxprops={"facecolor": "#9db8d2"},
        medianprops={"color": "#b03030", "linewidth": 1.6},
    )
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds a decision (box: quartiles; whiskers: 1 % to 99 %)")
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def curve_plot(curve: Curve, path: str | Path, title: str = "") -> None:
    """The bound over a resource's limit, with the limits where its slope changes."""
    figure, axes = _axes(7.0, 3.8)
    axes.plot(curve.limits, curve.values, color="#1f4e79", marker="o", markersize=3)
    if len(curve.breakpoints):
        axes.plot(
            curve.breakpoints[:, 0], curve.breakpoints[:, 1], "D", color="#b03030", markersize=5, label="breakpoint"
        )
        axes.legend(fontsize=8)
    axes.set_xlabel(f"limit of {curve.name} in one round")
    axes.set_ylabel("upper bound of any policy")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def learning_plot(log: Sequence[dict[str, Any]], path: str | Path, title: str = "") -> None:
    """Reward of each training episode with its running mean; trials of the greedy policy as dots."""
    figure, axes = _axes(7.0, 3.5)
    episode = np.array([row["episode"] for row in log])
    reward = np.array([row["reward"] for row in log])
    axes.plot(episode, reward, color="#9db8d2", linewidth=0.8, label="episode, with exploration")
    window = max(1, len(reward) // 10)
    mean = np.convolve(reward, np.ones(window) / window, mode="valid")
    axes.plot(episode[window - 1 :], mean, color="#1f4e79", linewidth=1.8, label=f"mean of {window}")
    trials = [(row["episode"], row["validation"]) for row in log if "validation" in row]
    if trials:
        axes.plot(*zip(*trials, strict=True), "D", color="#b03030", markersize=6, label="greedy, validation episodes")
        if "anchor" in log[trials[-1][0] - 1]:
            axes.axhline(
                log[trials[-1][0] - 1]["anchor"], color="#666666", linestyle=":", label="its anchor, the same draws"
            )
    axes.set_xlabel("training episode")
    axes.set_ylabel("expected reward")
    axes.set_title(title, fontsize=10)
    axes.margins(y=0.15)
    axes.legend(fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)
