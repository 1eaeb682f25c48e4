"""Pages to read and print: what the log says, and a week's list with the proof."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from rmab_opt.programme.estimate import STATES, VALID, Estimate
from rmab_opt.report import Picture, bars_svg, intervals_svg, static_page

__all__ = ["estimate_page", "estimate_parts"]

BINS = 8
"""Groups of equal size that the calibration compares."""

UPLIFT = "Chance to be engaged next week with a call, less without; mean of the group, 95 %."
PLACES = "Calls of this list in each place."

Part = tuple[str, Any]


def estimate_parts(made: Estimate) -> list[Part]:
    """What a log says, as parts of a page: uplift, calibration, who was called, warnings."""
    rows = [
        {name: round(cell, 3) if isinstance(cell, float) else cell for name, cell in row.items()}
        for row in made.uplifts()
    ]
    pictured = [(f"{row['group']} · {row['state']}", row["uplift"], row["low"], row["high"]) for row in rows]
    called = made.moves.visits[:, 1].sum(axis=1)
    often = Counter(min(int(count), 8) for count in called)
    exposure = [(f"{k}{' and more' if k == 8 else ''} calls", float(often.get(k, 0))) for k in range(9)]
    warnings: list[Part] = [("", f"! {line}") for line in made.warnings()]
    return [
        ("What a call adds", UPLIFT),
        ("", intervals_svg(pictured, meaning=UPLIFT)),
        ("", rows),
        *warnings,
        *zip(("Who was called", ""), made.exposure(), strict=True),
        ("", bars_svg(exposure, " families", "How many families were called how often over the log's weeks.")),
        ("Calibration", "Passive moves of families sorted by their estimated chance: seen against estimated."),
        ("", calibration(made)),
        ("What it rests on", VALID),
    ]


def calibration(made: Estimate) -> list[dict[str, Any]]:
    """Seen against estimated share engaged next week, passive moves, families in groups by the estimate."""
    rows = []
    for s, state in enumerate(STATES):
        total, up = made.moves.total[:, 0, s], made.moves.counts[:, 0, s, 1]
        chance = made.transition[:, 0, s, 1]
        order = np.argsort(chance, kind="stable")
        for part in np.array_split(order[total[order] > 0], BINS):
            if len(part):
                moves = total[part].sum()
                rows.append(
                    {
                        "state": state,
                        "families": len(part),
                        "moves": int(moves),
                        "estimated": round(float((chance[part] * total[part]).sum() / moves), 3),
                        "seen": round(float(up[part].sum() / moves), 3),
                    }
                )
    return rows


def estimate_page(made: Estimate) -> str:
    """The estimate as one page."""
    return static_page("What the call log says", estimate_parts(made))


def list_pictures(villages: list[str]) -> Picture:
    """How a list is spread over places."""
    return bars_svg([(name, float(count)) for name, count in sorted(Counter(villages).items())], " calls", PLACES)
