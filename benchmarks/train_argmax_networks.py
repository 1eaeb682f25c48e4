"""Makes the trained networks of `argmax.py`: small Q-networks fitted to simulated returns of a coupled bandit.

J arms of two states (0 lapsed, 1 engaged), each with its own transition probabilities and weight, in J / 5 villages.
The return of (state, action) is the expected reward of the round, plus the discounted value of the next states under a
decoupled policy, plus a term per village that saturates in the number of helped arms: so the value is not a sum over
arms and the best action is not a sorted list. A ReLU network of (action, state) is fitted to it with noise by Adam,
on random feasible and infeasible actions as exploration sees them.

A pooled network, Q = sum of q(s, a; x) + N g(mean of psi(s, a; x)) with an 8-to-32-to-1 head g, is fitted to cohorts of
200 arms whose gain saturates in the share of helped arms of four types; its weights serve cohorts of any size.

Run `python benchmarks/train_argmax_networks.py`; writes `benchmarks/data/argmax_J_H1_H2.safetensors` and
`argmax_pooled.safetensors`, about two minutes. `--sizes 100 --hidden 128_128,256_256 --out DIR` makes others.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from rmab_opt.encoder import Network

DATA = Path(__file__).parent / "data"
SIZES = [20, 40, 100]
HIDDEN = [(32,), (16, 32), (32, 32), (64, 64)]
STEPS, BATCH = 3000, 256


def value(rng: np.random.Generator, n_arms: int):
    """(state, action) -> return, for arrays (..., J)."""
    up = rng.uniform(0.05, 0.4, size=(2, n_arms))  # chance of state 1 next, passive, by state
    up[1] += rng.uniform(0.2, 0.5, size=n_arms)
    lift = rng.uniform(0.05, 0.6, size=(2, n_arms)) * (1 - up)
    weight = rng.uniform(0.5, 1.5, size=n_arms)
    village = rng.integers(0, max(1, n_arms // 5), size=n_arms)
    member = np.eye(village.max() + 1)[village]
    strength = rng.uniform(0.5, 1.5, size=n_arms)

    def returns(state: np.ndarray, action: np.ndarray) -> np.ndarray:
        chance = np.where(state == 1, up[1], up[0]) + action * np.where(state == 1, lift[1], lift[0])
        ahead = (weight * chance * 3.0).sum(axis=-1)
        together = 1.0 - np.exp(-((action * strength * (1.2 - state)) @ member))
        return (weight * state).sum(axis=-1) + ahead + 1.5 * together.sum(axis=-1)

    return returns


def cohort(rng: np.random.Generator, n_arms: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (J, 9) of arms (weight, chances, lifts, one of four types) and states (J,)."""
    up, lift = rng.uniform(0.05, 0.4, size=(n_arms, 2)), rng.uniform(0.05, 0.6, size=(n_arms, 2))
    weight = rng.uniform(0.5, 1.5, size=(n_arms, 1))
    return np.concatenate([weight, up, lift, np.eye(4)[rng.integers(0, 4, n_arms)]], axis=1), rng.integers(0, 2, n_arms)


def pooled_value(x: np.ndarray, state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Return per arm of cohorts (..., J)."""
    at = np.arange(2) == state[..., None]
    chance = (x[..., 1:3] * at).sum(axis=-1) + action * (x[..., 3:5] * at).sum(axis=-1)
    helped = (action[..., None] * x[..., 5:]).mean(axis=-2)
    return (3 * x[..., 0] * chance).mean(axis=-1) + 0.6 * (1 - np.exp(-25 * helped)).sum(axis=-1) / 4


def train_pooled() -> None:
    """Fit and write the pooled network: arm network 10 -> 32 -> 2 x (1 + 8), head 8 -> 32 -> 1."""
    rng = np.random.default_rng(7)
    torch.manual_seed(7)
    arm = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 18))
    head = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    optimiser = torch.optim.Adam([*arm.parameters(), *head.parameters()], lr=2e-3)
    for step in range(STEPS):
        x, state = zip(*(cohort(rng, 200) for _ in range(16)), strict=True)
        x, state = np.stack(x), np.stack(state)
        action = (rng.random(state.shape) < rng.uniform(0.0, 0.4, size=(16, 1))).astype(float)
        target = torch.tensor(pooled_value(x, state, action), dtype=torch.float32)
        table = arm(torch.tensor(np.concatenate([x, state[..., None]], axis=2), dtype=torch.float32))
        table = table.reshape(16, 200, 2, 9)
        picked = torch.where(torch.tensor(action, dtype=torch.bool)[:, :, None], table[:, :, 1], table[:, :, 0])
        mean = picked.mean(dim=1)
        loss = ((mean[:, 0] + head(mean[:, 1:])[:, 0] - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step == STEPS * 2 // 3:
            optimiser.param_groups[0]["lr"] = 4e-4
    tensors = {
        f"{name}.{number}.{kind}": getattr(module[number], kind).detach().double().numpy()
        for name, module in (("arm", arm), ("head", head))
        for number in (0, 2)
        for kind in ("weight", "bias")
    }
    save_file(tensors, str(DATA / "argmax_pooled.safetensors"))
    print(f"      pooled  error {float(loss.detach()) ** 0.5:.4f} (returns spread {float(target.std()):.3f})")


def main() -> None:
    """Train and write all networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of columns")
    parser.add_argument("--hidden", default=",".join("_".join(map(str, widths)) for widths in HIDDEN))
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(exist_ok=True, parents=True)
    if options.out == DATA:
        train_pooled()
    for n_arms in map(int, options.sizes.split(",")):
        for hidden in (tuple(map(int, widths.split("_"))) for widths in options.hidden.split(",")):
            rng = np.random.default_rng([n_arms, *hidden])
            torch.manual_seed(n_arms + sum(hidden))
            returns = value(rng, n_arms)
            widths = [2 * n_arms, *hidden, 1]
            parts: list[torch.nn.Module] = []
            for a, b in pairwise(widths):
                parts += [torch.nn.Linear(a, b), torch.nn.ReLU()]
            net = torch.nn.Sequential(*parts[:-1])
            optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
            for step in range(STEPS):
                state = rng.integers(0, 2, size=(BATCH, n_arms))
                share = rng.uniform(0.02, 0.5, size=(BATCH, 1))
                action = (rng.random((BATCH, n_arms)) < share).astype(float)
                target = returns(state, action) / n_arms + rng.normal(scale=0.02, size=BATCH)
                out = net(torch.tensor(np.concatenate([action, state], axis=1), dtype=torch.float32))[:, 0]
                loss = ((out - torch.tensor(target, dtype=torch.float32)) ** 2).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                if step == STEPS * 2 // 3:
                    optimiser.param_groups[0]["lr"] = 4e-4
            name = "_".join(map(str, [n_arms, *hidden]))
            Network.from_torch(net).to_safetensors(options.out / f"argmax_{name}.safetensors")
            spread = np.std(target)
            print(f"{name:>12}  error {float(loss.detach()) ** 0.5:.4f} (noise 0.02, returns spread {spread:.3f})")


if __name__ == "__main__":
    main()
