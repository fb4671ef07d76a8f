"""Time and memory of the mapper against the size of the network.

    python benchmarks/mapping.py [--branches 1 8 64 256 600] [--published]

Synthetic networks for a Loihi 2 system of 1152 chips: copies of one branch (three convolutions with
pooling between, 128 x 128 places at first), whose means are added and read out. Every network is
mapped in a process of its own; peak memory is that process's. ``--published`` adds the three
published configurations of S-CMRL (arXiv 2502.12488) with random weights, on the smallest Loihi 2
board that holds them, their compilation not timed.

Columns: cores with as few as possible (of the published networks also where all memory costs of the
profile are at the low and high end of their ranges), and with the load evened over the chips in
use; seconds to split and pack, to count what flows between cores, to arrange the cores on the mesh
and to check; hops, and messages that cross a border between chips, over those of cores seated row
by row (every neuron sending one message).
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from neuroav import integer as ig
from neuroav.errors import DoesNotFit
from neuroav.hardware import Profile, load_profile
from neuroav.mapping.arrange import arrange
from neuroav.mapping.fit import check_placement
from neuroav.mapping.flows import flows
from neuroav.mapping.mapper import mesh_of, plan, traffic
from neuroav.mapping.mesh import chip_crossings, row_major, total_hops
from neuroav.placement import Core, Placement, placed, verify_placement
from neuroav.synapses import synapse_count

BOARDS = ("loihi2", "loihi2-kapoho-point", "loihi2-alia-point", "loihi2-hala-point")
PUBLISHED = {  # D, T, stem, inputs, classes
    "CREMA-D": (256, 4, "deep", {"audio": (1, 128, 128), "visual": (3, 128, 128)}, 6),
    "UrbanSound8K-AV": (64, 4, "deep", {"audio": (1, 128, 128), "visual": (3, 128, 128)}, 10),
    "MNISTDVS-NTIDIGITS": (64, 16, "shallow", {"audio": (1, 28, 28), "visual": (2, 28, 28)}, 10),
}
WIDTHS, PLACES = (32, 64, 128), 128  # of a synthetic branch: channels by stage, rows and columns


def branch(name: str, weights: list[np.ndarray]) -> dict[str, ig.Population]:
    """Return the populations of one branch; its last, (128,), is ``name.mean``."""
    rows, source, found = PLACES, f"{name}.input", {}
    found[source] = ig.IntInput((weights[0].shape[1], rows, rows), (), 1)
    one = np.ones((1, 1, 1), np.int64)
    for stage, weight in enumerate(weights):
        conv = ig.IntConv2d(
            source, 0, weight=weight, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1,
            weight_bits=8, sign_mode="mixed",
        )  # fmt: skip
        found[f"{name}.lif{stage}"] = ig.IntLif(
            (len(weight), rows, rows), (conv,), 0 * one, 0, one, 4095, 2048
        )
        rows, source = rows // 2, f"{name}.pool{stage}"
        pool = ig.IntPool(f"{name}.lif{stage}", 0, (2, 2), (2, 2), (0, 0))
        found[source] = ig.IntOr((len(weight), rows, rows), (pool,))
    found[f"{name}.mean"] = ig.IntSum((WIDTHS[-1],), (ig.IntSpatialSum(source, 0),))
    return found


def synthetic(branches: int) -> ig.IntGraph:
    """Return a network of equal branches that are added and read out."""
    rng = np.random.default_rng(0)
    weights = [
        rng.integers(1, 127, (out, inputs, 3, 3))
        for inputs, out in zip((3, *WIDTHS), WIDTHS, strict=False)
    ]
    found: dict[str, ig.Population] = {}
    for number in range(branches):
        found |= branch(f"branch{number}", weights)
    width = WIDTHS[-1]
    means = tuple(ig.IntIdentity(f"branch{n}.mean", 0, 1) for n in range(branches))
    found["join"] = ig.IntSum((width,), means)
    dense = ig.IntDense(
        "join", 0, weight=rng.integers(1, 127, (10, width)), weight_bits=8, sign_mode="mixed"
    )
    found["scores"] = ig.IntReadout((10,), (dense,), np.zeros(10, np.int64))
    return ig.IntGraph(found, "scores", 4, 0.001, dict.fromkeys(found, (1, 1)))


def published(name: str) -> ig.IntGraph:
    """Return a published configuration with random weights."""
    import torch

    from neuroav.models import build_model
    from neuroav.training.config import ModelConfig, ScmrlConfig
    from neuroav_export import compile_module

    width, steps, stem, shapes, classes = PUBLISHED[name]
    torch.manual_seed(0)
    config = ModelConfig(name="scmrl", stem=stem, embed_dim=width)
    model = build_model(config, shapes, classes, ScmrlConfig(mode="faithful", heads=16)).eval()
    rng = np.random.default_rng(0)
    inputs = {n: rng.poisson(0.5, (1, steps, *s)).astype(np.int32) for n, s in shapes.items()}
    return compile_module(model, inputs).integer


def smallest_board(graph: ig.IntGraph) -> str:
    """Return the smallest Loihi 2 board that holds a network."""
    for name in BOARDS:
        try:
            plan(graph, load_profile(name), balance=False)
        except DoesNotFit:
            continue
        return name
    raise SystemExit("no board of Loihi 2 is large enough")


def at_end(profile: Profile, end: int) -> Profile:
    """Return the profile with all costs of its layout at one end of their bands: 0 low, 2 high."""
    costs = {}
    for name in type(profile.layout).model_fields:
        quantity = getattr(profile.layout, name)
        if name != "convolution_shared" and quantity.band:
            costs[name] = quantity.model_copy(update={"value": quantity.band[end]})
    return profile.model_copy(update={"layout": profile.layout.model_copy(update=costs)})


def fewest_cores(graph: ig.IntGraph, profile: Profile, name: str) -> str:
    """Return the smallest number of cores, of a published network with its range."""
    fewest = f"{len(plan(graph, profile, balance=False)):,}"
    if name not in PUBLISHED:
        return fewest
    large = load_profile(BOARDS[-1])
    ends = [len(plan(graph, at_end(large, e), balance=False)) for e in (0, 2)]
    return f"{fewest} ({ends[0]:,} to {ends[1]:,})"


def measure(name: str, board: str) -> dict[str, object]:
    """Map one network; return its row of the table."""
    graph = published(name) if name in PUBLISHED else synthetic(int(name))
    board = board or smallest_board(graph)
    profile = load_profile(board)
    before = peak_mb()
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return round(clock[-1] - clock[-2], 1)

    fewest = fewest_cores(graph, profile, name)
    lap()
    cores = plan(graph, profile)
    row: dict[str, object] = {"split, pack": lap()}
    found = flows(graph, cores)
    row["flows"] = lap()
    messages, mesh = traffic(found, len(cores)), mesh_of(profile)
    seats = arrange(messages, mesh)
    row["arrange"] = lap()
    rows = row_major(len(cores), mesh)
    row["hops / row-major"] = ratio(total_hops, messages, seats, rows, mesh)
    row["crossings / row-major"] = ratio(chip_crossings, messages, seats, rows, mesh)
    lap()
    seated = tuple(Core(s, *seat) for s, seat in zip(cores, seats.tolist(), strict=True))
    placement = Placement(board, mesh_of(profile), seated, 0)
    check_placement(graph, placement, profile, found)
    verify_placement(graph, placement)
    row["check"] = lap()
    neurons = sum(graph.populations[n].state_neurons(graph.steps) for n in placed(graph))
    synapses = sum(synapse_count(graph, n) for n in graph.order)
    title = name if name in PUBLISHED else f"{name} branches"
    head = {"network": title, "neurons": neurons, "synapses": synapses, "target": board}
    head |= {"fewest cores": fewest, "cores": len(cores), "chips": placement.chips}
    return head | row | {"peak MB": round(peak_mb()), "before": round(before)}


def ratio(count: Callable[..., float], messages, seats, rows, mesh) -> str:
    """Return a count of hops over that of cores seated row by row, a dash where that has none."""
    before = count(messages, rows, mesh)
    return f"{count(messages, seats, mesh) / before:.3f}" if before else "–"


def peak_mb() -> float:
    """Return the most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--branches", type=int, nargs="*", default=[1, 8, 64, 256, 600])
    parser.add_argument("--published", action="store_true")
    args = parser.parse_args()
    jobs = [(n, "") for n in PUBLISHED] if args.published else []
    jobs += [(str(n), "loihi2-hala-point") for n in args.branches]
    for number, job in enumerate(jobs):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            row = pool.submit(measure, *job).result()
        if not number:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        cells = (f"{v:,}" if isinstance(v, (int, float)) else v for v in row.values())
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
