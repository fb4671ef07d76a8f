"""Every own process sends what Lava's own processes send."""

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.lava

CONVOLUTIONS = (
    "plain",
    "strided",
    "dilated",
    "grouped",
    "depthwise",
    "pointwise",
    "one pixel",
    "large",
)


@pytest.fixture(scope="module")
def sent(script, tmp_path_factory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("own-and-stock")
    script(str(Path(__file__).parent / "run_own_and_stock.py"), str(folder))
    with np.load(folder / "results.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_matrix_conv_is_lavas_conv(sent, name):
    own, stock = sent[f"conv/own conv {name}"], sent[f"conv/stock conv {name}"]
    assert not own[0].any()  # latency 1
    assert own[1].any()
    assert (own < 0).any()
    assert np.array_equal(own, stock)
    if name == "large":
        assert np.abs(own).max() > 1 << 21


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_delay_is_a_chain_of_identity_connections(sent, steps):
    own = sent[f"delay/own delay {steps}"]
    assert np.array_equal(own, sent[f"delay/chain delay {steps}"])
    assert not own[:steps].any()
    assert own[steps].any()
    assert (own < 0).any()


def test_accumulator_is_lavas_sigma(sent):
    assert np.array_equal(sent["sum/own sum"], sent["sum/sigma sum"])
    assert len(np.unique(sent["sum/own sum"])) > 20


def test_accumulator_with_bias_and_reset_is_a_lif_that_never_fires(sent):
    own, voltage = sent["sum/own readout"], sent["sum/lif voltage"]
    assert np.array_equal(own * 64, voltage)
    assert np.abs(own[-1]).max() > 5


def test_attention_is_its_stock_network(sent):
    own, stock = sent["attention/own spatial 0"], sent["attention/stock spatial"]
    assert own.max() > 4  # sums over tokens and channels
    assert (own == 0).any()
    assert np.array_equal(stock[3:].reshape(own[3:].shape), own[:-3])  # three connections later


@pytest.mark.parametrize("cap", [0, 3])
def test_attention_over_frames_is_attention_over_tokens(sent, cap):
    over_tokens, over_frames = (sent[f"attention/own {k} {cap}"] for k in ("spatial", "temporal"))
    frames = over_tokens.shape[1]
    samples = len(over_frames) // frames - 1  # answers come a sample later
    assert samples > 2
    found = over_frames[frames:].reshape(samples, frames, -1)
    assert np.array_equal(found, over_tokens[:samples])
    assert found.max() == (cap or over_tokens[:samples].max())


def test_time_sum_is_the_voltage_of_a_neuron_that_never_fires(sent):
    sums, voltage = sent["time/own time sum"], sent["time/lif voltage"] // 64
    first, steps = 3 - 1, 6  # row of frame 0 of a sample, frames
    for start in range(first + steps, len(sums), steps):
        held = sums[start : start + steps]
        assert (held == voltage[start - 1]).all()
    assert len(np.unique(sums)) > 10


def test_recorder_keeps_what_lavas_sink_keeps(sent):
    stock = {key: value for key, value in sent.items() if "stock sink: " in key}
    assert len(stock) > 25
    for key, value in stock.items():
        assert np.array_equal(sent[key.replace("stock sink: ", "")], value), key


def test_checked_models_compute_what_lavas_models_compute(sent):
    for name in ("lif", "graded", "voltage", "strong lif", "product"):
        assert np.array_equal(sent[f"checked/{name}"], sent[f"plain/{name}"])
        assert sent[f"plain/{name}"].any()
    assert np.array_equal(sent["checked/recorded voltage"], sent["checked/voltage"])
    assert 0.05 < sent["plain/lif"].mean() < 0.9
    assert (sent["plain/graded"] < 0).any()
