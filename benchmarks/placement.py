"""Time and hops of placing layered random networks of growing size, against cores in order.

    python benchmarks/placement.py [--cores 100 1000 10000 138240] [--seed 0]

A network is a chain of layers of random width; each core sends to a window of the next layer, as a
convolution does, to the whole of it now and then, and a third of the layers to the layer after the
next too. The board has the routers of Loihi 2 (8 x 4, 4 cores each, 120 cores usable) and as many
chips as the cores need, near a square. Ratios are to ``row_major``.
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import pairwise

import numpy as np
from scipy import sparse

from neuroav.mapping.arrange import arrange
from neuroav.mapping.mesh import chip_crossings, row_major, total_hops
from neuroav.placement import Mesh


def layered(cores: int, seed: int) -> sparse.csr_array:
    """Return the messages between the cores of a random network of layers, (cores, cores)."""
    rng = np.random.default_rng(seed)
    mean = max(2, int(cores**0.6))
    widths = [int(rng.integers(1, 2 * mean)) for _ in range(cores)]
    ends = np.minimum(np.cumsum(widths), cores)
    edges = [0, *ends[: int(np.searchsorted(ends, cores)) + 1].tolist()]
    layers = [np.arange(a, b) for a, b in pairwise(edges)]
    parts = []
    for step in (1, 2):
        for source, target in zip(layers, layers[step:], strict=False):
            if step == 1 or rng.random() < 1 / 3:
                parts.append(_window(source, target, rng))
    row, column = np.concatenate(parts, 1)
    messages = rng.exponential(1000, row.size).round() + 1
    return sparse.csr_array((messages, (row, column)), shape=(cores, cores))


def _window(source: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (sender, receiver) pairs of one layer and the next."""
    whole = len(source) * len(target) < 2000 and rng.random() < 1 / 4
    width = len(target) if whole else min(len(target), int(rng.integers(2, 13)))
    centre = np.arange(len(source)) * len(target) // len(source)
    receiver = (centre[:, None] + np.arange(width) - width // 2) % len(target)
    return np.stack([np.repeat(source, width), target[receiver].ravel()])


def board(cores: int) -> Mesh:
    """Return chips of 8 x 4 routers for ``cores`` cores, near a square."""
    chips = -(-cores // 120)
    wide = int(np.ceil(chips**0.5))
    return Mesh(8, 4, 4, wide, -(-chips // wide), 120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cores", type=int, nargs="+", default=[100, 300, 1000, 2000, 8000, 138240]
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("  cores  chips     links  seconds   hops crossings     MB")
    for cores in args.cores:
        traffic, mesh = layered(cores, args.seed), board(cores)
        before = time.perf_counter()
        seats = arrange(traffic, mesh, seed=args.seed)
        seconds = time.perf_counter() - before
        plain = row_major(cores, mesh)
        hops = total_hops(traffic, seats, mesh) / total_hops(traffic, plain, mesh)
        base = chip_crossings(traffic, plain, mesh)
        crossings = f"{chip_crossings(traffic, seats, mesh) / base:.3f}" if base else "none"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            f"{cores:>7} {len(np.unique(seats[:, 0])):>6} {traffic.nnz:>9} {seconds:>8.2f} "
            f"{hops:>6.3f} {crossings:>9} {peak:>6}",
            flush=True,
        )


if __name__ == "__main__":
    main()
