"""``--record FILE.h5``: the output of every population, sample by sample, with the event counts.

Layout: group ``outputs``, one dataset per population, (sample, time, ...) int32, in the
population's own time frame; group ``states`` likewise where recorded; datasets ``predictions``,
``labels``; attributes format, version, backend, deployment_hash, spike_digest; group ``counts``
with per-sample ``spikes/<population>`` and ``synops/<population>``.

Of a deployment with a placement also group ``loads``: ``synops``, ``spikes``, ``messages_in``
(sample, chip step, core) int64 of every sample alone, ``neurons`` (core), mean messages per sample
over each link ``links/<direction>`` (row, column of the board), and per-sample
``messages/<population>``, ``hops_x/...``, ``hops_y/...``, ``chip_messages/...``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from neuroav.counts import Counts
from neuroav.files import written_whole
from neuroav.loads import Loads
from neuroav.sim.trace import Trace


class RecordWriter:
    """Appends traces to an open record file; made by ``open_record``."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def add(self, trace: Trace) -> None:
        """Append the samples of a trace."""
        for group, arrays in (("outputs", trace.outputs), ("states", trace.states)):
            for name, value in arrays.items():
                self._append(f"{group}/{name}", value)

    def _append(self, name: str, value: np.ndarray) -> None:
        if name not in self._file:
            self._file.create_dataset(
                name,
                data=value,
                maxshape=(None, *value.shape[1:]),
                chunks=(1, *value.shape[1:]),
                compression="lzf",
            )
            return
        data = self._file[name]
        data.resize(len(data) + len(value), axis=0)
        data[-len(value) :] = value

    def finish(
        self,
        counts: Counts,
        predictions: np.ndarray,
        labels: np.ndarray,
        digest: str,
        loads: Loads | None = None,
    ) -> None:
        """Add what is known only at the end; loads: events by core and link, if there are."""
        self._file.attrs["spike_digest"] = digest
        self._file["predictions"], self._file["labels"] = predictions, labels
        for name, spikes in counts.spikes.items():
            self._file[f"counts/spikes/{name}"] = spikes
            kinds = counts.synops[name].values()
            self._file[f"counts/synops/{name}"] = sum(kinds, np.zeros_like(spikes))
        if loads:
            self._add_loads(loads)

    def _add_loads(self, loads: Loads) -> None:
        for key in ("synops", "spikes", "messages_in", "neurons"):
            data = getattr(loads, key)
            self._file.create_dataset(f"loads/{key}", data=data, compression="lzf")
        for direction, traffic in loads.links.items():
            self._file[f"loads/links/{direction}"] = traffic
        for name, sent in loads.layers.items():
            for key in ("messages", "hops_x", "hops_y", "chip_messages"):
                self._file[f"loads/{key}/{name}"] = getattr(sent, key)
        for name, messages in loads.inputs.items():
            self._file[f"loads/messages/{name}"] = messages


@contextmanager
def open_record(path: str | Path, attributes: dict[str, str]) -> Iterator[RecordWriter]:
    """Yield a writer; the file appears under ``path`` only when the block ends well."""
    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": "neuroav-record", "version": 1, **attributes})
        yield RecordWriter(file)
