"""Where networks come from: a module of yours, or a file."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroav import __version__, navfile
from neuroav.api.inputs import carrying, installed, module_inputs
from neuroav.api.network import Network
from neuroav.deployment import Deployment
from neuroav.errors import DataError, unknown_name
from neuroav.hardware import list_profiles, load_profile
from neuroav.simulate import resolve_deployment

if TYPE_CHECKING:
    from torch import nn

    from neuroav.api.inputs import Array, Inputs
    from neuroav.quantization import Calibration, Options
    from neuroav_export import Finding
    from neuroav_export.prepared import Prepared


def export(
    model: nn.Module,
    sample: Inputs,
    *,
    target: str = "loihi2",
    bits: int | None = None,
    calibration: Calibration | None = None,
    per_channel: bool | None = None,
    layer_bits: Mapping[str, int] | None = None,
    classes: Sequence[str] = (),
    labels: Array | Sequence[int] | None = None,
    max_count: int | Mapping[str, int] | None = None,
    static: Collection[str] = (),
    place: bool = True,
    provenance: Mapping[str, object] | None = None,
) -> Network:
    """Return a trained module compiled for a target: integers, and neurons on cores.

    model: a torch module that takes time-first tensors (steps, samples, ...) and returns class
    scores. sample: event counts (samples, steps, *shape), numpy or torch: one array, or a dict by
    input name where forward takes several. It fixes shapes and steps, and the range of every
    register is taken from it: give 100 samples and more where there are. labels: its class numbers;
    the first samples travel with the network, to run and check it anywhere.

    target: id of a profile, or its .toml file. bits, calibration, per_channel: how weights are
    rounded (``docs/quantization.md``), by default 8 bits, 'mse' and not; layer_bits: other widths
    for single layers. What ``prepare`` returned has its own, and other ones are refused. classes:
    names for the scores. max_count: largest count that an input can send, for all or by name (255).
    static: inputs of real values, the same in every step (``docs/static-inputs.md``). place: put
    neurons on cores, where the target has any. provenance: JSON values of your own to keep in the
    file, beside versions and options.

    Raises UnsupportedModule and UnsupportedNode with the name of what cannot be deployed (``lint``
    lists everything), DoesNotFit, ProfileError, DataError, StageError, MissingDependency.

    >>> import numpy as np, torch, neuroav
    >>> from neuroav.models.layers import Lif, PerStep, TimeMean
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(
    ...     PerStep(torch.nn.Linear(4, 16)), Lif(), PerStep(torch.nn.Linear(16, 2)), TimeMean())
    >>> x = np.random.default_rng(0).poisson(2.0, (100, 10, 4))
    >>> net = neuroav.export(model, x, classes=("left", "right"))
    >>> net
    <neuroav.Network network: 18 neurons, 96 synapses, for loihi2>
    >>> len(net.simulate(x).answers)
    100
    """
    with installed("compiling"):
        from neuroav_export import compile_module
        from neuroav_export.pipeline import chosen_options
        from neuroav_export.prepared import Prepared
        from neuroav_export.run import on_cores

        given = module_inputs(model, sample)
        if calibration is None and not isinstance(model, Prepared):
            calibration = "mse"
        options = chosen_options(model, bits, calibration, per_channel, layer_bits)
        deployment = compile_module(
            model,
            given,
            target=target,
            bits=options.bits,
            calibration=options.calibration,
            per_channel=options.per_channel,
            layer_bits=options.layer_bits,
            classes=tuple(classes),
            max_count=_by_name(max_count, given),
            static=static,
            provenance=_origin(options) | dict(provenance or {}),
        )
        deployment = carrying(_named(deployment), given, labels)
        if place and deployment.probe:
            deployment = on_cores(deployment, deployment.probe.inputs)
    return Network(deployment)


def _by_name(count: int | Mapping[str, int] | None, names: Collection[str]) -> dict[str, int]:
    """Return largest counts by input name; DataError for a name that is no input."""
    found = dict.fromkeys(names, count) if isinstance(count, int) else dict(count or {})
    for name, value in found.items():
        if name not in names:
            raise unknown_name("input in max_count", name, names, DataError)
        if type(value) is not int or value < 1:
            raise DataError(f"max_count of {name!r} is {value!r}, needs a whole number from 1")
    return found


def _origin(options: Options) -> dict[str, Any]:
    """Return versions and options as plain JSON values."""
    versions = {"python": platform.python_version(), "neuroav": __version__}
    versions |= {name: metadata.version(name) for name in ("numpy", "torch")}
    return {
        "versions": versions,
        "weight_bits": options.bits,
        "layer_bits": dict(options.layer_bits),
        "calibration": options.calibration,
        "per_channel": options.per_channel,
    }


def _named(deployment: Deployment) -> Deployment:
    """Return the deployment; DataError where it has another number of classes than names."""
    graph = deployment.integer
    scores, names = graph.populations[graph.output].neurons, len(deployment.classes)
    if scores != names:
        raise DataError(f"classes: {names} names, but the network gives {scores} scores")
    return deployment


def load(path: str | Path) -> Network:
    """Return the network in a FILE.nav; ``shipped:NAME`` is one that comes with the package.

    Raises FileFormatError, which says why a file is refused, and ConfigError.

    >>> import neuroav
    >>> neuroav.load("shipped:tiny.nav").classes
    ('sound', 'light', 'both')
    """
    found = resolve_deployment(path)
    return Network(navfile.load(found), found)


def lint(
    model: nn.Module,
    sample: Inputs,
    *,
    target: str = "loihi2",
    bits: int = 8,
    calibration: Calibration = "mse",
    per_channel: bool = False,
    max_count: int | Mapping[str, int] | None = None,
    static: Collection[str] = (),
) -> list[Finding]:
    """Return everything that keeps a module from being deployed, and notes on what does not.

    The arguments are those of ``export``. Each finding has layer, problem, why, rewrite, severity
    ('error' or 'note') and rule (its row of ``docs/lint.md``); without errors ``export`` takes the
    module.

    >>> import numpy as np, torch, neuroav
    >>> from neuroav.models.layers import PerStep, TimeMean
    >>> model = torch.nn.Sequential(PerStep(torch.nn.Linear(4, 2)), torch.nn.ReLU(), TimeMean())
    >>> (first, *_) = neuroav.lint(model, np.ones((4, 10, 4)))
    >>> print(first.severity, first.layer, "|", first.problem)
    error 1 | ...ReLU...
    """
    with installed("lint"):
        from neuroav_export import lint as find

        given = module_inputs(model, sample)
        return find(
            model,
            given,
            target=target,
            bits=bits,
            calibration=calibration,
            per_channel=per_channel,
            max_count=_by_name(max_count, given),
            static=static,
        )


def prepare(
    model: nn.Module,
    sample: Inputs,
    *,
    target: str = "loihi2",
    bits: int = 8,
    calibration: Calibration = "mse",
    per_channel: bool = False,
    layer_bits: Mapping[str, int] | None = None,
    max_count: int | Mapping[str, int] | None = None,
) -> Prepared:
    """Return a copy of a trained module that computes with the integers it would be deployed with.

    Train it as the module itself, with few epochs and a small learning rate, then ``export`` it
    with the same sample. The arguments are those of ``export``. Raises as ``export``.

    >>> import numpy as np, torch, neuroav
    >>> from neuroav.models.layers import Lif, PerStep, TimeMean
    >>> model = torch.nn.Sequential(
    ...     PerStep(torch.nn.Linear(4, 16)), Lif(), PerStep(torch.nn.Linear(16, 2)), TimeMean())
    >>> x = np.random.default_rng(0).poisson(2.0, (100, 10, 4))
    >>> ready = neuroav.prepare(model, x, bits=4)
    >>> ready(torch.from_numpy(x).float().transpose(0, 1)).shape
    torch.Size([100, 2])
    >>> neuroav.export(ready, x).deployment.provenance["weight_bits"]
    4
    """
    with installed("preparing"):
        from neuroav_export import prepare as made_ready

        given = module_inputs(model, sample)
        return made_ready(
            model,
            given,
            target=target,
            bits=bits,
            calibration=calibration,
            per_channel=per_channel,
            layer_bits=layer_bits,
            max_count=_by_name(max_count, given),
        )


def profiles() -> dict[str, str]:
    """Return the full names of the shipped hardware profiles, by id.

    >>> import neuroav
    >>> "loihi2" in neuroav.profiles()
    True
    """
    return {name: load_profile(name).title for name in list_profiles()}
