"""What would make a layer fit that no split makes fit, and what that costs: one sentence each."""

from __future__ import annotations

from math import ceil, isqrt

import numpy as np

from neuroav import integer as ig
from neuroav.synapses import kernel

HOPELESS = "no change of the network helps; take another target"


def counted(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def fewer_inputs(name: str, pop: ig.Population, found: float, allowed: float, graded: bool) -> str:
    """Return how a neuron gets along with ``allowed`` of something that grows with its inputs.

    graded: whether the target's messages carry integers, so that sums can be sent.
    """
    if allowed < 1:
        return HOPELESS
    if isinstance(pop, ig.ATTENTION_CLASSES):
        return smaller_heads(pop, found, allowed)
    share = found / allowed
    if graded:
        parts = ceil(share)
        return (
            f"{parts} layers of sums (IntSum) before {name}, each of 1/{parts} of its inputs, "
            f"would fit; they take {parts * pop.neurons:,} neurons and one step more"
        )
    widest = max(pop.projections, key=_inputs)
    if isinstance(widest, ig.IntConv2d) and (groups := _groups(widest, share)):
        return (
            f"a convolution in {groups} groups would fit; every output channel then sees "
            f"1/{groups // widest.groups} of the channels that it sees now, so train again"
        )
    inputs = _inputs(widest)
    return (
        f"{max(1, int(inputs / share)):,} of the {inputs:,} synapses per neuron would fit; prune "
        "the others and train again"
    )


def _inputs(p: ig.Projection) -> int:
    """Return the most non-zero synapses of a neuron."""
    if isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d, ig.IntDense)):
        some = (p.weight if isinstance(p, ig.IntDense) else kernel(p)) != 0
        return int(some.reshape(len(some), -1).sum(axis=1).max(initial=0))
    return p.kernel[0] * p.kernel[1] if isinstance(p, ig.IntPool) else 1


def _groups(p: ig.IntConv2d, share: float) -> int | None:
    """Return the smallest number of groups that divides a neuron's inputs by ``share``."""
    out, inputs = p.weight.shape[0], p.weight.shape[1] * p.groups
    fitting = [
        g
        for g in range(p.groups + 1, inputs + 1)
        if inputs % g == 0 and out % g == 0 and g >= p.groups * share
    ]
    return fitting[0] if fitting else None


def smaller_heads(pop: ig.Population, found: float, allowed: float) -> str:
    """Return the attention that fits where one head, or one token of all heads, does not."""
    assert isinstance(pop, ig.ATTENTION_CLASSES)
    if pop.form == "score":
        percent = isqrt(int(allowed / found * 10_000))  # sums over pairs of them
        if pop.holds:
            return f"samples with {percent} % of the frames would fit; train again"
        return f"{percent} % of the tokens would fit: a larger stride before, and train again"
    width, count = pop.head_channels, pop.heads
    # state of a head grows with the square of its channels; of all heads of a token, in proportion
    whole = isinstance(pop, ig.IntTemporalAttention) and pop.scrambled
    for heads in range(count + 1, pop.shape[0] + 1):
        part = pop.shape[0] // heads
        ratio = part / width if whole else (part / width) ** 2
        if pop.shape[0] % heads == 0 and found * ratio <= allowed:
            return (
                f"{heads} heads instead of {count} would fit; queries and keys are then compared "
                f"in {counted(part, 'channel')} instead of {width}, so train again"
            )
    return "fewer channels would fit; train again"


def copies(name: str, neurons: int, found: float, allowed: float, whose: str) -> str:
    """Return how a neuron gets along with ``allowed`` of what grows with its readers."""
    if allowed < 1:
        return HOPELESS
    count = ceil(found / allowed)
    return (
        f"{count} copies of {name} would fit, each for 1/{count} of {whose}; they take "
        f"{counted((count - 1) * neurons, 'neuron')} more"
    )


def relays(source: str, neurons: int, delay: int, allowed: int) -> str:
    """Return how messages wait ``delay`` steps where a synapse waits at most ``allowed``."""
    count = ceil((delay + 1) / (allowed + 1)) - 1
    return (
        f"{counted(count, 'layer')} of relays of {source} in between would fit; they take "
        f"{counted(count * neurons, 'neuron')} more"
    )


def unit_name(pop: ig.Population, units: tuple[int, ...]) -> str:
    """Return what of a population cannot be split."""
    if isinstance(pop, ig.IntWinner):
        return f"its {pop.neurons:,} rivals"
    if isinstance(pop, ig.IntSpatialAttention):
        return "one head"
    if isinstance(pop, ig.IntTemporalAttention):
        return "one token" if units[0] == pop.shape[0] else "one head of one token"
    return "one neuron"


def axes_text(shape: ig.Shape, parts: tuple[int, ...]) -> str:
    """Return how a layer is cut, in words: its 256 output channels over 3 cores."""
    channels = "output channels" if len(shape) > 1 else "neurons"
    along = []
    if parts[0] > 1:
        along.append(f"its {shape[0]:,} {channels} over {parts[0]:,}")
    if any(p > 1 for p in parts[1:]):
        places = " x ".join(f"{s:,}" for s in shape[1:])
        along.append(f"its {places} places over {' x '.join(f'{p:,}' for p in parts[1:])}")
    return (
        f"{' and '.join(along)} cores"
        if along
        else f"it off into 1 core of {np.prod(shape):,} neurons"
    )
