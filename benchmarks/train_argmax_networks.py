"""Makes the trained networks of `argmax.py`: small Q-networks fitted to simulated returns of a coupled bandit.

J arms of two states (0 lapsed, 1 engaged), each with its own transition probabilities and weight, in J / 5 villages.
The return of (state, action) is the expected reward of the round, plus the discounted value of the next states under a
decoupled policy, plus a term per village that saturates in the number of helped arms: so the value is not a sum over
arms and the best action is not a sorted list. A ReLU network of (action, state) is fitted to it with noise by Adam,
on random feasible and infeasible actions as exploration sees them.

Run `python benchmarks/train_argmax_networks.py`; writes `benchmarks/data/argmax_J_H1_H2.safetensors`, about a minute.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

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


def main() -> None:
    """Train and write all networks."""
    torch.set_num_threads(1)
    DATA.mkdir(exist_ok=True)
    for n_arms in SIZES:
        for hidden in HIDDEN:
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
            Network.from_torch(net).to_safetensors(DATA / f"argmax_{name}.safetensors")
            spread = np.std(target)
            print(f"{name:>12}  error {float(loss) ** 0.5:.4f} (noise 0.02, returns spread {spread:.3f})")


if __name__ == "__main__":
    main()
