"""Layers that remember, against Norse's own."""

from __future__ import annotations

import norse.torch as norse
import pytest
import torch
from torch import nn

from neuroav.models.layers import (
    BatchFirst,
    Delay,
    Li,
    Lif,
    LifParameters,
    RecurrentLif,
    Steps,
    TimeLast,
    TimeMean,
    WholeSample,
)

X = torch.rand(9, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_recurrent_neurons_with_current_are_those_of_norse():
    torch.manual_seed(1)
    p = norse.LIFParameters(tau_mem_inv=torch.tensor(500.0), tau_syn_inv=torch.tensor(250.0))
    theirs = norse.LIFRecurrent(6, 8, p=p, autapses=True).double()
    ours = RecurrentLif(nn.Linear(8, 8, bias=False), LifParameters(2e-3), tau_syn_s=4e-3).double()
    ours.recurrent.weight.data = theirs.recurrent_weights.data
    expected, _ = theirs(X)
    found = ours(nn.functional.linear(X, theirs.input_weights))
    assert 0.05 < expected.mean() < 0.9
    assert torch.equal(found, expected)
    found.sum().backward()
    assert ours.recurrent.weight.grad.abs().sum() > 0


def test_recurrent_neurons_without_synapses_are_lif_neurons():
    recurrent = nn.Linear(6, 6, bias=False).double()
    nn.init.zeros_(recurrent.weight)
    p = LifParameters(4e-3, v_threshold=0.25)
    spikes = RecurrentLif(recurrent, p)(X)
    assert 0.05 < spikes.mean() < 0.9
    assert torch.equal(spikes, Lif(p)(X))
    softer = RecurrentLif(recurrent, p, reset="subtract")(X)
    assert softer.sum() > spikes.sum()


def test_leaky_membranes_are_those_of_norse():
    p = norse.LIParameters(torch.tensor(250.0), torch.tensor(125.0), torch.tensor(0.5))
    expected, _ = norse.LI(p)(X)
    torch.testing.assert_close(Li(8e-3, 4e-3, 0.5)(X), expected, rtol=0, atol=1e-7)
    box, state = norse.LIBoxCell(norse.LIBoxParameters(torch.tensor(125.0))), None
    for frame in X:
        last, state = box(frame, state)
    torch.testing.assert_close(TimeLast()(Li(8e-3)(X)), last, rtol=0, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 3, 9, 20])
def test_a_delay_gives_what_was_before(steps):
    found = Delay(steps)(X)
    for t in range(len(X)):
        before = X[t - steps] if t >= steps else torch.zeros_like(X[0])
        assert torch.equal(found[t], before)


def test_a_delay_takes_a_step():
    with pytest.raises(ValueError, match="takes 1 step and more, got 0"):
        Delay(0)


def test_wrappers_run_a_network_of_one_step_of_every_step_and_of_samples_first():
    torch.manual_seed(2)
    cells = norse.SequentialState(nn.Linear(6, 4), norse.LIFBoxCell(), nn.Linear(4, 3)).double()
    state, outs = None, []
    for frame in X:
        out, state = cells(frame, state)
        outs.append(out)
    scores = torch.stack(outs)
    assert torch.equal(Steps(cells)(X), scores.mean(0))
    assert torch.equal(Steps(cells, "sum")(X), scores.sum(0))
    assert torch.equal(Steps(cells, "last")(X), scores[-1])
    plain = nn.Linear(6, 3).double()
    assert torch.equal(WholeSample(plain)(X), plain(X).mean(0))
    swapped = WholeSample(plain, "last", batch_first=True)(X)
    torch.testing.assert_close(swapped, plain(X)[-1])
    first = BatchFirst(nn.Sequential(plain, TimeMean()))
    torch.testing.assert_close(first(X), plain(X).mean(1))
