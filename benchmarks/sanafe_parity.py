"""Our energy and SANA-FE's of one network on one placement, spike by spike the same run.

    python benchmarks/sanafe_parity.py FILE.nav [--samples 1] [--costs PROFILE] [--timing detailed]

Runs the first probe samples of the file, counts synapse, soma and network energy ourselves, replays
the same spikes in SANA-FE (its own process; `pip install 'neuroav[sanafe]'`) and prints both. Exits
1 unless all counts are equal and all energies within 1e-9. The step times stand beside each other
for information: the two models of time differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from neuroav import navfile
from neuroav.costs.timing import time as run_time
from neuroav.deployment import Deployment
from neuroav.hardware import Profile, load_profile
from neuroav.loads import LoadCounter
from neuroav.mapping.mapper import map_graph
from neuroav.placement import Placement
from neuroav.sim import fast
from neuroav.sim.sanafe import compare
from neuroav.sim.trace import Trace, collect
from neuroav.simulate import resolve_deployment


def our_step_ns(deployment: Deployment, placement: Placement, outputs, costs: Profile):
    """Return our own mean and longest step in ns while samples follow one another, or None."""
    counter = LoadCounter(deployment.integer, placement)
    counter.add(Trace(0, outputs))
    found = run_time(counter.loads(), costs).headline
    return found.step_mean.value, found.step_max.value


def table(found: dict, ours: tuple[float | None, float | None]) -> str:
    """Return both counts side by side."""
    rows = [f"{'':12} {'NeuroAV':>20} {'SANA-FE':>20}   difference"]
    for key, value in found["neuroav"].items():
        other, relative = found["sanafe"][key], found["difference"].get(key)
        shown = ["unknown" if v is None else f"{v:,.3f}" if isinstance(v, float) else f"{v:,}"
                 for v in (value, other)]  # fmt: skip
        rows.append(f"{key:12} {shown[0]:>20} {shown[1]:>20}   "
                    + ("" if relative is None else f"{relative:.1e}"))  # fmt: skip
    for key, mine in zip(("mean", "max"), ours, strict=True):
        text = "unknown" if mine is None else f"{mine:,.0f}"
        rows.append(f"step {key} ns {text:>22} {found['step_ns'][key]:>20,.0f}   another model")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", metavar="FILE.nav", help="or shipped:NAME")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--costs", metavar="PROFILE", help="whose prices, the file's by default")
    parser.add_argument("--timing", choices=("simple", "detailed"), default="simple")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    deployment = navfile.load(resolve_deployment(options.file))
    if deployment.probe is None:
        parser.error(f"{options.file} carries no probe samples")
    costs = load_profile(options.costs) if options.costs else deployment.profile
    inputs = {n: v[: options.samples] for n, v in deployment.probe.inputs.items()}
    outputs = collect(fast.run(deployment, inputs))
    placement = deployment.placement or map_graph(deployment.integer, costs)
    start = time.perf_counter()
    found = compare(deployment, placement, outputs, costs=costs, timing=options.timing)
    seconds = time.perf_counter() - start
    ours = our_step_ns(deployment, placement, outputs, costs)
    if options.json:
        print(json.dumps(found | {"our_step_ns": dict(zip(("mean", "max"), ours, strict=True))}))
        return 0 if found["equal"] else 1
    print(f"{options.file} on {found['cores']} cores, {found['synapses']:,} synapses, "
          f"prices of {costs.id}; SANA-FE {found['version']}, {found['timing']} timing; "
          f"{seconds:.0f} s\n")  # fmt: skip
    print(table(found, ours))
    for name, why in found["left_out"].items():
        print(f"left out: {name}: {why}")
    print("equal" if found["equal"] else "NOT EQUAL")
    return 0 if found["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
