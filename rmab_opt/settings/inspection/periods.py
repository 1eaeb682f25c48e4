"""Visits over several periods, exactly: the calendar's walks, with windows that come again every period."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy import sparse

from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.settings.inspection.beliefs import BeliefChains, EncodedArms, Windows, earned
from rmab_opt.settings.inspection.choose import Chosen, best_walks
from rmab_opt.settings.inspection.kinds import Rows
from rmab_opt.settings.inspection.plan import shortage
from rmab_opt.settings.inspection.walks import Grid, Task
from rmab_opt.solver import Profile

__all__ = ["Horizon", "PeriodsPlan", "plan_periods"]


@dataclass(frozen=True, eq=False)
class PeriodsPlan:
    """Visits over a horizon with their certificate.

    ``visits`` bool (N, H); ``value`` the total reward they earn, ``bound`` what no policy can earn, recomputed from the
    slots' prices by one longest walk an arm; ``price`` (H,) what one more visit in a slot is worth. ``fractional``
    counts arms that the linear program split.
    """

    visits: np.ndarray
    value: float
    bound: float
    price: np.ndarray
    fractional: int
    variables: int
    seconds: float

    @property
    def gap(self) -> float:
        """bound - value, never negative."""
        return max(0.0, self.bound - self.value)


@dataclass(frozen=True, eq=False)
class Horizon:
    """The next slots of arms with windows, over one period or several.

    Parameters
    ----------
    slots
        Slots H from now on.
    slot
        Slot of the period that is now.
    age
        Slots since each arm's last inspection, (N,).
    used
        Inspections in the window that is open now, (N,).
    every_window
        Whether no window may be skipped.
    """

    arms: EncodedArms
    slots: int
    slot: int
    age: np.ndarray
    used: np.ndarray
    every_window: bool = False

    def windows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(window of each cell (N, H), -1 outside; its arm, least and most visits still, each (W,))."""
        windows, n_arms = self.arms.windows, self.arms.n_arms
        n_slots, when = windows.n_slots, np.arange(self.slots) + self.slot
        label = windows.label[:, when % n_slots]
        number = np.where(label >= 0, when // n_slots * windows.n_windows + label, -1)
        wide = int(number.max(initial=0)) + 1
        keys, place = np.unique(np.arange(n_arms)[:, None] * wide + number, return_inverse=True)
        place = np.where(number >= 0, place.reshape(number.shape), -1)
        real = np.unique(place[place >= 0])
        back = np.full(len(keys), -1)
        back[real] = np.arange(len(real))
        owner, instance = np.divmod(keys[real], wide)
        # Used up is what was used in the window that is open now, or comes first.
        first = np.where((label >= 0).any(axis=1), number[np.arange(n_arms), (label >= 0).argmax(axis=1)], -1)
        spent = np.where(instance == first[owner], self.used[owner], 0)
        most = np.maximum(0, windows.allowance[owner, instance % windows.n_windows] - spent)
        least = np.where(spent > 0, 0, 1) if self.every_window else np.zeros(len(owner), dtype=np.int64)
        return np.where(place >= 0, back[place], -1), owner, least, most

    def task(self, per_slot: Rows, *, table: np.ndarray | None = None, beyond: int = 0) -> Task:
        """The walks over these slots.

        Parameters
        ----------
        per_slot
            Rows over the arms' visits of one slot, (R, N): they hold in every slot; limits are (R,) or (R, H).
        table
            (N, H): weights in place of gains.
        beyond
            Slots after the last whose beliefs count too.
        """
        window, owner, least, most = self.windows()
        arm, slot = np.nonzero(window >= 0)
        n, n_rows = len(arm), per_slot.matrix.shape[0]
        own = sparse.csr_array((np.ones(n), (window[arm, slot], np.arange(n))), shape=(len(owner), n))
        picked = sparse.coo_array(sparse.csc_array(per_slot.matrix)[:, arm])
        common = sparse.csr_array(
            (picked.data, (picked.coords[0] * self.slots + slot[picked.coords[1]], picked.coords[1])),
            shape=(n_rows * self.slots, n),
        )

        def limits(given: np.ndarray) -> np.ndarray:
            wide = np.asarray(given, dtype=float)
            wide = wide[:, None] if wide.ndim == 1 else wide
            return np.broadcast_to(wide, (n_rows, self.slots)).ravel()

        rows = Rows(
            sparse.csr_array(sparse.vstack([own, common])),
            np.concatenate([least.astype(float), limits(per_slot.lower)]),
            np.concatenate([most.astype(float), limits(per_slot.upper)]),
            [],
        )
        total = np.bincount(owner, weights=most, minlength=self.arms.n_arms)
        weights = None if table is None else table[arm, slot]
        grid = Grid(arm.astype(np.int64), slot.astype(np.int64), self.arms.n_arms, self.slots)
        return Task(grid, rows, np.ones(n, dtype=bool), total, self.arms.chains, self.age, beyond=beyond, table=weights)

    def visits(self, chosen: Chosen, task: Task) -> np.ndarray:
        """The chosen walks as a table, bool (N, H)."""
        table = np.zeros((self.arms.n_arms, self.slots), dtype=bool)
        table[task.grid.arm[chosen.cells], task.grid.slot[chosen.cells]] = True
        return table

    def shortage(self, room: np.ndarray) -> InfeasibleError | None:
        """Why no plan visits every window, by its interval; None where that is not seen. ``room`` (H,)."""
        window, _, least, _ = self.windows()
        label = self.arms.windows.label[:, (np.arange(self.slots) + self.slot) % self.arms.n_slots]
        period = (np.arange(self.slots) + self.slot) // self.arms.n_slots
        for number in range(self.arms.windows.n_windows):
            for part in np.unique(period).tolist():
                cells = (label == number) & (period == part)
                due = least[np.maximum(np.where(cells, window, -1).max(axis=1), 0)] * cells.any(axis=1)
                found = shortage(cells, due.astype(np.int64), room)
                if found is not None:
                    return found.error()
        return None


def plan_periods(
    chains: BeliefChains,
    windows: Windows,
    horizon: int,
    capacity: int | np.ndarray,
    *,
    slot: int = 0,
    age: np.ndarray | None = None,
    every_window: bool = False,
    profile: str | Path | Profile = "default",
) -> PeriodsPlan:
    """Best visits over ``horizon`` slots and the certified bound on every policy.

    Parameters
    ----------
    horizon
        Slots H, one period or several.
    capacity
        Visits a slot can hold: one number, or (H,).
    slot
        Slot of the period in which the horizon begins.
    age
        Slots since each arm's last inspection, (N,); 0 by default.
    every_window
        Whether no window may be skipped (with an allowance of one: exactly one visit a window).

    Raises
    ------
    InfeasibleError
        When no window may be skipped and the slots cannot hold all visits; names the interval.
    """
    begun, n_arms = perf_counter(), len(chains)
    if windows.n_arms != n_arms or horizon < 1:
        raise ModelError(f"{n_arms} chains, {windows.n_arms} arms with windows, horizon {horizon}", "make them agree.")
    room = np.broadcast_to(np.asarray(capacity, dtype=np.float64), horizon)
    none = np.zeros(n_arms, dtype=np.int64)
    age = none if age is None else np.minimum(np.asarray(age, dtype=np.int64), chains.beliefs.shape[1])
    ahead = Horizon(EncodedArms(chains, windows), horizon, slot, age, none, every_window)
    everybody = sparse.csr_array(np.ones((1, n_arms)))
    task = ahead.task(Rows(everybody, np.array([-np.inf]), room[None, :], []))
    found = best_walks(task, profile)
    if found is None:
        raise ahead.shortage(room) or InfeasibleError(
            "no plan: the slots cannot hold every window's visit", "give more visits a slot."
        )
    visits = ahead.visits(found, task)
    value, base = earned(ahead.arms, age, visits), earned(ahead.arms, age, np.zeros_like(visits))
    price = np.zeros(horizon) if found.duals is None else np.maximum(0.0, found.duals[-horizon:])
    bound = max(base + found.bound, value)
    return PeriodsPlan(visits, value, bound, price, found.fractional, found.arcs, perf_counter() - begun)
