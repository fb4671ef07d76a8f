"""A run's network as it was trained, batch norms and all: what its layers send, to compare with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from neuroav import nodes as rn
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError
from neuroav.models.layers import Lif
from neuroav.sim.trace import batches
from neuroav.training.evaluate import load_run
from neuroav_export.pipeline import real_valued
from neuroav_export.run import deployed_network

BATCH = 64
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the layers of a run send, by name of the twin's node.

    outputs: (samples, steps, *shape), computed in float32 as in training; one step after a mean
    over time. exact: the same computed in float64. currents: synaptic input of its neurons,
    float32. A layer that the network does not have under this name is missing.
    """

    outputs: Arrays
    exact: Arrays
    currents: Arrays


def run_outputs(
    run: Path,
    deployment: Deployment,
    fed: Arrays,
    *,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Any = None,
) -> Outputs:
    """Return what the layers of the run's network send for what is fed to its deployment.

    The network has its real weights, also after quantization-aware training. fed: by the names of
    ``Deployment.fed``, in any order. Raises ConfigError where the file was made from another run.
    """
    model, data, config = load_run(run, cache_dir=cache_dir, data_root=data_root, progress=progress)
    check_run(run, deployment, config.model_dump(by_alias=True))
    torch.set_num_threads(config.train.threads)
    module = real_valued(deployed_network(model, data).module)
    inputs = {n: fed[n] for n in model.inputs}  # type: ignore[union-attr]
    exact, _ = module_outputs(module, deployment, inputs, torch.float64)
    outputs, currents = module_outputs(module.float(), deployment, inputs, torch.float32)
    return Outputs(outputs, exact, currents)


def check_run(run: Path, deployment: Deployment, config: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the deployment's provenance names a run of this configuration."""
    stated = deployment.provenance.get("run")
    if not isinstance(stated, Mapping):
        raise ConfigError(
            f"{run}: the file names no run it was made from, so none can be held against it; "
            "leave --run out"
        )
    found = dict(_flat(config))
    for key, value in _flat(stated):
        if key in found and found[key] != value:
            raise ConfigError(
                f"{run}: is not the run that the file was made from: {key} is {found[key]!r}, the "
                f"file says {value!r}; give that run, or export this one"
            )


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested tables with its dotted key, sequences as lists."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", list(value) if isinstance(value, tuple) else value


def module_outputs(
    module: nn.Module, deployment: Deployment, inputs: Arrays, dtype: torch.dtype
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return what the layers of a module send and its neurons' inputs, (samples, steps, *shape).

    inputs: (samples, steps, *shape) in the order of forward's arguments. Names and values are those
    of the deployment's twin, whose means over places and steps are sums and a factor.
    """
    wanted = {n for n in deployment.real.nodes if n in deployment.integer.populations}
    sent: dict[str, list[torch.Tensor]] = {}
    received: dict[str, list[torch.Tensor]] = {}

    def keep(name: str, layer: nn.Module, given: tuple, value: torch.Tensor) -> None:
        sent.setdefault(name, []).append(value)
        if isinstance(layer, Lif):
            received.setdefault(name, []).append(given[0])

    layers = {n: m for n, m in module.named_modules() if n in wanted}
    hooks = [m.register_forward_hook(partial(keep, n)) for n, m in layers.items()]
    scores = []
    try:
        with torch.no_grad():
            for _, part in batches(inputs, BATCH):
                x = [torch.from_numpy(np.moveaxis(v, 1, 0)).to(dtype) for v in part.values()]
                scores.append(module(*x)[None])  # a mean over time has no axis of steps
    finally:
        for hook in hooks:
            hook.remove()
    sent[deployment.real.output] = scores
    fits = partial(_fits, deployment)
    outputs = {n: _array(v) / _factor(deployment, n) for n, v in sent.items() if fits(n, v[0])}
    return outputs, {n: _array(v) for n, v in received.items()}


def _fits(deployment: Deployment, name: str, value: torch.Tensor) -> bool:
    shape = deployment.integer.populations[name].shape
    return value.shape[2:] == shape and value.shape[0] in (1, deployment.integer.steps)


def _factor(deployment: Deployment, name: str) -> float:
    """Return the factor that the twin took out of a mean, 1.0 for other layers."""
    node = deployment.real.nodes.get(f"{name}.factor")
    return node.factor if isinstance(node, rn.Scale) else 1.0


def _array(parts: list[torch.Tensor]) -> np.ndarray:
    return np.moveaxis(torch.cat(parts, dim=1).numpy(), 0, 1)
