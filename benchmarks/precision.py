"""How many spikes of a trained network change where convolutions compute in bfloat16.

    python benchmarks/precision.py RUN [--samples 256]

RUN is a folder of `neuroav train`. Prints, for the first test samples in evaluation mode, the share
of places (neuron, step, sample) whose spike changes, that share against the spikes there are, by
layer, and both accuracies.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import CACHE, data_root
from torch import nn

from neuroav.models.layers import Lif
from neuroav.training.batches import to_tensors
from neuroav.training.evaluate import load_run
from neuroav.training.losses import autocast


def spikes_and_answers(model: nn.Module, inputs: list[torch.Tensor], precision: str):
    """Return spikes (bool) by layer of neurons and the predicted classes."""
    spikes: dict[str, torch.Tensor] = {}

    def note(name: str):
        return lambda module, args, out: spikes.update({name: out.bool()})

    handles = [
        m.register_forward_hook(note(n)) for n, m in model.named_modules() if isinstance(m, Lif)
    ]
    with torch.no_grad(), autocast(inputs[0].device, precision):
        answers = model(*inputs).argmax(1)
    for handle in handles:
        handle.remove()
    return spikes, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=256)
    args = parser.parse_args()
    model, data, _ = load_run(args.run, cache_dir=CACHE, data_root=data_root())
    part = data.split("test")
    frames = part.frames(np.arange(min(args.samples, len(part))))
    inputs = to_tensors(frames, model.inputs, slice(None))
    exact, answers = spikes_and_answers(model, inputs, "float32")
    lower, others = spikes_and_answers(model, inputs, "bfloat16")
    changed = {n: int((lower[n] != s).sum()) for n, s in exact.items()}
    places, count = (sum(f(s) for s in exact.values()) for f in (torch.numel, torch.sum))
    total, labels = sum(changed.values()), torch.from_numpy(frames.labels)
    print(f"{total} of {places} places change ({total / places:.2e}), {int(count)} spikes there")
    print("share of a layer's places, the most first:")
    for name in sorted(exact, key=lambda n: -changed[n] / exact[n].numel())[:5]:
        rate = float(exact[name].float().mean())
        print(f"  {name}: {changed[name] / exact[name].numel():.2e}, spike rate {rate:.3f}")
    print(f"accuracy float32 {float((answers == labels).float().mean()):.3f}, bfloat16 "
          f"{float((others == labels).float().mean()):.3f}; "
          f"{int((answers != others).sum())} of {len(labels)} answers change")  # fmt: skip


if __name__ == "__main__":
    main()
