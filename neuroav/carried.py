"""Run the fixed probe set of a file and hold what it gives against the digests the file carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neuroav import digests, navfile
from neuroav.certificate import versions
from neuroav.deployment import Deployment
from neuroav.digests import Carried, Entry, ProbeSet
from neuroav.errors import ConfigError, DataError, OutOfRange
from neuroav.simulate import Progress, Samples, executor, resolve_deployment
from neuroav.verify import Outputs, run_all

Task = Literal["check", "store"]
FIXED = "fixed probe set"
HALVINGS = 8  # of the levels, where a network overflows on as many events as its samples have


@dataclass(frozen=True, eq=False)
class Probed:
    """A file's fixed probe set, and what every backend gave for it.

    carried: the digests in the file, None without any. outputs: by backend and population.
    """

    path: Path
    deployment: Deployment
    probe: ProbeSet
    carried: Carried | None
    data: Samples
    outputs: Mapping[str, Outputs]

    @property
    def messages(self) -> int:
        """Outputs of neurons that are not 0; inputs do not count."""
        populations = self.deployment.integer.populations.items()
        first = next(iter(self.outputs.values()))
        return sum(int(np.count_nonzero(first[n])) for n, p in populations if p.projections)


def run_probe(
    path: str | Path, *, backends: list[str], task: Task, progress: Progress | None = None
) -> Probed:
    """Return what the backends give for a file's fixed probe set.

    It is the one of the digests that the file carries, or where it carries none, to be stored, a
    new one. Raises ConfigError for backends, DataError where there is nothing to check or nothing
    fires.
    """
    if not backends or len(set(backends)) != len(backends):
        raise ConfigError(f"backends are {','.join(backends)}: give one or more different names")
    for backend in backends:
        executor(backend)
    path = resolve_deployment(path)
    deployment = navfile.load(path)
    carried = digests.load(path, deployment)
    if carried is None and task == "check":
        raise DataError(
            f"{path}: carries no digests; store some with `neuroav verify {path} --digests store`"
        )
    found = _run(path, deployment, carried, backends, progress)
    if found.messages == 0:
        raise DataError(
            f"{path}: no neuron sent a message in {len(found.data)} samples of the {FIXED}, so "
            "equal digests would say nothing; take a network that fires"
        )
    return found


def _run(path, deployment, carried: Carried | None, backends, progress) -> Probed:
    """Run a probe set; a new one has fewer events where a register overflows."""
    for halvings in range(HALVINGS + 1):
        probe = carried.probe if carried else digests.choose_probe(deployment, halvings)
        labels = np.zeros(probe.samples, np.int64)
        data = Samples(digests.probe_inputs(deployment, probe), labels, FIXED)
        try:
            outputs = run_all(deployment, data, backends, progress)
        except OutOfRange:
            if carried or halvings == HALVINGS:
                raise
        else:
            break
    return Probed(path, deployment, probe, carried, data, outputs)


def compare_carried(probed: Probed, found: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Return the value of ``carried``: every digest in the file, and whether it was given again.

    found: what ``verify.compared`` says of the outputs. With ``store`` what was found is added to
    the file, unless executors or carried digests differ from each other: then nothing is written.
    An entry that is there already, version by version, is not added again.
    """
    given, before = found["digests"], probed.carried.entries if probed.carried else ()
    first = given[found["backends"][0]]
    same = [e.digest == given.get(e.executor, first) for e in before]
    equal = bool(found["equal"]) and all(same)
    added: tuple[Entry, ...] = ()
    if task == "store" and equal:
        made = [Entry(b, digest, probed.messages, versions()) for b, digest in given.items()]
        added = tuple(e for e in made if e not in before)
        if added:
            digests.store(probed.path, Carried(probed.probe, (*before, *added)))
    entries = [asdict(e) | {"equal": s} for e, s in zip(before, same, strict=True)]
    entries += [asdict(e) | {"equal": True} for e in added]
    return {"equal": equal, "probe": asdict(probed.probe), "entries": entries, "stored": len(added)}
