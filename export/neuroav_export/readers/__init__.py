"""Read networks of other tools into a deployment. ``docs/formats.md`` says what each may hold.

A format is one row of ``READERS``: a function ``read(path, *, steps, target, classes, **options)``
that returns a ``Deployment``, and which further options it takes by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neuroav import integer as ig
from neuroav import navfile
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, unknown_name
from neuroav_export.readers import netx, nir
from neuroav_export.readers.base import PROBE_SAMPLES, Given, load_given, probe
from neuroav_export.run import on_cores, summary


@dataclass(frozen=True)
class Reader:
    """A format. read: returns a deployment; options: names of what it takes besides ``steps``,
    ``target`` and ``classes``. ``sample``, if among them, is the inputs of ``Given`` or None."""

    read: Callable[..., Deployment]
    options: tuple[str, ...] = ()


READERS: dict[str, Reader] = {
    "netx": Reader(netx.read_netx, ("input_shape", "input_message_bits", "dt_s")),
    "nir": Reader(
        nir.read_deployment,
        (
            "sample",
            "dt_s",
            "unit_s",
            "decode",
            "reset",
            "decay",
            "inclusive",
            "output",
            "bits",
            "calibration",
            "per_channel",
            "max_count",
            "static",
            "host",
        ),
    ),
}


def import_file(
    path: str | Path,
    form: str,
    out: str | Path,
    *,
    target: str = "loihi2",
    samples: str | Path | None = None,
    steps: int | None = None,
    classes: Sequence[str] = (),
    place: bool = True,
    spread: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Read ``path`` in format ``form`` and write it to FILE.nav ``out``; return the summary.

    samples: an .npz file (``base.load_given``); the first of them become the file's probe, and the
    placement is made from their traffic. steps: frames per sample, by default those of the samples.
    place, spread: see ``run.export_run``. options: of the format (``Reader.options``).
    Keys: format, inputs (name -> shape that is fed), output, steps, probe (samples inside the
    file), and those of ``run.export_run``.
    """
    given = None if samples is None else load_given(samples)
    deployment = read_file(
        path, form, given, target=target, steps=steps, classes=classes, **options
    )
    if given is not None:
        deployment = replace(deployment, probe=probe(deployment, given))
    if place:
        first = None if deployment.probe is None else deployment.probe.inputs
        deployment = on_cores(deployment, first, spread=spread)
    saved = navfile.save(deployment, out)
    graph = saved.integer
    return {
        "format": form,
        "inputs": {n: list(_fed_shape(saved, n)) for n in saved.fed},
        "output": graph.output,
        "steps": graph.steps,
        "probe": 0 if saved.probe is None else len(saved.probe.labels),
        **summary(saved, weight_bits(graph)),
    }


def read_file(
    path: str | Path,
    form: str,
    given: Given | None = None,
    *,
    target: str = "loihi2",
    steps: int | None = None,
    classes: Sequence[str] = (),
    **options: Any,
) -> Deployment:
    """Return the deployment in a file of format ``form``. Arguments as for ``import_file``.

    ConfigError for an unknown format, an option it does not take, or steps that the samples do not
    have; errors of the format's reader.
    """
    if form not in READERS:
        raise unknown_name("format", form, READERS, ConfigError)
    reader = READERS[form]
    unknown = [n for n in options if n not in reader.options]
    if unknown:
        raise unknown_name(f"option of {form}", unknown[0], reader.options, ConfigError)
    if given is not None:
        if steps is not None and steps != given.steps:
            raise ConfigError(f"steps is {steps}, the samples have {given.steps}; leave it out")
        steps = given.steps
    if "sample" in reader.options:
        options["sample"] = None if given is None else given.inputs
    return reader.read(path, steps=steps, target=target, classes=tuple(classes), **options)


def weight_bits(graph: ig.IntGraph) -> int:
    """Return the width of the widest synapses, 8 for a network of unit synapses."""
    widths = [
        p.weight_bits
        for pop in graph.populations.values()
        for p in pop.projections
        if isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d, ig.IntDense))
    ]
    return max(widths, default=8)


def _fed_shape(deployment: Deployment, name: str) -> tuple[int, ...]:
    """Return the shape per step and sample of what is fed under a name."""
    for layer in deployment.host.values():
        if layer.source == name:
            return layer.source_shape
    return deployment.integer.populations[name].shape


__all__ = ["PROBE_SAMPLES", "READERS", "Given", "Reader", "import_file", "read_file"]
