"""What docs/frameworks.md says of the frameworks' neurons, and the import options made for them."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch

from neuroav.errors import ConfigError, UnsupportedNode
from neuroav.sim import real
from neuroav.sim.trace import collect
from neuroav_export.readers.nir import read_nir

pytestmark = pytest.mark.filterwarnings("ignore")  # of the frameworks, not of ours
DT, STEPS, WIDTH = 1e-4, 40, 6
RNG = np.random.default_rng


def events(shape=(WIDTH,), chance=0.4):
    return (RNG(1).random((8, STEPS, *shape)) < chance).astype(np.int32)


def spikes_of(graph, counts, **options):
    """Return what the last neurons of a file send by the real-valued equations."""
    options = {"dt_s": DT, "steps": STEPS} | options
    traced = read_nir(graph, **options)
    source = next(n for n, node in graph.nodes.items() if isinstance(node, nir.Input))
    found = collect(real.run(traced, {source: counts}))
    (name,) = (n for n, node in graph.nodes.items() if "LIF" in type(node).__name__)
    return found[name]


def layer(size=WIDTH, gain=0.5):
    made = torch.nn.Linear(WIDTH, size)
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(RNG(3).normal(0.15, gain, (size, WIDTH))))
        made.bias.copy_(torch.from_numpy(RNG(4).normal(0, 0.05, size)))
    return made


def in_snntorch(neuron, counts, gain=0.5):
    """Return what a layer and ``neuron`` send step by step, and both exported."""
    from snntorch.export_nir import export_to_nir

    net = torch.nn.Sequential(layer(gain=gain), neuron)
    neuron.reset_mem()
    with torch.no_grad():
        sent = [net(torch.from_numpy(counts[:, t]).float()) for t in range(STEPS)]
    neuron.reset_mem()
    graph = export_to_nir(net, torch.zeros(1, WIDTH), ignore_dims=[0])
    return torch.stack(sent, 1).numpy(), graph


def leaky(kind="Leaky", **settings):
    snn = pytest.importorskip("snntorch")
    one = torch.ones(WIDTH)
    values = {"beta": 0.8 * one, "threshold": one, "init_hidden": True}
    if kind == "Synaptic":
        values["alpha"] = 0.6 * one
    return getattr(snn, kind)(**(values | settings))


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic"])
def test_snntorch_takes_the_threshold_off_in_the_next_step(kind):
    sent, graph = in_snntorch(leaky(kind), events())
    assert 0.1 < sent.mean() < 0.9
    assert np.array_equal(spikes_of(graph, events(), reset="subtract-late"), sent)
    assert not np.array_equal(spikes_of(graph, events(), reset="subtract"), sent)


@pytest.mark.parametrize("kind", ["RSynaptic", "RLeaky"])
def test_snntorch_recurrent_neurons(kind):
    snn = pytest.importorskip("snntorch")
    from snntorch.export_nir import export_to_nir

    torch.manual_seed(0)
    one = torch.ones(WIDTH)
    values = {"alpha": 0.6 * one} if kind == "RSynaptic" else {}
    neuron = getattr(snn, kind)(
        beta=0.8 * one, threshold=one, linear_features=WIDTH, init_hidden=True, **values
    )
    net = torch.nn.Sequential(layer(), neuron)
    counts = events()
    with torch.no_grad():
        sent = [net(torch.from_numpy(counts[:, t]).float()) for t in range(STEPS)]
    neuron.reset_mem()
    graph = export_to_nir(net, torch.zeros(1, WIDTH), ignore_dims=[0])
    traced = read_nir(graph, dt_s=DT, steps=STEPS, reset="subtract-late")
    found = collect(real.run(traced, {"input": counts}))["1.lif"]
    expected = torch.stack(sent, 1).numpy()
    assert 0.1 < expected.mean() < 0.9
    assert np.array_equal(found, expected)


def test_snntorch_reset_to_zero_is_the_same_with_and_without_delay():
    for delayed in (True, False):
        neuron = leaky(reset_mechanism="zero", reset_delay=delayed)
        sent, graph = in_snntorch(neuron, events())
        assert 0.1 < sent.mean() < 0.9
        assert np.array_equal(spikes_of(graph, events()), sent)


def test_snntorch_without_delay_subtracts_at_once_below_twice_the_threshold():
    for gain, equal in ((0.1, True), (1.0, False)):
        sent, graph = in_snntorch(leaky(reset_delay=False), events(), gain)
        assert 0.02 < sent.mean() < 0.7
        assert np.array_equal(spikes_of(graph, events(), reset="subtract"), sent) == equal


def test_snntorch_synaptic_reset_to_zero_holds_the_membrane_for_a_step():
    neuron = leaky("Synaptic", reset_mechanism="zero")
    sent, graph = in_snntorch(neuron, events())
    assert sent.mean() > 0.1
    assert not (sent[:, 1:] * sent[:, :-1]).any()  # never two steps in a row
    assert (spikes_of(graph, events())[:, 1:] * spikes_of(graph, events())[:, :-1]).any()


def test_snntorch_files_need_a_decay_per_neuron():
    snn = pytest.importorskip("snntorch")
    with pytest.raises(ValueError, match="type mismatch"):
        in_snntorch(snn.Leaky(beta=0.8, init_hidden=True), events())


# --- SpikingJelly ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("LIFNode", {}),
        ("LIFNode", {"decay_input": False, "tau": 4.0}),
        ("LIFNode", {"v_reset": 0.25}),
        ("ParametricLIFNode", {"init_tau": 3.0}),
        ("CUBALIFNode", {}),
    ],
)
def test_spikingjelly_neurons(kind, settings):
    sj = pytest.importorskip("spikingjelly.activation_based.neuron")
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    net = torch.nn.Sequential(layer(gain=1.5), getattr(sj, kind)(**settings))
    counts = events()
    with torch.no_grad():
        sent = [net(torch.from_numpy(counts[:, t]).float()) for t in range(STEPS)]
    net[1].reset()
    graph = export_to_nir(net, torch.zeros(1, WIDTH), dt=DT)
    sent = torch.stack(sent, 1).numpy()
    assert 0.05 < sent.mean() < 0.9
    assert np.array_equal(spikes_of(graph, counts), sent)


def test_spikingjelly_exports_no_soft_reset():
    sj = pytest.importorskip("spikingjelly.activation_based.neuron")
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    net = torch.nn.Sequential(layer(), sj.LIFNode(v_reset=None))
    with pytest.raises(NotImplementedError, match="soft reset"):
        export_to_nir(net, torch.zeros(1, WIDTH), dt=DT)


# --- Sinabs ----------------------------------------------------------------------------------
def in_sinabs(counts, **settings):
    sl = pytest.importorskip("sinabs.layers")
    from sinabs.nir import to_nir

    net = torch.nn.Sequential(layer(gain=2.0), sl.LIF(tau_mem=5.0, **settings))
    with torch.no_grad():
        sent = net(torch.from_numpy(counts).float()).numpy()
        net[1].reset_states()
        graph = to_nir(net, torch.from_numpy(counts[:, :1]).float())
    return sent, graph


def test_sinabs_decays_exponentially_with_steps_as_unit():
    activation = pytest.importorskip("sinabs.activation")
    sent, graph = in_sinabs(events(), spike_fn=activation.SingleSpike)
    assert 0.05 < sent.mean() < 0.9
    as_written = {"dt_s": DT, "unit_s": DT, "reset": "subtract"}
    assert np.array_equal(spikes_of(graph, events(), decay="exponential", **as_written), sent)
    assert not np.array_equal(spikes_of(graph, events(), **as_written), sent)


@pytest.mark.parametrize("what", ["norm_input", "reset_fn"])
def test_sinabs_settings_that_its_files_do_not_hold(what):
    activation = pytest.importorskip("sinabs.activation")
    options = {"dt_s": DT, "unit_s": DT, "reset": "subtract", "decay": "exponential"}
    settings = {"spike_fn": activation.SingleSpike, "spike_threshold": torch.tensor(4.0)}
    if what == "norm_input":
        sent, graph = in_sinabs(events(), norm_input=False, **settings)
        (lif,) = (n for n in graph.nodes.values() if isinstance(n, nir.LIF))
        lif.v_threshold = lif.v_threshold * (1 - np.exp(-1 / 5.0))
    else:
        settings["spike_threshold"] = torch.tensor(1.0)
        sent, graph = in_sinabs(events(), reset_fn=activation.MembraneReset(), **settings)
        options["reset"] = "value"
    assert 0.05 < sent.mean() < 0.9
    assert np.array_equal(spikes_of(graph, events(), **options), sent)


def test_sinabs_sends_several_spikes_a_step_by_default():
    sent, _ = in_sinabs(3 * events(chance=0.9))
    assert sent.max() > 1


# --- options ---------------------------------------------------------------------------------
def test_late_reset_of_channels_and_its_limits():
    """A threshold per channel is a convolution onto itself; one per place has no layer."""

    def graph(threshold):
        ones = np.ones((2, 3, 3))
        lif = nir.LIF(tau=5 * DT * ones, r=5 * ones, v_leak=0 * ones, v_threshold=threshold * ones)
        nodes = {
            "in": nir.Input(np.array([2, 3, 3])),
            "LIF": lif,
            "out": nir.Output(lif.output_type),
        }
        return nir.NIRGraph(nodes, [("in", "LIF"), ("LIF", "out")])

    level = np.array([1.5, 2.5])[:, None, None]
    counts = events((2, 3, 3))
    found = spikes_of(graph(level), counts, reset="subtract-late")
    v, before, expected = np.zeros((8, 2, 3, 3)), 0.0, []
    for t in range(STEPS):
        v = 0.8 * v + counts[:, t] - level * before
        before = (v > level).astype(float)
        expected.append(before)
    assert 0.05 < found.mean() < 0.9
    assert np.array_equal(found, np.stack(expected, 1))
    places = graph(1 + np.arange(18).reshape(2, 3, 3) / 18)
    with pytest.raises(UnsupportedNode, match="differs within a channel"):
        read_nir(places, dt_s=DT, steps=4, reset="subtract-late")


def test_options_are_checked_by_name():
    graph = nir.NIRGraph(
        {"in": nir.Input(np.array([2])), "a": nir.Linear(np.ones((2, 2)))}, [("in", "a")]
    )
    with pytest.raises(ConfigError, match="'subtract-late'"):
        read_nir(graph, dt_s=DT, steps=4, reset="soft")
    with pytest.raises(ConfigError, match="'exponential'"):
        read_nir(graph, dt_s=DT, steps=4, decay="exact")
