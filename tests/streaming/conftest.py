"""Deployments and recordings to stream: real ones where given, and made-up ones in true formats."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import samples
import torch
from streams import made_up_events, made_up_sound, write_wave

from neuroav import data
from neuroav.data.formats.nmnist import write_nmnist
from neuroav.models import build_model
from neuroav.navfile import save
from neuroav.training.config import ModelConfig
from neuroav_export import compile_module

DATA = {"name": "nmnist-fsdd", "preset": "default", "seed": 0, "steps": 4, "visual_size": 16}


def deployment_of(inputs, steps=4, name="add", **more):
    """An untrained network on these frames, as if trained on nmnist-fsdd."""
    torch.manual_seed(0)
    config = ModelConfig(name=name, v_threshold=0.35, embed_dim=8)
    model = build_model(config, samples.SHAPES, 10)
    run = {"run": {"data": {**DATA, "steps": steps}}, "data_hash": "0" * 64}
    inputs = {n: inputs[n] for n in model.inputs}
    tensors = [torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs.values()]
    model.train()
    with torch.no_grad():  # norms that fit what these sensors give
        for _ in range(12):
            model(*tensors)
    model.eval()
    classes = tuple(f"digit {d}" for d in range(10))
    return compile_module(model, inputs, classes=classes, provenance={**run, **more})


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """(deployment, test frames, [(wav, bin)]) of the first real pairs of nmnist-fsdd."""
    value = os.environ.get("NEUROAV_DATA")
    if not value:
        pytest.skip("NEUROAV_DATA is not set; it names a folder with third-party recordings")
    root, cache = Path(value), tmp_path_factory.mktemp("cache")
    loaded = data.load(
        "nmnist-fsdd", cache_dir=cache, data_root=root, limit=40, spec=data.FrameSpec(steps=4)
    )
    split = loaded.split("test")
    frames = split.frames()
    whole = {"audio": frames.audio, "visual": frames.visual}
    files = []
    for i in range(len(split)):
        source = split.raw_events(i)["source"]
        files.append(tuple(root / source[k].decode() for k in ("sound_file", "picture_file")))
    return deployment_of(whole), whole, files


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """(wav, bin): 3.3 s of made-up sound and events."""
    folder = tmp_path_factory.mktemp("recorded")
    write_nmnist(folder / "eye.bin", made_up_events(3.3))
    return write_wave(folder / "ear.wav", made_up_sound(3.3)), folder / "eye.bin"


@pytest.fixture(scope="session")
def both(tmp_path_factory):
    """A FILE.nav of a network of both senses, and one of the camera alone."""
    folder = tmp_path_factory.mktemp("deployed")
    inputs = samples.poisson_inputs(16, 4)
    save(deployment_of(inputs), folder / "both.nav")
    save(deployment_of(inputs, name="visual"), folder / "eye.nav")
    return folder / "both.nav", folder / "eye.nav"
