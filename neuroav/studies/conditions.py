"""The conditions of a robustness study: which disturbance, on which input, how strong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from neuroav.data.disturb import (
    add_noise,
    add_static_noise,
    drop_events,
    jitter_events,
    silence,
    streams,
)
from neuroav.data.ragged import Ragged
from neuroav.deployment import Deployment
from neuroav.simulate import Samples

BOTH = "both"
# Levels from mild to strong. Noise below 0 dB is there because rounding to whole counts removes
# weak noise from sparse counts altogether; jitter spans a fine audio bin to a whole window.
LEVELS: dict[str, tuple[float, ...]] = {
    "noise": (30.0, 25.0, 20.0, 15.0, 10.0, 5.0, 0.0, -5.0, -10.0),
    "drop": (20.0, 40.0, 60.0, 80.0, 90.0, 95.0),
    "jitter": (5.0, 10.0, 20.0, 40.0, 80.0, 160.0),
    "missing": (),
}
UNITS = {"noise": "dB", "drop": "%", "jitter": "ms", "missing": ""}
RAW = ("drop", "jitter")  # on the events before binning


@dataclass(frozen=True)
class Condition:
    """One disturbance at one strength. on: an input's name, 'both', or '' for the clean samples.

    level: dB, percent or milliseconds as ``UNITS`` says; 0 for 'missing'.
    """

    kind: str
    on: str
    level: float = 0.0

    def hits(self, modality: str) -> bool:
        """Whether it disturbs this input."""
        return self.on in (modality, BOTH)


CLEAN = Condition("clean", "")


def disturbed(
    deployment: Deployment, data: Samples, condition: Condition, seed: int
) -> dict[str, np.ndarray]:
    """Return what is fed (samples, steps, *shape) by input name under a condition.

    Counts lie in 0..max_count of their input. Sample n of the split gets the same disturbance
    whichever other samples there are.
    """
    numbers = range(len(data))
    given = dict(data.inputs)
    if condition.kind in RAW:
        frames = data.source.altered(
            partial(_alter, condition, seed, numbers), np.arange(len(data))
        )
        given = {name: getattr(frames, name) for name in given}
    for name in deployment.fed:
        static = name in deployment.static
        limit = None if static else deployment.integer.inputs[name].max_count
        if condition.kind == "noise" and condition.hits(name):
            rngs = streams(seed, f"noise on {name}", numbers)
            given[name] = (
                add_static_noise(given[name], condition.level, rngs)
                if limit is None
                else add_noise(given[name], condition.level, limit, rngs)
            )
        elif condition.kind == "missing" and condition.hits(name):
            given[name] = silence(given[name])
        if limit is not None:
            given[name] = np.minimum(given[name], limit)
    return given


def _alter(
    condition: Condition, seed: int, numbers: Sequence[int], modality: str, events: Ragged
) -> Ragged:
    """Return the events of one modality under a condition on raw events."""
    if not condition.hits(modality):
        return events
    rngs = streams(seed, f"{condition.kind} on {modality}", numbers)
    if condition.kind == "drop":
        return drop_events(events, condition.level / 100, rngs)
    return jitter_events(events, condition.level * 1000, rngs)
