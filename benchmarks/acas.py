"""Few continuous inputs, many neurons: the largest score over the box of ACAS Xu's property 3, with a proven bound.

    python benchmarks/acas.py [FILE ...] [--boxes 40000] [--shapes 3] [--out FILE.csv]

FILE are the user's own networks, `.onnx` or `.nnet` (ACASXU_run2a_1_1_batch_2000 and its like; they are not shipped).
Without files, networks of the same shape (5 inputs, six layers of 50 neurons, 5 scores) are trained here on seeded
data. Printed are, for the first score (clear of conflict), the value found, what 200,000 samples find, the proven
bound, the gap relative to the value and to the spread of the samples, boxes, and CPU seconds.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from rmab_opt.encoder import Network, read_model
from rmab_opt.report import table_csv
from rmab_opt.search import BoxOptions, maximise_box

LOWER = np.array([-0.303531156, -0.009549297, 0.493380324, 0.3, 0.3])
"""Property 3 in the networks' own units: an intruder straight ahead, coming closer."""
UPPER = np.array([-0.298552812, 0.009549297, 0.5, 0.5, 0.5])

SAMPLES = 200_000


def read_nnet(path: Path, output: int = 0) -> Network:
    """A `.nnet` text file: header lines after `//`, sizes, ends, means and ranges, then weights and biases a layer.

    Inputs stay in the network's own units; scores are as the last layer gives them.
    """
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("//")]
    numbers = [[float(cell) for cell in line.strip().rstrip(",").split(",")] for line in lines]
    sizes = [int(size) for size in numbers[1]]
    at, layers = 7, []
    for k, (before, after) in enumerate(pairwise(sizes)):
        weight = np.array(numbers[at : at + after]).reshape(after, before)
        bias = np.array(numbers[at + after : at + 2 * after]).reshape(-1)
        at += 2 * after
        last = k + 2 == len(sizes)
        layers.append((weight[[output]], bias[[output]], "linear") if last else (weight, bias, "relu"))
    return Network.from_arrays(layers)


def trained(seed: int, steps: int = 1500) -> Network:
    """A network of the same shape that learnt five scores of an invented encounter, all over the unit box."""
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    sizes = [5, 50, 50, 50, 50, 50, 50, 5]
    parts: list[torch.nn.Module] = []
    for before, after in pairwise(sizes):
        parts += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    module = torch.nn.Sequential(*parts[:-1])
    mix = torch.randn(5, 12) * 3
    shift, back = torch.randn(12), torch.randn(12, 5) / 3
    optimiser = torch.optim.Adam(module.parameters(), lr=2e-3)
    for _ in range(steps):
        x = torch.rand(256, 5) - 0.5
        wanted = torch.sin(x @ mix + shift) @ back + torch.relu(x @ mix[:, :5]).round(decimals=0) * 0.2
        loss = ((module(x) - wanted) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Network.from_torch(module, output=0)


def sampled(network: Network, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
    """The best of many draws, and the spread of their values."""
    rng = np.random.default_rng(1)
    best, least = -np.inf, np.inf
    for _ in range(SAMPLES // 50_000):
        values = network(lower + (upper - lower) * rng.random((50_000, 5)))
        best, least = max(best, float(values.max())), min(least, float(values.min()))
    return best, best - least


def row(name: str, network: Network, lower: np.ndarray, upper: np.ndarray, boxes: int) -> dict[str, object]:
    """One network over one box."""
    best, spread = sampled(network, lower, upper)
    began = time.process_time()
    found = maximise_box(network, lower, upper, options=BoxOptions(gap=1e-3, boxes=boxes))
    if found.value < best - 1e-9 * abs(best):
        raise SystemExit(f"{name}: the value found, {found.value}, is below sampling's best, {best}")
    return {
        "network": name, "value": found.value, "sampled": best, "bound": found.bound,
        "gap_of_value": found.gap / max(abs(found.value), 1e-9), "gap_of_spread": found.gap / spread,
        "boxes": found.boxes, "cpu_seconds": time.process_time() - began, "status": found.status,
    }  # fmt: skip


def main() -> None:
    """Every file, or networks of the same shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    # A limit on boxes and not on the clock: CPU seconds are what is reported, whatever else the machine does.
    parser.add_argument("--boxes", type=int, default=40_000, help="boxes bounded; about a thousand a CPU second")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--shapes", type=int, default=3, help="networks trained here when no file is given")
    options = parser.parse_args()
    box = (LOWER, UPPER)
    cases = [
        (path.name, read_nnet(path) if path.suffix == ".nnet" else read_model(str(path), output=0, box=box), *box)
        for path in options.files
    ]
    for seed in range(0 if cases else options.shapes):
        network = trained(seed)
        cases.append((f"same shape {seed}, property 3's box", network, *box))
        cases.append((f"same shape {seed}, six tenths of the unit box", network, -0.3 * np.ones(5), 0.3 * np.ones(5)))
    rows = []
    for case in cases:
        found = row(*case, options.boxes)
        rows.append(found)
        if options.out:
            options.out.write_text(table_csv(rows))
        print(
            "{network:<42} value {value:9.5f}  sampled {sampled:9.5f}  bound {bound:9.5f}  gap {gap_of_value:7.2%} "
            "of the value, {gap_of_spread:7.2%} of the spread  {boxes:7d} boxes  {cpu_seconds:5.1f} s  {status}".format(
                **found
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
