"""Simulate: summary, record file, digest, and what is refused; on samples carried in the file."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import h5py
import numpy as np
import pytest
import samples

from neuroav import integer as ig
from neuroav import navfile, simulate
from neuroav.errors import ConfigError, DataError, OutOfRange
from neuroav.mapping.mapper import map_graph
from neuroav.sim import fast, reference
from neuroav.sim.trace import SpikeDigest


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("nav") / "net.nav"
    navfile.save(samples.tiny_example().build(), file)
    return file


def run(path, **options):
    return simulate.simulate(path, cache_dir=path.parent, **options)


def test_summary(path):
    found = run(path, backend="reference")
    assert found["accuracy"] == 1.0
    assert found["samples"] == 12
    assert found["steps_per_sample"] == 6
    assert found["predictions"] == [0, 1, 2] * 4
    assert found["spikes_per_sample"]["audio_lif"] > 1
    assert found["spikes_per_sample"]["head"] == 0
    assert set(found["synops_per_sample"]) == set(found["spikes_per_sample"])


def test_fast_and_reference_have_equal_digests_whatever_the_batch(path):
    options = (("reference", None), ("fast", 1), ("fast", 5), ("fast", None))
    digests = {run(path, backend=b, batch=n)["spike_digest"] for b, n in options}
    assert len(digests) == 1


def test_a_bound_on_memory_makes_batches_smaller_and_changes_nothing(path):
    deployment = navfile.load(path)
    need = fast.sample_bytes(deployment.integer)
    found = {}
    for memory, sizes in ((None, [12]), (5 * need, [5, 5, 2]), (1, [1] * 12)):
        traces = list(fast.run(deployment, deployment.probe.inputs, memory_bytes=memory))
        assert [t.samples for t in traces] == sizes
        digest = SpikeDigest(deployment.integer)
        for trace in traces:
            digest.add(trace)
        found[memory] = digest.hexdigest()
    assert len(set(found.values())) == 1
    assert run(path, backend="fast", memory_mb=1)["spike_digest"] == found[None]
    with pytest.raises(
        ConfigError, match="a bound on memory is for --backend fast, found reference"
    ):
        run(path, backend="reference", memory_mb=1)
    assert run(path, backend="fast", device="cpu")["spike_digest"] == found[None]
    with pytest.raises(ConfigError, match="a device is for --backend fast, found lava"):
        run(path, backend="lava", device="cuda")
    with pytest.raises(ConfigError, match="device is 'gpu'; the fast executor runs on cpu or cuda"):
        run(path, backend="fast", device="gpu")


def test_digest_is_what_the_contract_says(path):
    """Names and outputs, sample by sample, populations in order, int32 (time, neuron)."""
    deployment = navfile.load(path)
    expected = hashlib.sha256()
    for trace in reference.run(deployment, deployment.probe.inputs):
        for name in deployment.integer.order:
            expected.update(name.encode())
            expected.update(trace.outputs[name][0].astype("<i4").tobytes())
    assert run(path, backend="reference")["spike_digest"] == expected.hexdigest()


def test_synops_are_messages_times_their_synapses(path):
    """Counted one message at a time from an unrolled connection matrix."""
    deployment = navfile.load(path)
    graph = deployment.integer
    total = dict.fromkeys(graph.order, 0)
    for trace in reference.run(deployment, deployment.probe.inputs):
        for name in graph.order:
            pop = graph.populations[name]
            for p in pop.projections:
                for t in range(graph.steps):
                    for place in np.argwhere(trace.outputs[p.source][0, t]):
                        one = np.zeros(graph.populations[p.source].shape, np.int64)
                        one[tuple(place)] = 1
                        reached = reference.synaptic_sum(p, one, pop.shape)
                        total[name] += int((reached != 0).sum())
    found = run(path, backend="fast")["synops_per_sample"]
    assert sum(total.values()) > 1000
    assert found == {n: pytest.approx(v / 12) for n, v in total.items()}


def test_record_file(path, tmp_path):
    file = tmp_path / "r.h5"
    summary = run(path, backend="fast", batch=5, record=file)
    deployment = navfile.load(path)
    with h5py.File(file) as record:
        assert record.attrs["spike_digest"] == summary["spike_digest"]
        assert record.attrs["deployment_hash"] == deployment.content_hash
        assert set(record["outputs"]) == set(deployment.integer.order)
        assert record["outputs/audio_lif"].shape == (12, 6, 2, 3, 3)
        assert record["predictions"][()].tolist() == summary["predictions"]
        for name, mean in summary["spikes_per_sample"].items():
            assert record[f"counts/spikes/{name}"][()].mean() == pytest.approx(mean)
            synops = record[f"counts/synops/{name}"][()].mean()
            assert synops == pytest.approx(summary["synops_per_sample"][name])


def test_record_of_a_placed_network_has_its_loads(path, tmp_path):
    plain = navfile.load(path)
    placement = map_graph(plain.integer, plain.profile)
    navfile.save(replace(plain, placement=placement), tmp_path / "placed.nav")
    file = tmp_path / "r.h5"
    summary = run(tmp_path / "placed.nav", backend="fast", batch=5, record=file)
    with h5py.File(file) as record:
        synops, spikes = record["loads/synops"][()], record["loads/spikes"][()]
        run_steps = plain.integer.steps + max(plain.integer.latency.values())
        assert synops.shape == (12, run_steps, len(placement.cores))
        assert synops.sum() / 12 == pytest.approx(sum(summary["synops_per_sample"].values()))
        inside = [n for n in plain.integer.order if n not in plain.integer.inputs]
        sent = sum(summary["spikes_per_sample"][n] for n in inside)
        assert sent > 1
        assert spikes.sum() / 12 == pytest.approx(sent)
        assert set(record["loads/messages"]) == set(plain.integer.order)
        received = sum(v[()].sum() for v in record["loads/messages"].values())
        assert record["loads/messages_in"][()].sum() == received
        assert set(record["loads/links"]) == {"east", "west", "north", "south"}


def test_failed_run_leaves_no_record(path, tmp_path, monkeypatch):
    def fails(deployment, inputs, **options):
        raise OutOfRange("x: too much")
        yield

    monkeypatch.setitem(simulate.BACKENDS, "fast", lambda: fails)
    with pytest.raises(OutOfRange):
        run(path, record=tmp_path / "r.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "fas"}, ConfigError, "unknown backend 'fas': .*did you mean 'fast'"),
        ({"samples": 0}, ConfigError, "samples is 0, needs at least 1"),
        ({"batch": 0}, ConfigError, "batch is 0"),
        ({"split": "test"}, DataError, "names no data set, so it has no split 'test'"),
    ],
)
def test_bad_options(path, options, error, message):
    with pytest.raises(error, match=message):
        run(path, **options)


def test_shipped_deployment_runs(tmp_path):
    found = simulate.simulate("shipped:tiny.nav", backend="reference", cache_dir=tmp_path)
    assert found["accuracy"] == 1.0
    with pytest.raises(ConfigError, match="unknown shipped deployment 'tin.nav'.*'tiny.nav'"):
        simulate.resolve_deployment("shipped:tin.nav")


def test_first_samples_in_order(path):
    assert run(path, samples=4)["predictions"] == run(path)["predictions"][:4]


def test_readout_scores_are_the_last_frame(path):
    deployment = navfile.load(path)
    data = simulate.load_samples(deployment, split=None, samples=None, cache_dir=path.parent)
    outcome = simulate.run_backend(deployment, data, "fast")
    head = deployment.integer.populations["head"]
    assert isinstance(head, ig.IntReadout)
    assert outcome.scores.shape == (12, 3)
    assert outcome.predictions.tolist() == data.labels.tolist()
