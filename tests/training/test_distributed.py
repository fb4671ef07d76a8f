"""Training in two processes: one process's gradients and losses, one set of files, errors, kills.

Starting processes that import torch takes most of the time; they do several things each.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, nullcontext, suppress

import fake_data
import pytest
import rank_tasks
import torch
from rank_tasks import CASES, KILLED, config_of
from safetensors.torch import load_file
from torch import nn

from neuroav.cli.train import _ranks
from neuroav.errors import ConfigError
from neuroav.training import distributed, loop
from neuroav.training.checkpoint import load_last
from neuroav.training.config import load_config
from neuroav.training.distributed import Alone, Ranks, own_device
from neuroav.training.globalnorm import GlobalNorm, moments, with_global_norms

SCRIPT = rank_tasks.__file__
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "host", "MASTER_PORT": "29500"}  # fmt: skip


def free_ports(count: int) -> list[str]:
    with ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """The folder in which two processes left what ``rank_tasks.main`` does."""
    folder, ports = tmp_path_factory.mktemp("ranks"), free_ports(4)
    command = [sys.executable, SCRIPT, "spoken", str(folder)]
    both = [
        subprocess.Popen([*command, str(rank), *ports],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=280)[1] for process in both]
    finally:
        for process in both:
            process.kill()
            process.communicate()
    assert [process.returncode for process in both] == [0, 0], said
    return folder


class SameNorms(Alone):
    """One process whose batch norms compute as those of several do."""

    def prepare(self, model):
        return with_global_norms(model, lambda packed: packed)


@pytest.fixture(scope="module", params=[Alone, SameNorms])
def alone(request, tmp_path_factory):
    """The folder and metrics of the same training in this process, and how close it must be.

    torch sums the moments of its norms in single precision, ours do so in double: that is enough to
    flip a spike in the second epoch, from where on losses differ, as they do between two runs of
    one process whose weights start 1e-6 apart. With equal norms no spike flips.
    """
    out = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "load_data", fake_data.load_data)
        patch.setattr(loop, "joined", lambda ranks, device: nullcontext(request.param()))
        metrics = loop.train(config_of("add"), out, cache_dir=out)
    return out, metrics, [1e-5, 1e-5] if request.param is SameNorms else [1e-3, 0.1]


# --- one step ----------------------------------------------------------------------------------
@pytest.mark.parametrize("case", CASES)
def test_a_step_is_that_of_one_process(spoken, case):
    one = rank_tasks.step(case, Alone())
    first, second = (torch.load(spoken / f"steps{rank}.pt")[case] for rank in (0, 1))
    own = [int(found.pop("own")) for found in (one, first, second)]
    assert own == ([1, 0, 1] if case == "one sample" else [8, 4, 4])
    assert set(one) == set(first) == set(second)
    for name, value in first.items():  # both processes go on alike
        assert torch.equal(value, second[name]), name
    grads = [name for name in one if name.startswith("grad ")]
    assert len(grads) > 20
    assert int(first["hits"]) == int(one["hits"])
    loose = case == "bfloat16"  # whose last bits differ with every order of sums
    torch.testing.assert_close(first["loss"], one["loss"], rtol=1e-3 if loose else 1e-6, atol=0)
    assert _distance(first, one, grads) < (0.02 if loose else 1e-6)
    states = [n for n in one if n.startswith("state ") and "running" in n]
    assert len(states) > 10
    assert _distance(first, one, states) < (0.02 if loose else 1e-6)


def _distance(found, expected, names) -> float:
    """Return the relative distance of all these tensors together."""
    a, b = (torch.cat([side[n].double().flatten() for n in names]) for side in (found, expected))
    assert float(b.norm()) > 0
    return float((a - b).norm() / b.norm())


# --- whole trainings ---------------------------------------------------------------------------
def test_losses_are_those_of_one_process_and_one_process_writes(spoken, alone):
    out, expected, close = alone
    found = json.loads((spoken / "run" / "metrics.json").read_text())
    assert len(found["history"]) == 2
    for key in ("loss", "val_loss"):
        for one, other, far in zip(found["history"], expected["history"], close, strict=True):
            assert one[key] == pytest.approx(other[key], rel=far), key
    assert found["parameters"] == expected["parameters"]
    names = [sorted(p.name.partition(".0.")[0].partition("tfevents")[0] for p in run.iterdir())
             for run in (spoken / "run", out)]  # fmt: skip
    assert names[0] == names[1]
    shapes = [{n: v.shape for n, v in load_file(run / "model.safetensors").items()}
              for run in (spoken / "run", out)]  # fmt: skip
    assert shapes[0] == shapes[1]


def test_errors_of_one_process_end_all(spoken):
    """Expected errors of the first are those of all; another that leaves is noticed at once."""
    said = {path.stem: path.read_text() for path in spoken.glob("*.txt")}
    assert len(said) == 4
    assert said["agreed0"] == said["agreed1"] == "ConfigError: as asked"
    assert said["lost1"] == "ConfigError: as asked"
    assert said["lost0"].startswith("ExecutorError: process 0 of 2: lost the others (")
    assert said["lost0"].endswith("its own error says why; start again with --resume")
    assert not (spoken / "agreed").exists()


def test_torchrun_starts_again_what_was_killed_and_it_goes_on(spoken, tmp_path):
    """The second process kills itself after an epoch; weights are those of the undisturbed run."""
    out = tmp_path / "run"
    options = [f"--set={key}={value}" for key, value in rank_tasks.SETTINGS.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--max-restarts", "1", "--monitor-interval", "0.1", "--master-port",
               *free_ports(1), SCRIPT, "cli", "train", "--model", "add", "--out", str(out),
               "--resume", "--json", "--cache-dir", str(tmp_path), *options]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        shown, said = process.communicate(timeout=280)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said
    assert (out / KILLED).exists()
    lines = [line for line in shown.splitlines() if line]
    # the first process alone reports: the result, and unless torchrun was quicker the lost attempt
    assert all("lost the others" in line for line in lines[:-1])
    assert len(lines) <= 2
    assert json.loads(lines[-1])["epochs"] == 2
    ends = [load_last(run / "last.ckpt") for run in (spoken / "run", out)]
    assert ends[0]["model"]
    assert all(torch.equal(v, ends[1]["model"][n]) for n, v in ends[0]["model"].items())
    losses = [[h["loss"] for h in end["history"]] for end in ends]
    assert losses[0] == losses[1]


# --- parts -------------------------------------------------------------------------------------
@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_norm_of_one_share_is_torchs(momentum):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5, momentum=momentum)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    other = nn.BatchNorm2d(5, momentum=momentum)
    other.load_state_dict(norm.state_dict())
    mine = GlobalNorm(other, lambda x: x)
    assert list(mine.state_dict()) == list(norm.state_dict())
    for _ in range(3):
        x = torch.randn(6, 5, 3, 4) * 2 + 1
        ends, grads = [], []
        for module in (norm, mine):
            given = x.clone().requires_grad_()
            y = module(given)
            (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
            ends.append(y.detach())
            grads += [given.grad, module.weight.grad, module.bias.grad]
        torch.testing.assert_close(ends[1], ends[0])
        for expected, found in zip(grads[:3], grads[3:], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for expected, found in zip(norm.buffers(), mine.buffers(), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(mine.eval()(x), norm.eval()(x))


def test_moments_of_shares_are_those_of_the_whole():
    """Also far from zero, where a sum of squares in single precision would lose the variance."""
    torch.manual_seed(0)
    x = torch.randn(9, 4, 5) * 0.01 + 100
    kept: list[torch.Tensor] = []
    for part in (x[:2], x[2:2], x[2:]):
        moments(part, lambda packed: kept.append(packed.clone()) or packed + 1)
    count, mean, var = moments(x[:0], lambda packed: torch.stack(kept).sum(0))
    assert count == 45
    exact = torch.var_mean(x.double(), (0, 2), correction=0)
    torch.testing.assert_close(mean.double(), exact[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), exact[0], rtol=1e-3, atol=0)


@pytest.mark.parametrize(("count", "size"), [(10, 3), (2, 4), (7, 1)])
def test_shares_cover_a_batch_in_order(count, size):
    found: list[int] = []
    for rank in range(size):
        group = distributed.Group(Ranks(rank, size, 0, 1, "h", 1), torch.device("cpu"))
        found += range(count)[group.share(count)]
    assert found == list(range(count))


# --- what the command line reads and what is refused -------------------------------------------
def test_the_command_line_reads_what_torchrun_says():
    assert _ranks(TORCHRUN) == Ranks(1, 4, 1, 2, "host", 29500)
    assert _ranks({k: v for k, v in TORCHRUN.items() if k != "MASTER_PORT"}) is None
    assert _ranks({}) is None
    again = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2"}
    expected = Ranks(1, 4, 1, 2, "host", 29500, hosted=True, attempt=2)
    assert _ranks(TORCHRUN | again) == expected
    with pytest.raises(ConfigError, match="invalid literal.*set by torchrun"):
        _ranks({**TORCHRUN, "RANK": "one"})
    with pytest.raises(ConfigError, match=r"rank=4, size=4.*no place among processes"):
        _ranks({**TORCHRUN, "RANK": "4"})


def test_zero_shot_networks_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="'stft' trains in one process: its triplets"):
        loop.train(load_config(model="stft"), tmp_path / "run", cache_dir=tmp_path,
                   ranks=_ranks(TORCHRUN))  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_every_process_has_its_own_gpu(monkeypatch):
    ranks = Ranks(1, 2, 1, 2, "h", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device(ranks, torch.device("cuda")) == torch.device("cuda", 1)
    assert own_device(ranks, torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ConfigError, match="'cuda:0', one GPU for 2 processes"):
        own_device(ranks, torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="needs GPU 1, there are 1"):
        own_device(ranks, torch.device("cuda"))
