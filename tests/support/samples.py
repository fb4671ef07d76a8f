"""Small networks and inputs shared by tests."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch

from neuroav.files import seal
from neuroav.models import build_model
from neuroav.training.config import ModelConfig, ScmrlConfig

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {"audio": (8, 8, 8), "visual": (2, 16, 16)}


def load_script(path: Path):
    """Return a module loaded from a file, e.g. an example (its folder becomes importable)."""
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(path.parent))


@contextmanager
def edited_hdf5(path: Path):
    """Open a sealed HDF5 file for changes, and seal it again: damage that its seal cannot show."""
    with h5py.File(path, "r+") as file:
        yield file
    seal(path)


def tiny_example():
    return load_script(ROOT / "examples" / "tiny.py")


def poisson_inputs(
    samples: int, steps: int, seed: int = 0, rate: float = 0.7, names=("audio", "visual")
):
    """Return event counts (samples, steps, *shape) by input name."""
    rng = np.random.default_rng(seed)
    return {n: rng.poisson(rate, (samples, steps, *SHAPES[n])).astype(np.int32) for n in names}


def warmed_model(name: str = "add", steps: int = 4, seed: int = 0, **config):
    """Return an untrained model in evaluation mode whose neurons fire and whose norms are set."""
    torch.manual_seed(seed)
    model = build_model(
        ModelConfig(name=name, v_threshold=0.35, **{"embed_dim": 8, **config}), SHAPES, 10
    )
    inputs = poisson_inputs(16, steps, seed, names=model.inputs)
    tensors = [torch.from_numpy(np.moveaxis(inputs[n], 1, 0)).float() for n in model.inputs]
    model.train()
    with torch.no_grad():
        for _ in range(30):
            model(*tensors)
    return model.eval()


def awake_scmrl(
    steps: int = 4, seed: int = 0, embed_dim: int = 32, stem: str = "compact", **switches
):
    """Return an untrained scmrl in evaluation mode in which every neuron layer fires.

    Norms and the residuals' layers are raised for that; switches: of ``ScmrlConfig``.
    """
    torch.manual_seed(seed)
    config = ModelConfig(name="scmrl", v_threshold=0.4, embed_dim=embed_dim, stem=stem)
    model = build_model(config, SHAPES, 10, ScmrlConfig(**switches))
    return wake(model, steps, seed)


def wake(model, steps: int = 4, seed: int = 0):
    """``wake_inputs`` with random inputs for sound and pictures."""
    return wake_inputs(model, poisson_inputs(8, steps, seed), seed)


def wake_inputs(model, inputs, seed: int = 0):
    """Set a cross-modal network's norms on these inputs and raise them until all layers fire."""
    tensors = [torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs.values()]
    model.train()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _ in range(30):
            model(*tensors)
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                p.mul_(1.6)
            elif name.endswith("norm.bias"):
                p.add_(0.5)
            elif name.startswith("cross") and name.endswith("linear.layer.weight"):
                p.mul_(4)
            elif name.startswith("cross") and name.endswith("linear.layer.bias"):
                p.copy_(torch.rand(p.shape, generator=generator) - 0.35)
    return model.eval()
