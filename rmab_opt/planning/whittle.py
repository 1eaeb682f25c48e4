"""Whittle indices of all arms at once: the charge for acting at which acting and resting are worth the same.

With charge c on the active action, values V, and

    rest-loss y = V - Q(., active) >= 0,     act-loss z = V - Q(., passive) >= 0,     y * z = 0,

the Bellman equation of an arm is one linear complementarity problem with a parameter,

    z = G y + q - c 1,     G = A0 A1^-1,  q = G r1 - r0,  A_a = I - discount P_a.

At c = -inf every state acts (y = 0). As c rises, states stop acting one after another; each stop is one step
of Gaussian elimination on G with that state as the pivot, and the state's index is the ratio q / d of its
eliminated right-hand sides (d starts as the vector of ones). An arm is indexable when the states that stopped
never want to act again, y >= 0 at every later charge: a triangular solve with the factors decides it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.overdue import checkpoint

__all__ = ["Indices", "LevelIndices", "passive_set_grows", "whittle_by_bisection", "whittle_indices", "whittle_levels"]

VERDICT_TOLERANCE = 1e-9
"""Loss, relative to an arm's values, that a verdict forgives: rounding of solves with condition 1/(1 - discount)."""

PANEL = 16
"""Pivots between two looks at all states."""

CANDIDATES = 24
"""States among which the next pivots are sought; beyond them one check after the panel, exact at every breakpoint."""

BLOCK_BYTES = 1 << 20
"""Working set of one batch of arms: larger ones spend their time on cache misses, smaller ones in the interpreter."""


LEAST_BATCH = 16
"""Arms in one batch at least, whatever their size: fewer would wait for the interpreter."""


@dataclass(frozen=True)
class Indices:
    """Whittle indices with the verdict on each arm.

    Parameters
    ----------
    values
        Index of every state in reward units, shape (N, S); for a finite horizon (T, N, S), round first.
        Padded states have index 0.
    indexable
        Whether the set of resting states only grows as the charge rises, shape (N,).
    fallback
        Arms whose values come from :func:`whittle_by_bisection`, shape (N,): the index of a state of a
        non-indexable arm is one charge at which the preference turns from acting to resting. It exists for
        every arm and equals the Whittle index where that is defined.
    """

    values: np.ndarray
    indexable: np.ndarray
    fallback: np.ndarray


@dataclass(frozen=True)
class LevelIndices:
    """Indices of ordered action levels.

    Parameters
    ----------
    values
        Fair charge per unit of resource for going from level a to a + 1 in a state, shape (N, S, A - 1).
    indexable
        Whether the chosen level only falls as the charge rises, shape (N,).
    """

    values: np.ndarray
    indexable: np.ndarray


def whittle_indices(
    transition: np.ndarray,
    reward: np.ndarray,
    *,
    discount: float = 0.95,
    criterion: str = "discounted",
    horizon: int | None = None,
    sizes: np.ndarray | None = None,
) -> Indices:
    """Whittle index of every state of every arm, in lockstep over arms.

    Parameters
    ----------
    transition
        P[n, a, s, s'], shape (N, 2, S, S); rows sum to one; action 0 is passive.
    reward
        r[n, s, a], shape (N, S, 2).
    discount
        Per round; in (0, 1) for ``"discounted"``, in (0, 1] for ``"finite"``, unused for ``"average"``.
    criterion
        ``"discounted"``, ``"average"`` (every policy of an arm must have one recurrent class) or ``"finite"``.
    horizon
        Rounds T; needed by ``"finite"``. Then one index per round: the constant charge over the remaining
        rounds at which both actions tie now.
    sizes
        Number of real states of each arm, shape (N,); the others are padding. By default trailing states that
        nothing enters and that only loop are taken as padding. Arms are grouped by size, so padding costs nothing.

    Returns
    -------
    Indices
        An arm judged non-indexable gets the values of the documented fallback, see :class:`Indices`.

    Raises
    ------
    ModelError
        When shapes disagree, there are not two actions, or discount or horizon are out of range.

    References
    ----------
    Whittle (1988); elimination as in Gast, Gaujal, Khun (2023) and Niño-Mora (2020), here on the complementarity form.
    """
    transition, reward = _check(transition, reward, n_actions=2)
    if criterion == "finite":
        return _finite(transition, reward, discount, horizon)
    if criterion == "average":
        discount = 1.0
    elif criterion != "discounted":
        raise ModelError(f"criterion is {criterion!r}", "use 'discounted', 'average' or 'finite'.")
    elif not 0.0 < discount < 1.0:
        raise ModelError(f"discount is {discount!r}", "give a number in (0, 1), or criterion='average'.")
    n_arms, _, n_states, _ = transition.shape
    sizes = _padding(transition, reward) if sizes is None else np.asarray(sizes)
    values = np.zeros((n_arms, n_states))
    indexable = np.ones(n_arms, dtype=bool)
    fallback = np.zeros(n_arms, dtype=bool)
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        every = members.size == n_arms
        batch = int(np.clip(BLOCK_BYTES // (8 * size * size), LEAST_BATCH, 4096))
        for begin in range(0, members.size, batch):
            checkpoint()
            part: np.ndarray | slice = slice(begin, begin + batch) if every else members[begin : begin + batch]
            found, good = _eliminate(transition[part, :, :size, :size], reward[part, :size], discount)
            values[part, :size] = found
            indexable[part] = good
    if not indexable.all():
        _settle(transition, reward, discount, sizes, values, indexable, fallback)
    return Indices(values, indexable, fallback)


def _settle(
    transition: np.ndarray,
    reward: np.ndarray,
    discount: float,
    sizes: np.ndarray,
    values: np.ndarray,
    indexable: np.ndarray,
    fallback: np.ndarray,
) -> None:
    """Second opinion on the arms that elimination rejects: bisection for values, a scan of charges for the verdict."""
    doubtful = np.flatnonzero(~indexable)
    for size in np.unique(sizes[doubtful]):
        members = doubtful[sizes[doubtful] == size]
        kernel, pay = transition[members, :, :size, :size], reward[members, :size]
        found = whittle_by_bisection(kernel, pay, discount=discount)
        values[members, :size] = found
        fallback[members] = True
        indexable[members] = passive_set_grows(kernel, pay, found, discount=discount)


# ---------------------------------------------------------------------------------------------------------------------
# Elimination


def _eliminate(transition: np.ndarray, reward: np.ndarray, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices (B, n) and verdict (B,) of arms of one size."""
    size = transition.shape[2]
    passive, active = _systems(transition, discount)
    if size < 32:
        ratio = np.linalg.solve(active.transpose(0, 2, 1), passive.transpose(0, 2, 1)).transpose(0, 2, 1)
    elif discount < 1.0:
        ratio = _divide(passive, active)
    else:
        ratio = np.ascontiguousarray(_solve_each(active, passive))
    q = np.matmul(ratio, reward[:, :, 1, None])[..., 0] - reward[:, :, 0]
    with np.errstate(all="ignore"):
        if size <= 2 * CANDIDATES:
            values, good = _pivot_dense(ratio, q)
        else:
            values, good, missed = _pivot_panels(ratio, q)
            if missed.any():
                values[missed], good[missed] = _pivot_dense(ratio[missed], q[missed])
    return values, good


def _systems(transition: np.ndarray, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """I - discount P_a for both actions; for discount 1 the first column becomes the average reward's."""
    size = transition.shape[2]
    systems = transition * -discount
    diagonal = np.arange(size)
    systems[:, :, diagonal, diagonal] += 1.0
    if discount == 1.0:
        # Values are relative to state 0, so its column is free to carry the gain; then the vector of ones is
        # again mapped to itself by G, which is all that the elimination needs.
        systems[:, :, :, 0] = 1.0
    return systems[:, 0], systems[:, 1]


def _solve_each(active: np.ndarray, passive: np.ndarray) -> np.ndarray:
    """A0 A1^-1 with pivoting; a singular arm (several recurrent classes) gives not-a-number, hence no verdict."""
    left, right = active.transpose(0, 2, 1), passive.transpose(0, 2, 1)
    try:
        return np.linalg.solve(left, right).transpose(0, 2, 1)
    except np.linalg.LinAlgError:
        result = np.full(active.shape, np.nan)
        for arm in range(active.shape[0]):
            try:
                result[arm] = np.linalg.solve(left[arm], right[arm]).T
            except np.linalg.LinAlgError:
                continue
        return result


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverses of stacked row-diagonally dominant matrices by block elimination, nearly all matrix products."""
    size = matrix.shape[-1]
    if size <= 14:
        return np.linalg.inv(matrix)
    half = size // 2
    upper_left = _inverse(matrix[:, :half, :half])
    right = upper_left @ matrix[:, :half, half:]
    lower = matrix[:, half:, :half]
    rest = _inverse(matrix[:, half:, half:] - lower @ right)
    left = lower @ upper_left
    result = np.empty(matrix.shape)
    result[:, half:, half:] = rest
    corner = right @ rest
    np.negative(corner, out=result[:, :half, half:])
    np.add(upper_left, corner @ left, out=result[:, :half, :half])
    np.negative(rest @ left, out=result[:, half:, :half])
    return result


def _divide(numerator: np.ndarray, matrix: np.ndarray, chunk: int = 8) -> np.ndarray:
    """numerator @ matrix^-1 for stacked row-diagonally dominant matrices; twice as fast as LAPACK's batched solve."""
    result = np.empty(numerator.shape)
    half = matrix.shape[-1] // 2
    for begin in range(0, matrix.shape[0], chunk):
        part = slice(begin, begin + chunk)
        top, left = numerator[part], matrix[part]
        upper_left = _inverse(left[:, :half, :half])
        right = upper_left @ left[:, :half, half:]
        lower = left[:, half:, :half]
        rest = _inverse(left[:, half:, half:] - lower @ right)
        second = (top[:, :, half:] - top[:, :, :half] @ right) @ rest
        result[part, :, half:] = second
        np.matmul(top[:, :, :half] - second @ lower, upper_left, out=result[part, :, :half])
    return result


def _pivot_dense(ratio: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Elimination in lockstep, one pivot a step, all rows updated: Gauss-Jordan, so the losses come for free.

    Arm last: the updates then run over contiguous memory whatever the number of states is.
    """
    batch, size = q.shape
    table = np.empty((size, size + 2, batch))
    table[:, :size] = ratio.transpose(1, 2, 0)
    table[:, size] = q.T
    table[:, size + 1] = 1.0
    arm = np.arange(batch)
    values = np.empty((batch, size))
    good = np.ones(batch, dtype=bool)
    open_ = np.ones((size, batch), dtype=bool)
    scale = np.abs(q).max(axis=1) + np.abs(ratio).max(axis=(1, 2)) * 1e-3
    tolerance = VERDICT_TOLERANCE * scale
    charge = np.full(batch, -np.inf)
    for step in range(size):
        checkpoint()
        z, slope = table[:, size], table[:, size + 1]
        candidate = np.where(open_ & (slope > 1e-12), z / slope, np.inf)
        state = candidate.argmin(axis=0)
        found = candidate[state, arm]
        good &= np.isfinite(found)
        charge = np.maximum(charge, found)
        if step:
            # Losses of the states at rest, y = (charge d - q) on their eliminated rows, at the end of the piece.
            loss = np.where(open_, 0.0, charge * slope - z).min(axis=0)
            good &= loss >= -tolerance
        values[arm, state] = charge
        row = table[state, :, arm].T.copy()
        pivot = row[state, arm]
        column = table[:, state, arm]
        row /= pivot
        column[state, arm] = 0.0
        table -= column[:, None, :] * row
        table[state, :, arm] = row.T
        open_[state, arm] = False
    # Beyond the last charge every state rests and losses grow with slope 1 / (1 - discount) or are final.
    good &= (table[:, size + 1] >= -VERDICT_TOLERANCE).all(axis=0)
    return values, good


def _pivot_panels(ratio: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same elimination for large arms in panels, so that nearly all work is matrix products.

    The next pivots are sought among the ``CANDIDATES`` smallest ratios. After each panel one product gives the
    loss of every other state at every charge of the panel; an arm where one is negative is returned as missed.
    Whenever half of the states have stopped, the rest is gathered into a smaller problem of the same form.
    """
    batch, size = q.shape
    arm = np.arange(batch)[:, None]
    upper = np.zeros((batch, size, size))
    order = np.empty((batch, size), dtype=np.int64)
    charges = np.empty((batch, size))
    pivot_q, pivot_d = np.empty((batch, size)), np.empty((batch, size))
    blocks: list[tuple[int, int, np.ndarray]] = []
    missed = np.zeros(batch, dtype=bool)
    tolerance = VERDICT_TOLERANCE * (np.abs(q).max(axis=1) + np.abs(ratio).max(axis=(1, 2)) * 1e-3)
    charge = np.full(batch, -np.inf)
    alive = np.broadcast_to(np.arange(size), (batch, size))
    table, q, d = ratio, q.copy(), np.ones((batch, size))
    begin = 0
    while begin < size:
        width = size - begin
        table_t = np.ascontiguousarray(table.transpose(0, 2, 1))
        target = width if width <= CANDIDATES else max(PANEL, width // 2 // PANEL * PANEL)
        # Both factors are stored state by pivot, so that rows of chosen states are gathered contiguously.
        left, right = np.zeros((batch, width, target)), np.zeros((batch, width, target))
        done = 0
        while done < target:
            checkpoint()
            remaining = width - done
            pool = min(CANDIDATES, remaining)
            steps = remaining if remaining == pool else min(PANEL, target - done)
            # Finished states carry q = inf; a state whose slope is not positive cannot be next.
            score = np.where(d > 1e-12, q / d, 1e300)
            score[~np.isfinite(q)] = np.inf
            chosen = np.argpartition(score, pool - 1, axis=1)[:, :pool]
            block = np.take_along_axis(table[arm, chosen], chosen[:, None, :], axis=2)
            if done:
                block -= left[arm, chosen, :done] @ right[arm, chosen, :done].transpose(0, 2, 1)
            local, found, l_local, u_local, row_q, row_d = _pivot_block(
                block, q[arm, chosen], d[arm, chosen], charge, steps
            )
            missed |= ~np.isfinite(found).all(axis=1)
            charge = found[:, -1]
            states = chosen[arm, local]
            columns, rows = table_t[arm, states], table[arm, states]
            if done:
                columns -= right[arm, states, :done] @ left[:, :, :done].transpose(0, 2, 1)
                rows -= left[arm, states, :done] @ right[:, :, :done].transpose(0, 2, 1)
            u_inverse, l_inverse = np.linalg.inv(u_local), np.linalg.inv(l_local)
            part = slice(begin + done, begin + done + steps)
            order[:, part], charges[:, part] = alive[arm, states], found
            pivot_q[:, part], pivot_d[:, part] = row_q, row_d
            blocks.append((part.start, part.stop, u_inverse))
            if remaining > pool:
                # Losses z of the states that were not candidates, at every charge of the panel.
                rest = u_inverse @ np.triu(row_d[:, :, None] * found[:, None, :] - row_q[:, :, None])
                loss = rest.transpose(0, 2, 1) @ columns
                loss += found[:, :, None] * d[:, None, :]
                loss -= q[:, None, :]
                worst = loss.max(axis=1)
                np.put_along_axis(worst, chosen, -np.inf, axis=1)
                missed |= ~(worst.max(axis=1) <= tolerance)
            new = columns.transpose(0, 2, 1) @ u_inverse
            left[:, :, done : done + steps] = new
            right[:, :, done : done + steps] = rows.transpose(0, 2, 1) @ l_inverse.transpose(0, 2, 1)
            q -= (new @ row_q[:, :, None])[..., 0]
            d -= (new @ row_d[:, :, None])[..., 0]
            np.put_along_axis(q, states, np.inf, axis=1)
            done += steps
        upper[arm, alive, begin : begin + target] = right
        begin += target
        if begin < size:
            kept = np.argpartition(~np.isfinite(q), size - begin - 1, axis=1)[:, : size - begin]
            smaller = np.take_along_axis(table[arm, kept], kept[:, None, :], axis=2)
            smaller -= left[arm, kept] @ right[arm, kept].transpose(0, 2, 1)
            table, q, d, alive = smaller, q[arm, kept], d[arm, kept], alive[arm, kept]
    values = np.empty((batch, size))
    np.put_along_axis(values, order, charges, axis=1)
    good = _losses_stay(upper[arm, order], charges, pivot_q, pivot_d, blocks, tolerance)
    return values, good & ~missed, missed


def _pivot_block(
    block: np.ndarray, q: np.ndarray, d: np.ndarray, charge: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``steps`` pivots inside (B, c, c) blocks; returns positions, charges, both local factors, pivots' q and d."""
    batch, width = q.shape
    table = np.empty((width, width + 2, batch))
    table[:, :width] = block.transpose(1, 2, 0)
    table[:, width], table[:, width + 1] = q.T, d.T
    arm = np.arange(batch)
    local = np.empty((batch, steps), dtype=np.int64)
    found = np.empty((batch, steps))
    rows = np.empty((steps, width + 2, batch))
    columns = np.zeros((steps, width, batch))
    closed = np.zeros((width, batch))
    for step in range(steps):
        checkpoint()
        candidate = table[:, width] / table[:, width + 1]
        candidate[table[:, width + 1] <= 1e-12] = np.inf
        candidate += closed
        state = candidate.argmin(axis=0)
        charge = np.maximum(charge, candidate[state, arm])
        local[:, step], found[:, step] = state, charge
        row = table[state, :, arm].T
        rows[step] = row
        column = table[:, state, arm]
        column /= row[state, arm]
        columns[step] = column
        closed[state, arm] = np.inf
        if step + 1 < steps:
            table -= column[:, None, :] * rows[step]
    picked = local.T[None, :, :]
    u_local = np.triu(
        np.take_along_axis(rows[:, :width], np.broadcast_to(picked, (steps, steps, batch)), axis=1).transpose(2, 0, 1)
    )
    l_local = np.tril(
        np.take_along_axis(columns, np.broadcast_to(picked, (steps, steps, batch)), axis=1).transpose(2, 1, 0)
    )
    return local, found, l_local, u_local, rows[:, width].T, rows[:, width + 1].T


def _losses_stay(
    upper: np.ndarray,
    charges: np.ndarray,
    pivot_q: np.ndarray,
    pivot_d: np.ndarray,
    blocks: list[tuple[int, int, np.ndarray]],
    tolerance: np.ndarray,
) -> np.ndarray:
    """Whether resting states keep resting: y = U^-1 (charge d - q) >= 0 at every later charge, by blocks.

    ``upper[b, i, j]`` is U[j, i] in pivot order. Column k of the right-hand side belongs to the charge at which
    state k + 1 stops; the last column to an infinite charge, where only the slope counts.
    """
    batch, size = charges.shape
    losses = np.zeros((batch, size, size))
    good = np.ones(batch, dtype=bool)
    following = charges[:, 1:]
    for begin, end, inverse in reversed(blocks):
        load = losses[:, begin:end, begin:]
        np.multiply(pivot_d[:, begin:end, None], following[:, None, begin:], out=load[:, :, :-1])
        load[:, :, :-1] -= pivot_q[:, begin:end, None]
        load[:, :, -1] = pivot_d[:, begin:end]
        for row in range(1, end - begin):
            load[:, row, :row] = 0.0
        if end < size:
            load[:, :, end - begin :] -= upper[:, end:, begin:end].transpose(0, 2, 1) @ losses[:, end:, end:]
        load[:] = inverse @ load
        good &= load.min(axis=(1, 2)) >= -tolerance
    return good


# ---------------------------------------------------------------------------------------------------------------------
# Second opinions: policy iteration at given charges


def _advantage(transition: np.ndarray, reward: np.ndarray, charges: np.ndarray, discount: float) -> np.ndarray:
    """Worth of acting over resting, shape (N, L, S), at charges of shape (N, L), by policy iteration."""
    n_arms, n_charges = charges.shape
    size = transition.shape[2]
    passive, active = _systems(transition, discount)
    result = np.empty((n_arms, n_charges, size))
    chunk = max(1, BLOCK_BYTES // (8 * n_charges * size * size))
    for begin in range(0, n_arms, chunk):
        checkpoint()
        part = slice(begin, begin + chunk)
        rest, act = passive[part, None], active[part, None]
        rest_reward = np.broadcast_to(reward[part, None, :, 0], (rest.shape[0], n_charges, size))
        act_reward = reward[part, None, :, 1] - charges[part, :, None]
        policy = act_reward > rest_reward
        scale = 1e-11 * (1.0 + np.abs(reward[part]).max())
        for _ in range(50 + 2 * size):
            system = np.where(policy[..., None], act, rest)
            values = np.linalg.solve(system, np.where(policy, act_reward, rest_reward)[..., None])
            # Q(., a) = V + r_a - A_a V, so a difference needs the two residuals only.
            act_gain = act_reward - np.matmul(act, values)[..., 0]
            rest_gain = rest_reward - np.matmul(rest, values)[..., 0]
            gain = act_gain - rest_gain
            better = np.where(np.abs(gain) > scale * (1.0 + np.abs(values[..., 0])), gain > 0, policy)
            if (better == policy).all():
                break
            policy = better
        result[part] = gain
    return result


def whittle_by_bisection(
    transition: np.ndarray, reward: np.ndarray, *, discount: float = 0.95, halvings: int = 60
) -> np.ndarray:
    """A charge at which acting turns into resting, for every state, by halving a bracket around it.

    Slow and plain: it needs no indexability and is the fallback for arms without an index, and a second method
    for the others. ``discount`` 1 means average reward.

    Returns
    -------
    numpy.ndarray
        Charges, shape (N, S).
    """
    transition, reward = _check(transition, reward, n_actions=2)
    span = np.ptp(reward, axis=(1, 2))[:, None] + 1e-6
    state = np.arange(transition.shape[2])
    low, high = np.repeat(-span, state.size, axis=1), np.repeat(span, state.size, axis=1)
    for _ in range(200):
        short_low = _advantage(transition, reward, low, discount)[:, state, state] <= 0
        short_high = _advantage(transition, reward, high, discount)[:, state, state] >= 0
        if not (short_low.any() or short_high.any()):
            break
        low, high = np.where(short_low, 2 * low, low), np.where(short_high, 2 * high, high)
        if np.abs(low).max() > 1e12 or np.abs(high).max() > 1e12:
            break
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        gain = _advantage(transition, reward, middle, discount)[:, state, state]
        low, high = np.where(gain > 0, middle, low), np.where(gain > 0, high, middle)
    return 0.5 * (low + high)


def passive_set_grows(
    transition: np.ndarray, reward: np.ndarray, values: np.ndarray, *, discount: float = 0.95, grid: int = 32
) -> np.ndarray:
    """Independent check of indexability: optimal actions at many charges against the given indices.

    Charges between all neighbouring indices of an arm, beyond both ends, and on an even grid; a state must act
    where the charge is below its index and rest where it is above. Differences within rounding are undecided.

    Returns
    -------
    numpy.ndarray
        True where no contradiction was found, shape (N,).
    """
    transition, reward = _check(transition, reward, n_actions=2)
    ordered = np.sort(values, axis=1)
    margin = 0.1 + 0.1 * np.abs(ordered)
    charges = np.concatenate(
        [
            ordered[:, :1] - margin[:, :1],
            0.5 * (ordered[:, 1:] + ordered[:, :-1]),
            ordered[:, -1:] + margin[:, -1:],
            np.linspace(ordered[:, 0] - margin[:, 0], ordered[:, -1] + margin[:, -1], grid, axis=1),
        ],
        axis=1,
    )
    gain = _advantage(transition, reward, charges, discount)
    distance = values[:, None, :] - charges[:, :, None]
    tolerance = 1e-9 * (1.0 + np.abs(gain).max(axis=(1, 2), keepdims=True))
    wrong = (np.abs(gain) > tolerance) & (np.abs(distance) > tolerance) & ((gain > 0) != (distance > 0))
    return ~wrong.any(axis=(1, 2))


# ---------------------------------------------------------------------------------------------------------------------
# Finite horizon and ordered levels


def _finite(transition: np.ndarray, reward: np.ndarray, discount: float, horizon: int | None) -> Indices:
    """One index a round and state by bisection over the charge, all (arm, round, state) in lockstep."""
    if horizon is None or horizon < 1:
        raise ModelError(f"horizon is {horizon!r}", "give the number of rounds, at least 1, with criterion='finite'.")
    if not 0.0 < discount <= 1.0:
        raise ModelError(f"discount is {discount!r}", "give a number in (0, 1].")
    n_arms, _, size, _ = transition.shape
    values = np.empty((horizon, n_arms, size))
    indexable = np.ones(n_arms, dtype=bool)
    chunk = max(1, BLOCK_BYTES // (64 * horizon * size * size))
    for begin in range(0, n_arms, chunk):
        checkpoint()
        part = slice(begin, begin + chunk)
        kernel = np.ascontiguousarray(transition[part].transpose(0, 3, 1, 2)).reshape(-1, size, 2 * size)
        values[:, part], indexable[part] = _finite_chunk(kernel, reward[part], discount, horizon)
    return Indices(values, indexable, ~indexable)


def _finite_gain(
    kernel: np.ndarray, reward: np.ndarray, charges: np.ndarray, discount: float, rounds: int
) -> np.ndarray:
    """Worth of acting with k + 1 rounds to go, shape (rounds, N, L, S), charges (N, L)."""
    n_arms, n_charges = charges.shape
    size = reward.shape[1]
    value = np.zeros((n_arms, n_charges, size))
    gains = np.empty((rounds, n_arms, n_charges, size))
    for left in range(rounds):
        checkpoint()
        ahead = np.matmul(value, kernel) * discount
        rest = ahead[..., :size] + reward[:, None, :, 0]
        gains[left] = ahead[..., size:] + reward[:, None, :, 1] - charges[:, :, None] - rest
        value = rest + np.maximum(gains[left], 0.0)
    return gains


def _finite_chunk(
    kernel: np.ndarray, reward: np.ndarray, discount: float, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    n_arms, size = reward.shape[:2]
    span = np.ptp(reward, axis=(1, 2))[:, None] + 1e-9
    state = np.arange(size)
    values = np.empty((horizon, n_arms, size))
    good = np.ones(n_arms, dtype=bool)
    for left in range(horizon):
        checkpoint()
        # Acting now cannot gain more than the span of every round left.
        high = np.repeat(span * (left + 1.0), size, axis=1)
        low = -high
        above = _finite_gain(kernel, reward, low, discount, left + 1)[left][:, state, state]
        below = _finite_gain(kernel, reward, high, discount, left + 1)[left][:, state, state]
        side = np.zeros((n_arms, size))
        for step in range(100):
            # Illinois secant steps on a piecewise linear function, a halving now and then against slow ends.
            middle = low + (high - low) * above / (above - below)
            if step % 4 == 3:
                middle = 0.5 * (low + high)
            middle = np.clip(middle, low, high)
            gain = _finite_gain(kernel, reward, middle, discount, left + 1)[left][:, state, state]
            exact = np.abs(gain) <= 1e-13 * span
            up = gain > 0
            below = np.where(up & (side > 0), 0.5 * below, np.where(up, below, gain))
            above = np.where(~up & (side < 0), 0.5 * above, np.where(up, gain, above))
            low, high = np.where(up | exact, middle, low), np.where(up & ~exact, high, middle)
            above, below = np.maximum(above, 1e-300), np.minimum(below, -1e-300)
            side = np.where(up, 1.0, -1.0)
            if (high - low <= 1e-12 * (1.0 + np.abs(low))).all():
                break
        found = 0.5 * (low + high)
        values[horizon - 1 - left] = found
        # Scan: with this many rounds left, a state must act below its index and rest above it.
        charges = np.linspace(-1.0, 1.0, 2 * size + 9)[None, :] * (
            np.abs(found).max(axis=1, keepdims=True) * 1.05 + 1e-3
        )
        gain = _finite_gain(kernel, reward, charges, discount, left + 1)[left]
        distance = found[:, None, :] - charges[:, :, None]
        tolerance = 1e-9 * (1.0 + np.abs(gain).max(axis=(1, 2), keepdims=True))
        wrong = (np.abs(gain) > tolerance) & (np.abs(distance) > tolerance) & ((gain > 0) != (distance > 0))
        good &= ~wrong.any(axis=(1, 2))
    return values, good


def whittle_levels(
    transition: np.ndarray, reward: np.ndarray, *, discount: float = 0.95, cost: np.ndarray | None = None
) -> LevelIndices:
    """Indices of ordered action levels under one resource: the fair charge for each further level of a state.

    The optimal policy is followed exactly from charge minus infinity to plus infinity: between two charges values are
    affine in the charge, and the next charge is where some state prefers another level.

    Parameters
    ----------
    transition, reward
        As in :func:`whittle_indices`, with A >= 2 actions ordered by what they use.
    discount
        In (0, 1).
    cost
        Units of the resource each level uses, shape (A,) or (N, A), rising from 0; by default 0, 1, 2, ...

    Returns
    -------
    LevelIndices
        For an arm that is not fully indexable (a level rises with the charge) the indices are the last charges at which
        each level was left, and the verdict is False.

    Raises
    ------
    ModelError
        When costs do not rise strictly from 0 or the discount is not in (0, 1).

    References
    ----------
    Glazebrook, Hodge, Kirkbride (2011); Hodge, Glazebrook (2015).
    """
    transition, reward = _check(transition, reward)
    n_arms, n_actions, size, _ = transition.shape
    if not 0.0 < discount < 1.0:
        raise ModelError(f"discount is {discount!r}", "give a number in (0, 1).")
    use = np.broadcast_to(
        np.arange(n_actions, dtype=float) if cost is None else np.asarray(cost, float), (n_arms, n_actions)
    )
    if (use[:, 0] != 0).any() or (np.diff(use, axis=1) <= 0).any():
        raise ModelError("costs of the levels do not rise strictly from 0", "order the actions by what they use.")
    values = np.zeros((n_arms, size, n_actions - 1))
    indexable = np.ones(n_arms, dtype=bool)
    chunk = max(1, BLOCK_BYTES // (8 * n_actions * size * size))
    for begin in range(0, n_arms, chunk):
        checkpoint()
        part = slice(begin, begin + chunk)
        values[part], indexable[part] = _follow_levels(transition[part], reward[part], use[part], discount)
    return LevelIndices(values, indexable)


def _follow_levels(
    transition: np.ndarray, reward: np.ndarray, use: np.ndarray, discount: float
) -> tuple[np.ndarray, np.ndarray]:
    n_arms, n_actions, size, _ = transition.shape
    arm, state = np.arange(n_arms), np.arange(size)
    stacked = np.ascontiguousarray(transition.transpose(0, 2, 1, 3)).reshape(n_arms, size * n_actions, size)
    values = np.full((n_arms, size, n_actions - 1), -np.inf)
    good = np.ones(n_arms, dtype=bool)
    policy = np.full((n_arms, size), n_actions - 1)
    charge = np.full(n_arms, -np.inf)
    done = np.zeros(n_arms, dtype=bool)
    for _ in range(4 * size * (n_actions - 1) + 1):
        system = np.eye(size) - discount * transition[arm[:, None], policy, state]
        pay = np.stack([reward[arm[:, None], state, policy], use[arm[:, None], policy]], axis=-1)
        base = np.linalg.solve(system, pay)
        ahead = (discount * (stacked @ base)).reshape(n_arms, size, n_actions, 2)
        # Loss of deviating to a: (V - Q_a) is worth[.., 0] - charge * worth[.., 1].
        loss = base[:, :, None, 0] - reward - ahead[..., 0]
        saving = base[:, :, None, 1] - use[:, None, :] - ahead[..., 1]
        current = state[None, :], policy
        loss[arm[:, None], *current] = np.inf
        with np.errstate(all="ignore"):
            tie = np.where(saving > 1e-12, loss / saving, np.inf)
        tie[arm[:, None], *current] = np.inf
        flat = tie.reshape(n_arms, -1).argmin(axis=1)
        found = tie.reshape(n_arms, -1)[arm, flat]
        done |= ~np.isfinite(found) | ~policy.any(axis=1)
        if done.all():
            break
        charge = np.where(done, charge, np.maximum(charge, found))
        where, to = flat // n_actions, flat % n_actions
        old = policy[arm, where]
        good &= done | (to < old)
        moving = ~done
        for level in range(n_actions - 1):
            passed = moving & (to <= level) & (level < old)
            values[arm[passed], where[passed], level] = charge[passed]
        policy[arm[moving], where[moving]] = to[moving]
    good &= ~policy.any(axis=1)
    return np.where(np.isfinite(values), values, 0.0), good


# ---------------------------------------------------------------------------------------------------------------------
# Input


def _check(transition: np.ndarray, reward: np.ndarray, n_actions: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    transition = np.asarray(transition, dtype=np.float64)
    reward = np.asarray(reward, dtype=np.float64)
    if transition.ndim != 4 or transition.shape[2] != transition.shape[3]:
        raise ModelError(f"transition has shape {transition.shape}", "give P[arm, action, state, next state].")
    n_arms, actions, n_states, _ = transition.shape
    if reward.shape != (n_arms, n_states, actions):
        raise ModelError(f"reward has shape {reward.shape}", f"give shape {(n_arms, n_states, actions)}.")
    if n_actions is not None and actions != n_actions:
        raise ModelError(f"{actions} actions where {n_actions} are needed", "use whittle_levels for ordered levels.")
    return transition, reward


def _padding(transition: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """Number of states of each arm before its trailing padding: states that only loop and that nothing enters."""
    n_arms, _, n_states, _ = transition.shape
    sizes = np.full(n_arms, n_states)
    alive = np.ones(n_arms, dtype=bool)
    for state in range(n_states - 1, 0, -1):
        loops = alive & (transition[:, 0, state, state] == 1.0) & (transition[:, 1, state, state] == 1.0)
        if not loops.any():
            break
        loops[loops] = ~transition[loops, :, :state, state].any(axis=(1, 2))
        loops &= reward[:, state, 0] == reward[:, state, 1]
        sizes[loops] = state
        alive = loops
    return sizes
