"""The chain of stages, each against the one before it: how much changes, and where it begins.

float -> folded -> fake-quantized -> integer. ``docs/exactness.md`` says what the stages are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.deployment import Deployment
from neuroav.explain.fake import fake_outputs
from neuroav.explain.recompute import Drive, integer_drive, port_sums, real_outputs
from neuroav.explain.rederive import derive
from neuroav.explain.swaps import at, first_difference, kept, sides
from neuroav.explain.twin import Twin, agreement, is_spiking
from neuroav.quantization import neuron_threshold
from neuroav.sim import real
from neuroav.sim.trace import collect

Messages = Mapping[str, np.ndarray]
CHAIN = {"folded": "float", "fake_quantized": "folded", "integer": "fake_quantized"}
NOT_COMPARED = "not compared: give --run RUN, the folder it was trained in"


class Unfolded(Protocol):
    """The float network as it was trained, batch norms and all, on the same samples.

    outputs: float32 (samples, steps, *shape) by name of the twin's node; exact: the same computed
    in float64; currents: synaptic input of its neurons, float32.
    """

    outputs: Messages
    exact: Messages
    currents: Messages


@dataclass(frozen=True, eq=False)
class Values:
    """What a population sends at every stage, real values (samples, steps, *shape).

    float, folded, fake, integer: each stage run on its own. own_folded, own_fake: what the stage
    gives for the messages that the integer network got. None where a stage has no such node.
    """

    float: np.ndarray | None
    folded: np.ndarray | None
    fake: np.ndarray
    integer: np.ndarray
    own_folded: np.ndarray | None
    own_fake: np.ndarray

    def pair(self, stage: str, own: bool) -> tuple[np.ndarray, np.ndarray] | None:
        """Return what the stage before gives, and the stage; None where either has no node.

        own: on the same messages, which the float network does not take.
        """
        before, after = {
            ("folded", False): (self.float, self.folded),
            ("fake_quantized", False): (self.folded, self.fake),
            ("fake_quantized", True): (self.own_folded, self.own_fake),
            ("integer", False): (self.fake, self.integer),
            ("integer", True): (self.own_fake, self.integer),
        }.get((stage, own), (None, None))
        return None if before is None or after is None else (before, after)


@dataclass(frozen=True, order=True)
class Place:
    """Where a stage first changes an output; spikes come before graded values."""

    graded: bool
    sample: int
    step: int
    rank: int
    index: tuple[int, ...]
    name: str = field(compare=False)
    values: tuple[float, float] = field(compare=False)


@dataclass(eq=False)
class Chain:
    """All stages of a deployment on the same samples, and what was counted of them so far."""

    deployment: Deployment
    messages: Messages
    fed: Messages
    unfolded: Unfolded | None
    twin: Twin = field(init=False)
    folded: Messages = field(init=False)
    fake: Messages = field(init=False)
    _counts: dict[tuple[str, bool], np.ndarray] = field(init=False, default_factory=dict)
    _firsts: dict[str, Place] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.twin = Twin(self.deployment, self.messages, self.fed)
        self.folded = collect(real.run(self.deployment.real, self.fed))
        self.fake = fake_outputs(self.deployment, self.twin, self.fed, self.folded)

    def values(self, name: str) -> Values:
        """Return what population ``name`` sends at every stage."""
        graph, twin, d = self.deployment.integer, self.twin, self.deployment
        pop, given = graph.populations[name], self.unfolded.outputs if self.unfolded else {}
        known = twin.covers(name)
        own = self.fake[name]
        if name not in d.host:  # a host layer gets what was fed, at every stage
            own = real_outputs(graph, name, pop, self.messages, d.profile.arithmetic)
        trained = given.get(name) if known else None
        return Values(
            None if trained is None else twin.cut(name, trained),
            twin.cut(name, self.folded[name]) if known else None,
            twin.meaning(name, self.fake[name]),
            twin.deployed(name),
            twin.own(name) if known else None,
            twin.meaning(name, own),
        )

    def row(self, name: str, values: Values) -> dict[str, Any]:
        """Return by stage the share of places where it agrees with the one before; count them."""
        graph = self.deployment.integer
        spikes = is_spiking(graph.populations[name])
        result: dict[str, Any] = {}
        for stage in CHAIN:
            shares: list[float | None] = []
            for own in (False, True):
                pair = values.pair(stage, own)
                if pair is None:
                    shares.append(None)
                    continue
                same = agreement(pair[1], pair[0], graph.scales[name], spikes)
                shares.append(float(same.mean()))
                if spikes:
                    total = self._counts.setdefault((stage, own), np.zeros(2, np.int64))
                    total += (int(same.sum()), same.size)
                if own or stage == "folded":
                    self._first(stage, name, same, pair)
            result[stage] = {"agreement": shares[0], "own_agreement": shares[1]}
        return result

    def _first(self, stage: str, name: str, same: np.ndarray, pair: tuple) -> None:
        if same.all():
            return
        sample, step, *index = (int(i) for i in np.argwhere(~same)[0])
        behind = step - same.shape[1]  # from the end: a value after a mean has the last step alone
        before, after = (float(v[(sample, behind, *index)]) for v in pair)
        graph = self.deployment.integer
        found = Place(
            not is_spiking(graph.populations[name]),
            sample,
            graph.steps + behind,
            graph.order.index(name),
            tuple(index),
            name,
            (before, after),
        )
        self._firsts[stage] = min(found, self._firsts.get(stage, found))

    def summary(self, rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the stages in order, once every row is made; rows: of the layers, by name."""
        result = []
        for stage, before in CHAIN.items():
            compared = stage != "folded" or self.unfolded is not None
            shares = [self._share(stage, own) for own in (False, True)]
            place = self._firsts.get(stage)
            result.append(
                {
                    "stage": stage,
                    "against": before,
                    "compared": compared,
                    "why_not": None if compared else NOT_COMPARED,
                    "agreement": shares[0],
                    "own_agreement": shares[1],
                    "first": place and self._described(stage, place, rows[place.name]),
                }
            )
        return result

    def _share(self, stage: str, own: bool) -> float | None:
        same, places = self._counts.get((stage, own), (0, 0))
        return float(same / places) if places else None

    def _described(self, stage: str, place: Place, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the first output that a stage changes, with cause and both sides' quantities."""
        found: dict[str, Any] = {
            "node": place.name,
            "sample": place.sample,
            "step": place.step,
            "index": list(place.index),
            "values": list(place.values),
            "cause": None,
            "quantities": None,
            "unit": None,
        }
        if stage == "folded":
            return found | self._float_against_folded(place)
        pop = self.deployment.integer.populations[place.name]
        if stage == "integer":
            return found | self._fake_against_integer(place, pop)
        derived = derive(self.deployment, place.name)
        if derived is None or not isinstance(pop, ig.IntLif):
            return found | {"cause": row.get("first", {}).get("cause")}
        d, twin = self.deployment, self.twin
        both = sides(d, place.name, twin, derived, self.messages).untruncated()
        told = first_difference(
            both, (place.sample, place.step, place.index), bool(place.values[0])
        )
        one = both.only(place.sample, place.index)
        return found | {
            "cause": told["cause"],
            "quantities": [at(side, place.step)[1] for side in (one.float, one.integer)],
            "unit": float(one.worth),
        }

    def _fake_against_integer(self, place: Place, pop: ig.Population) -> dict[str, Any]:
        if place.name in self.deployment.host:
            return {"cause": "rounding of the message"}
        if not isinstance(pop, ig.IntLif):
            return {"cause": "truncation"}
        graph, arith = self.deployment.integer, self.deployment.profile.arithmetic
        sums = port_sums(graph, place.name, pop, self.messages)[0]
        one = integer_drive(pop, sums, arith).only(place.sample, place.index)
        both = (replace(one, whole=False), one)
        return {
            "cause": "truncation",
            "quantities": [at(side, place.step)[1] for side in both],
        }

    def _float_against_folded(self, place: Place) -> dict[str, Any]:
        assert self.unfolded is not None
        graph, name = self.deployment.real, place.name
        behind = place.step - self.deployment.integer.steps
        exact = float(self.unfolded.exact[name][(place.sample, behind, *place.index)])
        cause = "float32 arithmetic" if exact == place.values[1] else "other weights"
        node, current = graph.nodes[name], self.unfolded.currents.get(name)
        if not isinstance(node, (rn.Lif, rn.If)) or current is None:
            return {"cause": cause}
        drive = Drive(
            current.astype(np.float64),
            np.zeros(1),
            np.asarray(neuron_threshold(node, graph.dt_s)),
            **kept(node, graph.dt_s),
            whole=False,
        )
        folded = replace(drive, current=self.folded[graph.inputs[name][0]].astype(np.float64))
        told = [at(s.only(place.sample, place.index), place.step)[1] for s in (drive, folded)]
        for quantities in told:
            del quantities["bias"]  # is part of the synaptic sum here
        return {"cause": cause, "quantities": told, "unit": 1.0}
