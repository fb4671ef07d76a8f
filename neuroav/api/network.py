"""The compiled network, and everything one can do with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroav import navfile
from neuroav.api.inputs import given_samples, installed
from neuroav.api.results import Energy, Keeper, Recording, Report, Verification
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, unknown_name
from neuroav.hardware import load_profile
from neuroav.simulate import executor, run_backend
from neuroav.synapses import synapse_count

if TYPE_CHECKING:
    from neuroav.api.inputs import Inputs


@dataclass(frozen=True, eq=False)
class Network:
    """A compiled network: what ``export`` and ``load`` return.

    deployment: the integer graph, its real-valued twin, the profile and the placement
    (``neuroav.deployment``). path: the file it is in, None where it was not saved.

    Wherever samples ``x`` are asked for: event counts (samples, steps, *shape), numpy or torch, in
    a dict by input name, or one array where the network has one input; None for the samples that
    the network carries. labels: class numbers, -1 or None where unknown.

    >>> import neuroav
    >>> net = neuroav.load("shipped:tiny.nav")
    >>> net
    <neuroav.Network tiny.nav: 47 neurons, 192 synapses, for loihi2>
    >>> net.inputs
    {'audio': (1, 4, 4), 'visual': (1, 4, 4)}
    """

    deployment: Deployment
    path: Path | None = None

    def __repr__(self) -> str:
        return (
            f"<neuroav.Network {self.name}: {self.neurons} neurons, {self.synapses} synapses, "
            f"for {self.target}>"
        )

    # --- what it is ---------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """Name of its file, 'network' where it was not saved."""
        return self.path.name if self.path else "network"

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what is fed in every step, by input name."""
        graph, host = self.deployment.integer, self.deployment.host
        sources = {layer.source for layer in host.values()}
        shapes = {n: p.shape for n, p in graph.inputs.items() if n not in host}
        shapes |= {n: self.deployment.real.shapes[n] for n in sources}
        return {n: shapes[n] for n in self.deployment.fed}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the scores."""
        return self.deployment.classes

    @property
    def steps(self) -> int:
        """Time steps of a sample."""
        return self.deployment.integer.steps

    @property
    def target(self) -> str:
        """Id of the profile that it was compiled for."""
        return self.deployment.profile.id

    @property
    def neurons(self) -> int:
        """Neurons on the chip; inputs are not."""
        return self.deployment.neurons

    @property
    def synapses(self) -> int:
        """Synapses that are not 0, shared weights counted unrolled."""
        return self.deployment.synapses

    def summary(self) -> str:
        """Return a table of the nodes, sources first, to be printed.

        >>> import neuroav
        >>> print(neuroav.load("shipped:tiny.nav").summary())
        tiny.nav: 47 neurons, 192 synapses, 6 steps, for loihi2
        ...
        | audio_lif   | spiking neurons | 2x3x3 |      18 |       72 |       1 |
        ...
        """
        from neuroav.report.build import KINDS
        from neuroav.report.format import NODE_KINDS, table

        graph = self.deployment.integer
        rows = [
            (
                name,
                NODE_KINDS[KINDS[type(pop)]],
                "x".join(map(str, pop.shape)),
                0 if name in graph.inputs else pop.state_neurons(graph.steps),
                synapse_count(graph, name),
                graph.latency[name],
            )
            for name in graph.order
            for pop in (graph.populations[name],)
        ]
        columns = ("node", "kind", "shape", "neurons", "synapses", "latency")
        lines = [
            f"{self.name}: {self.neurons} neurons, {self.synapses} synapses, {self.steps} steps, "
            f"for {self.target}",
            f"classes: {', '.join(self.classes)}",
            f"cores: {len(self.deployment.placement.cores)}"
            if self.deployment.placement
            else "not placed on cores",
        ]
        return "\n".join([*lines, "", table(columns, rows, "lllrrr")])

    # --- running it ---------------------------------------------------------------------------
    def simulate(
        self,
        x: Inputs | None = None,
        labels: Any = None,
        *,
        backend: str = "fast",
        batch: int | None = None,
        record: bool | Collection[str] = True,
        states: bool = False,
        memory_mb: int | None = None,
        device: str | None = None,
    ) -> Recording:
        """Return what the integer network does with ``x``.

        backend: 'fast', 'reference' (the specification), 'lava' or 'lava-inline'; all give the same
        integers. batch: samples that are computed together. record: keep the messages of every node
        (True), of the named ones, or none (False); the counts are always made. states: keep the
        inner states of these nodes too. memory_mb, device: for 'fast', a bound on its arrays, and
        'cpu' or 'cuda'. Raises ConfigError, DataError, OutOfRange, MissingDependency.

        >>> import numpy as np, neuroav
        >>> net = neuroav.load("shipped:tiny.nav")
        >>> quiet = np.zeros((1, 6, 1, 4, 4), int)
        >>> net.simulate({"audio": quiet + 1, "visual": quiet}).answers
        ['sound']
        """
        executor(backend)
        names = self._recorded(record)
        data = given_samples(self.deployment, x, labels)
        keeper = Keeper(names)
        with installed(f"the executor {backend}"):
            done = run_backend(
                self.deployment, data, backend, batch=_batch(batch), states=states, device=device,
                memory_bytes=None if memory_mb is None else memory_mb << 20, observers=(keeper,),
            )  # fmt: skip
        above, below = self.deployment.integer.scales[self.deployment.integer.output]
        return Recording(
            backend=backend,
            classes=self.classes,
            scores=done.scores,
            scale=above / below,
            labels=data.labels,
            spikes=keeper.outputs,
            states=keeper.states,
            counts=done.counts,
            digest=done.digest,
            seconds=done.seconds,
        )

    def _recorded(self, record: bool | Collection[str]) -> Collection[str]:
        order = self.deployment.integer.order
        if isinstance(record, bool):
            return order if record else ()
        for name in [record] if isinstance(record, str) else record:
            if name not in order:
                raise unknown_name("node", name, order, ConfigError)
        return [record] if isinstance(record, str) else record

    def float_scores(self, x: Inputs | None = None) -> np.ndarray:
        """Return class scores of the real-valued network before quantization, float64 (samples,
        classes).

        >>> import neuroav
        >>> net = neuroav.load("shipped:tiny.nav")
        >>> (net.float_scores().argmax(1) == net.simulate().predictions).tolist()[:3]
        [True, True, True]
        """
        from neuroav.sim import real

        twin = self.deployment.real
        with installed("the float network"):
            traces = list(real.run(twin, given_samples(self.deployment, x).inputs))
        return np.concatenate([t.outputs[twin.output].reshape(t.samples, -1) for t in traces])

    def verify(
        self, x: Inputs | None = None, backends: Sequence[str] = ("reference", "fast")
    ) -> Verification:
        """Return whether ``backends`` give equal outputs at every node, step and sample.

        ConfigError for fewer than two backends or an unknown one.

        >>> import neuroav
        >>> assert neuroav.load("shipped:tiny.nav").verify(backends=("reference", "lava-inline"))
        """
        from neuroav.verify import compare

        names = _backends(backends)
        data = given_samples(self.deployment, x)
        with installed(f"one of the executors {', '.join(names)}"):
            found = compare(self.deployment, data, names)
        return Verification(
            equal=found["equal"],
            backends=tuple(names),
            samples=found["samples"],
            compared=found["spikes_compared"],
            silent=tuple(found["silent"]),
            saturated=tuple(found["saturated"]),
            first_divergence=found["first_divergence"],
            digests=found["digests"],
        )

    def explain(
        self, x: Inputs | None = None, backends: Sequence[str] = ("reference", "fast")
    ) -> dict[str, Any]:
        """Return where spikes change between the float network and the executors, and why.

        Keys: stages, layers, ranked, altered, first_divergence (``docs/exactness.md``).

        >>> import neuroav
        >>> found = neuroav.load("shipped:tiny.nav").explain()
        >>> [stage["stage"] for stage in found["stages"]][-1]
        'fast'
        """
        from neuroav.explain import explained
        from neuroav.verify import compared, run_all

        names = _backends(backends)
        data = given_samples(self.deployment, x)
        with installed(f"one of the executors {', '.join(names)}"):
            outputs = run_all(self.deployment, data, names)
            first = compared(self.deployment, len(data), outputs)["first_divergence"]
            return explained(self.deployment, data.inputs, outputs, first)

    # --- what it costs ------------------------------------------------------------------------
    def energy(self, x: Inputs | None = None, profile: str | None = None) -> Energy:
        """Return what a sample costs on its own target, or on another profile (id or .toml file).

        The events of ``x`` are counted and priced; without a placement messages, static power and
        time are unknown. Raises DataError, ProfileError.

        >>> import neuroav
        >>> net = neuroav.load("shipped:tiny.nav")
        >>> cost = net.energy(profile="loihi1")
        >>> cost.profile, cost.dynamic.unit, cost.dynamic.grade
        ('loihi1-nahuku-fit', 'pJ', 'C')
        """
        from neuroav.costs.energy import price
        from neuroav.costs.timing import time
        from neuroav.loads import LoadCounter
        from neuroav.placement import Placement
        from neuroav.report.measure import placements

        data = given_samples(self.deployment, x)
        prices = self.deployment.profile if profile is None else load_profile(profile)
        with installed("counting events"):
            (seat,) = placements(self.deployment, [prices], data.inputs)
            placed = seat if isinstance(seat, Placement) else None
            counter = LoadCounter(self.deployment.integer, placed) if placed else None
            observers = (counter,) if counter else ()
            done = run_backend(self.deployment, data, "fast", observers=observers)
        loads, why = (counter.loads(), "") if counter else (None, str(seat))
        times = time(loads, prices, why=why).headline
        found = price(done.counts, loads, prices, period=times.period, alone=times.seconds, why=why)
        return Energy(
            profile=prices.id,
            total=found.streaming.total,
            static=found.streaming.static,
            dynamic=found.streaming.dynamic,
            known_part=found.known_part,
            missing=tuple(found.missing),
            by_event={kind: term.energy for kind, term in found.terms.items() if term.modelled},
            seconds=times.seconds,
        )

    def report(
        self,
        out: str | Path,
        x: Inputs | None = None,
        labels: Any = None,
        profiles: Sequence[str] = (),
    ) -> Report:
        """Write report.html, report.json and report.md into the folder ``out``; return them.

        Without labels accuracy is None, and the report says so. profiles: that price the events, by
        default the network's own. Raises ConfigError, DataError, ProfileError, MissingDependency.

        >>> import numpy as np, neuroav
        >>> net = neuroav.load("shipped:tiny.nav")
        >>> x = {name: np.ones((4, 6, 1, 4, 4), int) for name in net.inputs}
        >>> net.report("unlabelled", x).data["accuracy"]["deployed"] is None
        True
        """
        from neuroav.report import report_samples

        if isinstance(profiles, str):
            profiles = (profiles,)
        data = given_samples(self.deployment, x, labels)
        with installed("a report"):
            found = report_samples(
                self.deployment, data, out=Path(out), label=self.name, profiles=profiles
            )
        return Report(Path(found.pop("path")), found)

    # --- files --------------------------------------------------------------------------------
    def save(self, path: str | Path) -> Network:
        """Write FILE.nav whole or not at all; return the network with its path and content hash.

        >>> import neuroav
        >>> net = neuroav.load("shipped:tiny.nav").save("copy.nav")
        >>> neuroav.load("copy.nav").deployment.content_hash == net.deployment.content_hash
        True
        """
        return replace(self, deployment=navfile.save(self.deployment, path), path=Path(path))

    def convert(self, to: str, path: str | Path, **options: Any) -> dict[str, Any]:
        """Write the network in the format of another tool; return what was carried.

        to: 'onnx', 'netx', 'nir' and others; ``docs/formats.md`` says what each carries and its
        options. Keys: format, path, nodes, left_out, hash, and the format's own. Raises
        ConfigError, UnsupportedNode, OutOfRange, MissingDependency.

        >>> import neuroav
        >>> neuroav.load("shipped:tiny.nav").convert("nir", "tiny.nir")["left_out"]
        {}
        """
        with installed(f"the format {to}"):
            from neuroav_export.writers import convert

            return convert(self.deployment, to, Path(path), **options)


def _batch(batch: int | None) -> int | None:
    if batch is not None and batch < 1:
        raise ConfigError(f"batch is {batch}, needs at least 1")
    return batch


def _backends(backends: Sequence[str]) -> list[str]:
    """Return two or more different executors as a list; ConfigError otherwise."""
    names = backends.split(",") if isinstance(backends, str) else list(backends)
    for name in names:
        executor(name)
    if len(set(names)) != len(names) or len(names) < 2:
        raise ConfigError(
            f"backends are {', '.join(names) or 'none'}: give two or more different names, e.g. "
            "('reference', 'fast')"
        )
    return names
