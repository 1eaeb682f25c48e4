"""Check an exported proof with numpy alone: no point of these rows is worth more than the file says.

    rmab-opt check MODEL --decision week.json --export-proof proof.json
    python check_proof.py proof.json [week.json]

Shares no code with rmab-opt and reads none of its claims but the one it tests. With the decision's own file it also
says whether rows and objective are those that the decision answers to. Exit code: 0 proven; 4 false or not proven;
5 the kind of proof (a list) needs rmab-opt; 2 no such file. The format is described in docs/certificates.md.
"""

import base64
import hashlib
import json
import sys
import time
import zlib
from math import gcd
from pathlib import Path

import numpy as np

EPS = 2.0**-52
SLACK = 1e-12  # of the mass of the terms: meets every rounding within a network's sums


class Wrong(Exception):
    """What is wrong with the file, or not proven."""


def array(text, kind):
    """A packed array: base64 of zlib of little-endian numbers."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype=kind)


def sha(*parts):
    """The digest of arrays (shape, then bytes) and texts, as decision files hold it."""
    found = hashlib.sha256()
    for part in parts:
        found.update(repr(part.shape).encode() + part.tobytes() if isinstance(part, np.ndarray) else part.encode())
        found.update(b"\0")
    return found.hexdigest()


class Set:
    """row_lower <= A x <= row_upper, lower <= x <= upper, x whole where ``whole``; ``act``: the decision's columns."""

    def __init__(self, rows):
        numbers = {"indptr": "<i8", "indices": "<i8", "whole": "<i8", "act": "<i8"}
        for name, text in rows.items():
            setattr(self, name, array(text, numbers.get(name, "<f8")))
        m, n = len(self.row_lower), len(self.lower)
        ok = len(self.indptr) == m + 1 and self.indptr[0] == 0 and (np.diff(self.indptr) >= 0).all()
        ok &= len(self.indices) == len(self.data) == self.indptr[-1] and len(self.upper) == len(self.whole) == n
        ok &= len(self.row_upper) == m and np.isfinite(self.data).all() and len(set(self.act.tolist())) == len(self.act)
        ok &= all(((at >= 0) & (at < n)).all() for at in (self.indices, self.act))
        if not ok or (self.lower[self.act] < 0).any() or (self.upper[self.act] > 1).any():
            raise Wrong("rows: the arrays do not fit each other")
        self.row = np.repeat(np.arange(m), np.diff(self.indptr))
        self.low, self.high = self.limits()
        ends = self.row_lower, self.row_upper, self.lower, self.upper
        self.digest = sha(self.indptr, self.indices, self.data, *ends, self.whole, self.act)

    def part(self, i):
        """(columns, weights) of a row."""
        at = slice(self.indptr[i], self.indptr[i + 1])
        return self.indices[at], self.data[at]

    def step(self, i):
        """The grid on which a row's sums lie, as (units of 10**-k, k); None where there is none."""
        columns, weight = self.part(i)
        for k in range(7 if len(columns) and self.whole[columns].all() else 0):
            scaled = weight * 10.0**k
            if (np.abs(scaled - np.rint(scaled)) <= 4 * EPS * np.abs(scaled)).all() and np.abs(scaled).max() < 2**52:
                return gcd(*np.abs(np.rint(scaled)).astype(int).tolist()), k
        return None

    def limits(self):
        """Limits brought onto each row's grid: sums of whole columns cannot lie between its points."""
        low, high = self.row_lower.copy(), self.row_upper.copy()
        for i in range(len(low)):
            units, k = self.step(i) or (0, 0)
            size = units / 10.0**k
            high[i] = np.floor(high[i] / size + 1e-9) * size if units and np.isfinite(high[i]) else high[i]
            low[i] = np.ceil(low[i] / size - 1e-9) * size if units and np.isfinite(low[i]) else low[i]
        mass = np.bincount(self.row, np.abs(self.data), len(low))
        return low - 8 * EPS * mass, high + 8 * EPS * mass

    def ends(self):
        """Ends of the columns, those that are missing taken from rows whose other columns have them."""
        low, high = self.lower.copy(), self.upper.copy()
        sides = [(i, sign) for i in range(len(self.low)) for sign in (1.0, -1.0)]
        for i, sign in sides * (0 if np.isfinite(low).all() and np.isfinite(high).all() else 6):
            (columns, weight), limit = self.part(i), self.high[i] if sign > 0 else -self.low[i]
            w = sign * weight
            least = np.where(w > 0, w * low[columns], w * high[columns])
            known = np.isfinite(least)
            if not np.isfinite(limit) or (~known).sum() > 1:
                continue
            for j in np.flatnonzero(~known).tolist() or range(len(columns)):
                rest = least[known].sum() - (least[j] if known[j] else 0.0)
                end = (limit - rest) / w[j] + np.sign(w[j]) * 1e-9 * (abs(limit) + abs(rest) + 1.0)
                side = high if w[j] > 0 else low
                side[columns[j]] = end if np.isinf(side[columns[j]]) else side[columns[j]]
        return low, high

    def signed(self, prices):
        """Prices whose sign fits a limit that exists; others are 0."""
        return np.clip(prices, np.where(np.isneginf(self.low), 0, -np.inf), np.where(np.isposinf(self.high), 0, np.inf))

    def allows(self, action):
        """Whether the rows over the decision alone hold; None when there are helper columns to be found."""
        if len(self.act) < len(self.lower):
            return None
        x = np.bincount(self.act, action, len(self.lower))
        used = np.bincount(self.row, self.data * x[self.indices], len(self.low))
        room = 1e-6 * np.maximum(1.0, np.abs(used))
        return bool(((used >= self.low - room) & (used <= self.high + room)).all())


def by_prices(rows, gain, constant, prices, tables=()):
    """(weak duality's limit, rounded outward, the size of its terms); rows ``tables`` are maximised exactly."""
    if len(prices) != len(rows.low):
        raise Wrong("prices: not one a row")
    y, n = rows.signed(prices), len(gain)
    y[list(tables)] = 0.0
    inside = np.array(sorted({j for i in tables for j in rows.part(i)[0].tolist()}), dtype=int)
    paid = np.bincount(rows.indices, rows.data * y[rows.row], n)
    mass = np.bincount(rows.indices, np.abs(rows.data * y[rows.row]), n)
    d = gain - paid
    slack = (4 + np.bincount(rows.indices, minlength=n)) * EPS * (np.abs(gain) + mass)
    low, high = rows.ends()
    packed = knapsack(rows, tables, inside, (d + slack)[inside])
    with np.errstate(invalid="ignore"):
        at = [np.where(side == 0.0, 0.0, side * end) for end in (low, high) for side in (d + slack, d - slack)]
        row = np.where(y > 0, y * rows.high, np.where(y < 0, y * rows.low, 0.0))
    worth = np.max(at, axis=0)
    worth[inside] = 0.0
    terms = np.concatenate([[constant, packed], worth, row])
    size = float(np.abs(terms).sum())
    return float(terms.sum() + 2 * (len(terms) + 2) * EPS * size), size


def knapsack(rows, tables, inside, gain):
    """The largest sum of gains of columns ``inside`` whose whole weights fit, by a table over the rows' room."""
    loads, rooms = np.zeros((len(gain), len(tables)), dtype=int), []
    for q, i in enumerate(tables):
        (columns, weight), (size, k) = rows.part(i), rows.step(i) or (0, 0)
        if not size or (rows.lower[columns] < 0).any() or (rows.upper[columns] > 1).any() or (weight <= 0).any():
            raise Wrong("table: the row's weights are not whole on a grid")
        loads[np.searchsorted(inside, columns), q] = np.rint(weight * 10.0**k / size)
        rooms.append(max(0, int(np.floor(rows.high[i] * 10.0**k / size + 1e-6))))
    best = np.zeros([room + 1 for room in rooms])
    for value, load in zip(gain.tolist(), loads.tolist(), strict=True):
        if value > 0 and all(q <= room for q, room in zip(load, rooms, strict=True)):
            at = tuple(slice(q, None) for q in load)
            before = tuple(slice(0, room + 1 - q) for q, room in zip(load, rooms, strict=True))
            best[at] = np.maximum(best[at], best[before] + value)
    return float(best.flat[-1]) * (1 + 2 * (len(gain) + 2) * EPS)


class Net:
    """value = skip . a + constant + readout . h;  h = slope z + gain max(0, z),  z = weight h_before + bias."""

    def __init__(self, told):
        layers = told["layers"]
        self.weight = [array(part["weight"], "<f8").reshape(part["shape"]) for part in layers]
        self.bias, self.slope, self.gain = ([array(p[k], "<f8") for p in layers] for k in ("bias", "slope", "gain"))
        self.readout, self.skip = array(told["readout"], "<f8"), array(told["skip"], "<f8")
        self.constant = float(told["constant"])
        width, self.mass = np.ones(len(self.skip)), []
        for w, b, s, g in zip(self.weight, self.bias, self.slope, self.gain, strict=True):
            self.mass.append(np.abs(w) @ width + np.abs(b))
            width = (np.abs(s) + np.abs(g)) * self.mass[-1]
        self.total = float(np.abs(self.skip).sum()) + abs(self.constant)
        self.total += float(np.abs(self.readout) @ width) if layers else 0.0
        parts = [*self.weight, *self.bias, *self.slope, *self.gain, self.readout, self.skip]
        self.digest = sha("network", *parts, repr(self.constant))

    def value(self, action):
        h = action.astype(float)
        for w, b, s, g in zip(self.weight, self.bias, self.slope, self.gain, strict=True):
            z = w @ h + b
            h = s * z + g * np.maximum(z, 0.0)
        return float(self.skip @ action + self.constant + (self.readout @ h if self.weight else 0.0))


class Tree:
    """Bounds of a network at nodes: columns fixed, neurons fixed to a side."""

    def __init__(self, net, rows, prices):
        self.net, self.rows, self.n = net, rows, len(net.skip)
        place = np.full(len(rows.lower), -1)
        place[rows.act] = np.arange(self.n)
        free, self.groups, taken = np.ones(self.n, dtype=bool), [], []
        for i in np.argsort(-np.diff(rows.indptr), kind="stable").tolist():
            at, weight = place[rows.part(i)[0]], rows.part(i)[1]
            if len(at) and (at >= 0).all() and (weight > 0).all() and np.isfinite(rows.high[i]) and free[at].all():
                free[at] = False
                self.groups.append((at, weight, float(rows.high[i]), max(0.0, float(rows.low[i]))))
                taken.append(i)
        self.shift, self.earned = np.zeros(self.n), 0.0
        if prices is not None:
            y = np.where(np.isin(np.arange(len(prices)), taken), 0.0, prices)
            worth, mass = by_prices(rows, np.zeros(len(place)), 0.0, y)
            paid = np.bincount(rows.indices, rows.data * rows.signed(y)[rows.row], len(place))[rows.act]
            if np.isfinite(worth):
                at_columns = np.maximum(-paid * rows.lower[rows.act], -paid * rows.upper[rows.act]).sum()
                self.shift, self.earned = paid, worth - at_columns + 1e-13 * (mass + np.abs(paid).sum())

    def most(self, cost, low, up):
        """(upper limits of cost (k, n) @ a, price a column (k, n)) at a node; None when no action is left."""
        total, price, weight = cost @ low, np.zeros(cost.shape), np.zeros(self.n)
        for at, w, high, least in self.groups:
            room, need = high - float(w @ low[at]), least - float(w @ low[at])
            open_ = up[at] & ~low[at]
            if room < -1e-9 * (1 + abs(high)) or (w * open_).sum() < need - 1e-9 * (1 + least):
                return None
            ratio = np.where(open_, cost[:, at] / w, -np.inf)
            order = np.argsort(-ratio, axis=1)
            filled = np.cumsum(np.where(open_, w, 0.0)[order], axis=1)
            ranked = np.take_along_axis(ratio, order, axis=1)
            # The price at which the room is used up, or (below nothing) the least that must be taken.
            high_at, low_at = (np.minimum(n.sum(axis=1), len(at) - 1) for n in (filled <= room, filled < need))
            p = np.maximum(np.where(filled[:, -1] > room, ranked[np.arange(len(cost)), high_at], 0.0), 0.0)
            p = np.where((p == 0) & (need > 0), np.minimum(ranked[np.arange(len(cost)), low_at], 0.0), p)
            p = np.where(np.isfinite(p), p, 0.0)
            price[:, at], weight[at] = p[:, None], w
            total = total + np.where(p >= 0, p * max(room, 0.0), p * max(need, 0.0))
        return total + np.where(up & ~low, np.maximum(cost - price * weight, 0.0), 0.0).sum(axis=1), price * weight

    def back(self, c, fixed, ends, below, held):
        """Coefficients (k, h) of a layer's outputs, brought back to the columns: (cost, constant, size, steps)."""
        size, steps = np.abs(fixed), []
        for k in range(len(ends) - 1, -1, -1):
            lo, hi = ends[k]
            bends = (lo < 0) & (hi > 0)
            slope = np.where(bends, hi / np.where(bends, hi - lo, 1.0), (lo >= 0) * 1.0)
            lift = np.where(bends, -lo * slope, 0.0)
            under = np.where(bends, ((hi > -lo) * 1.0) if below is None else below[k], slope)
            bent = c * self.net.gain[k]
            line, height = np.where(bent > 0, slope, under), np.where(bent > 0, lift, 0.0)
            steps.append((bent[0], line[0], height[0]))
            fixed = fixed + (bent * height).sum(axis=1)
            c = c * self.net.slope[k] + bent * line + (0.0 if held is None else held[k])
            size = size + np.abs(bent * height).sum(axis=1) + np.abs(c) @ self.net.mass[k]
            fixed, c = fixed + c @ self.net.bias[k], c @ self.net.weight[k]
        return c, fixed, size, steps[::-1]

    def pre(self, low, up, signs):
        """Ends of every layer's neurons at a node; None when no action is left."""
        ends = []
        for k, (w, b) in enumerate(zip(self.net.weight, self.net.bias, strict=True)):
            c, fixed, size, _ = self.back(np.concatenate([w, -w]), np.concatenate([b, -b]), ends, None, None)
            found = self.most(c, low, up)
            if found is None:
                return None
            top = found[0] + fixed + SLACK * (size + np.abs(c).sum(axis=1) + np.tile(self.net.mass[k], 2))
            lo, hi = -top[len(b) :], top[: len(b)]
            lo, hi = np.where(signs[k] > 0, np.maximum(lo, 0.0), lo), np.where(signs[k] < 0, np.minimum(hi, 0.0), hi)
            if (lo > hi + 1e-9 * self.net.mass[k]).any():
                return None
            ends.append((np.minimum(lo, hi), np.maximum(lo, hi)))
        return ends

    def bound(self, low, up, sign, target):
        """(limit, cost, price) of a node, the best of a few slopes and multipliers; None when no action is left."""
        signs = np.split(sign, np.cumsum([len(b) for b in self.net.bias])[:-1]) if self.net.bias else []
        ends = self.pre(low, up, signs)
        if ends is None:
            return None
        below, held = [(hi > -lo) * 1.0 for lo, hi in ends], [np.zeros(len(lo)) for lo, _ in ends]
        first, second = ([np.zeros(len(lo)) for lo, _ in ends + ends] for _ in range(2))
        best, tries = None, 12 if np.any(sign) else 3
        for turn in range(tries):
            ready, constant = [h * s for h, s in zip(held, signs, strict=True)], np.array([self.net.constant])
            c, fixed, size, steps = self.back(self.net.readout[None], constant, ends, below, ready)
            cost = (c if ends else np.zeros((1, self.n))) + self.net.skip - self.shift
            found = self.most(cost, low, up)
            if found is None:
                return None
            slack = SLACK * (size[0] + np.abs(cost).sum() + self.net.total + abs(self.earned))
            value = float(found[0][0] + fixed[0] + self.earned + slack)
            if best is None or value < best[0]:
                best = value, cost[0], found[1][0]
            if best[0] <= target or not ends:
                break
            x = (low | (up & (cost[0] - found[1][0] > 0))).astype(float)
            for k, (bent, line, height) in enumerate(steps):
                z = self.net.weight[k] @ x + self.net.bias[k]
                x = self.net.slope[k] * z + self.net.gain[k] * (line * z + height)
                bends = (ends[k][0] < 0) & (ends[k][1] > 0)
                moves = np.where(bends, np.minimum(bent, 0.0) * z, 0.0), signs[k] * z
                fade = 0.3 * (1 - turn / tries), 0.3 * (1 - turn / tries) * (np.abs(bent).mean() + 1e-12)
                for side, (kept, move) in enumerate(zip((below, held), moves, strict=True)):
                    j = side * len(ends) + k
                    first[j], second[j] = 0.8 * first[j] + 0.2 * move, 0.95 * second[j] + 0.05 * move**2
                    step = fade[side] * first[j] / (np.sqrt(second[j]) + 1e-300)
                    kept[k] = np.clip(kept[k] - step, 0.0, np.inf if side else 1.0)
        return best

    def close(self, tree, target):
        """Follow the tree, branch on where a leaf stays open; raise what is not proven."""
        kids = 2 * (np.cumsum(tree >= 0) - 1) + 1
        began, leaves = time.monotonic(), 0
        stack = [(np.array(self.rows.lower[self.rows.act] > 0.5), self.rows.upper[self.rows.act] > 0.5,
                  np.zeros(sum(len(b) for b in self.net.bias), dtype=np.int8), 0)]  # fmt: skip
        while stack:
            low, up, sign, at = stack.pop()
            if time.monotonic() - began > 600.0:
                raise Wrong(f"tree: {len(stack)} nodes still open at the limit")
            for _ in range(3):
                found = self.bound(low, up, sign, target)
                if found is None or found[0] <= target:
                    break
                d = found[1] - found[2]
                sure = up & ~low & (found[0] - np.abs(d) * (1 - 16 * EPS) <= target)
                if not sure.any():
                    break
                low, up = low | (sure & (d > 0)), up & ~(sure & (d <= 0))
            open_, own = up & ~low, self.net.value(low) + SLACK * self.net.total
            if found is None or found[0] <= target or not open_.any():
                leaves += 1
                if found is not None and found[0] > target and own > target and self.rows.allows(low) is not False:
                    raise Wrong(f"an action is worth {own:.9g}, above the target {target:.9g}: {np.flatnonzero(low)}")
                continue
            while at >= 0 and 0 <= tree[at] < self.n and not open_[tree[at]]:
                at = int(kids[at]) + int(low[tree[at]])
            j = int(tree[at]) if at >= 0 else -1
            if j < 0:
                at, j = -1, int(np.where(open_, np.abs(found[1]), -1.0).argmax())
            for side in (0, 1):
                more, less, turned = low.copy(), up.copy(), sign.copy()
                if j >= self.n:
                    turned[j - self.n] = 2 * side - 1
                else:
                    (more if side else less)[j] = bool(side)
                stack.append((more, less, turned, -1 if at < 0 else int(kids[at]) + side))
        return leaves


def check(told, decision=None):
    """(what the file proves, in a sentence, exit code); raises :class:`Wrong`."""
    if told.get("format") != 1 or told.get("what") != "proof":
        raise Wrong("format: not an exported proof of format 1")
    if decision is not None and any(decision["digests"][k] != said for k, said in told["digests"].items()):
        raise Wrong("digests: the decision answers to other rows or another objective")
    rows, aim, kind = Set(told["rows"]), told["objective"], told["kind"]
    if told["rows_of"] == "set" and rows.digest != told["digests"]["rows"]:
        raise Wrong("digests.rows: not those of the rows")
    action = np.isin(told["ids"], told["action"])
    if len(action) != len(rows.act) or action.sum() != len(told["action"]) or rows.allows(action) is False:
        raise Wrong("action: not of these columns, or it breaks a row")
    net = Net(aim) if aim["kind"] == "network" else None
    if net is not None:
        own, value, mass = net.digest, net.value(action), net.total
    else:
        gain, constant = array(aim["gain"], "<f8"), float(aim["constant"])
        own = sha("linear", gain, repr(constant))
        mass, value = float(np.abs(gain).sum()) + abs(constant), told["value"]
        if aim["kind"] == "linear":  # else helper columns carry the value
            value, gain = float(gain @ action + constant), np.bincount(rows.act, gain, len(rows.lower))
    if aim["kind"] != "program" and own != told["digests"]["objective"]:
        raise Wrong("digests.objective: not those of the objective")
    if abs(value - told["value"]) > 1e-9 * mass:
        raise Wrong(f"value is {value:.9g}, the file says {told['value']:.9g}")
    bound = float(told["bound"])
    if kind in ("prices", "table"):
        tables = [row for row in (told["table"], told.get("counted")) if row is not None]
        found, size = by_prices(rows, gain, constant, array(told["prices"], "<f8"), tables)
        if not found <= bound + 1e-9 * size:
            raise Wrong(f"bound is {bound:.9g}, the prices prove {found:.9g}")
    elif kind == "tree":
        tree, target = array(told["tree"], "<i2").astype(int), float(told["target"])
        if net is None or not target <= bound + 1e-9 * mass:
            raise Wrong(f"bound is {bound:.9g}, the tree's target {target:.9g}")
        if len(tree) != 2 * (tree >= 0).sum() + 1 or tree.max() >= len(action) + sum(map(len, net.bias)):
            raise Wrong("tree: is no tree")
        prices = None if told["prices"] is None else array(told["prices"], "<f8")
        kind = f"a tree ({Tree(net, rows, prices).close(tree, target)} leaves here)"
    else:
        return f"a proof of kind {kind!r} is replayed by rmab-opt check", 5
    said = f"proven by {kind}: no point of these rows is worth more than {bound:.9g}; the action has {value:.9g}"
    return said + ("" if decision is None else "; rows and objective are the decision's"), 0


def main(arguments):
    """Exit code; prints one sentence."""
    try:
        sentence, code = check(*(json.loads(Path(name).read_text(encoding="utf-8")) for name in arguments[:2]))
    except Wrong as error:
        sentence, code = f"NOT proven: {error}", 4
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, zlib.error) as error:
        sentence, code = f"cannot be read: {error!r}", 2
    print(sentence)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
