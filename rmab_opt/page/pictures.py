"""Vector pictures by matplotlib: bars by group or worker, the bound of cases, value and bound as a solve moves."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rmab_opt.errors import ModelError

__all__ = ["bars", "moving"]

INK, BLUE, ORANGE = "#1f2933", "#1d5f99", "#b35900"


def _figure(height: float):  # type: ignore[no-untyped-def]
    try:
        from matplotlib import rcParams
        from matplotlib.figure import Figure
    except ImportError:
        raise ModelError("pictures need matplotlib", "pip install 'rmab-opt[app]'.") from None
    # Text stays text, so that it can be read aloud and found; the salt makes ids the same each time.
    rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rmab-opt", "font.family": "sans-serif"})
    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK)
    return figure, axes


def _svg(figure) -> bytes:  # type: ignore[no-untyped-def]
    out = io.BytesIO()
    # No date: the same figures give the same picture.
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": "rmab-opt"}, transparent=True)
    return out.getvalue()


def bars(rows: Sequence[tuple[str, float]], unit: str = "", *, zero: bool = True) -> bytes:
    """Rows (label, amount) as bars, SVG; with ``zero`` the scale begins at 0, else near the least."""
    figure, axes = _figure(max(1.4, 0.34 * len(rows) + 0.7))
    labels, amounts = [label.replace("$", r"\$") for label, _ in rows], [amount for _, amount in rows]
    drawn = axes.barh(range(len(rows)), amounts, color=BLUE, height=0.62)
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.bar_label(drawn, [f"{amount:.4g}{unit}" for amount in amounts], padding=4, color=INK)
    if amounts and not zero and min(amounts) > 0:
        room = max(max(amounts) - min(amounts), 1e-9 * max(amounts))
        axes.set_xlim(max(0.0, min(amounts) - room), max(amounts) + 0.3 * room)
    else:
        axes.margins(x=0.18)
    return _svg(figure)


def moving(track: Sequence[tuple[float, float, float]], names: tuple[str, str, str]) -> bytes:
    """Value and bound against seconds, SVG; ``names`` of value, bound and seconds."""
    figure, axes = _figure(2.4)
    seconds = [second for second, _, _ in track]
    for which, colour, name in ((1, BLUE, names[0]), (2, ORANGE, names[1])):
        axes.step(seconds, [one[which] for one in track], where="post", color=colour, label=name)
    axes.set_xlabel(names[2], color=INK)
    axes.legend(frameon=False)
    return _svg(figure)
