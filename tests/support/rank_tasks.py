"""What processes of one training do in tests: gradients of single steps, and whole trainings.

As a script: ``rank_tasks.py cli ARGS`` is the command line on the made-up data, for torchrun;
``rank_tasks.py spoken FOLDER RANK PORT...`` does everything in ``main`` in one of two processes.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    _root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(_root / "tests" / "support"), str(_root), str(_root / "export")]

import fake_data
import samples
import torch

from neuroav.errors import ConfigError, NeuroavError
from neuroav.models import build_model
from neuroav.models.segments import set_recompute
from neuroav.training import loop
from neuroav.training.config import load_config
from neuroav.training.distributed import Alone, Ranks, joined

SETTINGS = {"model.embed_dim": "8", "train.batch_size": "10", "train.epochs": "2",
            "data.steps": "4", "model.v_threshold": "0.5"}  # fmt: skip
# 48 samples: the last batch of 47 is one sample, so that of two processes one has none
CASES = {
    "add": ("add", {}),
    "one sample": ("add", {"train.batch_size": "47"}),
    "lost modalities": ("add", {"train.modality_dropout": "0.5"}),
    "recomputed": ("add", {"train.recompute": "true"}),
    "bfloat16": ("add", {"train.precision": "bfloat16"}),
    "aligned": ("scmrl", {"scmrl.residual_norm": "true"}),
    "unused": ("scmrl", {"scmrl.alpha": "0", "scmrl.alignment_weight": "0"}),
    "own heads": ("cmci", {}),
}
KILLED = "killed"  # in the run folder: one process has killed itself there


def config_of(case: str):
    model, changes = CASES[case]
    return load_config(model=model, overrides={**SETTINGS, **changes})


def step(case: str, group: Alone) -> dict[str, torch.Tensor]:
    """Return loss, gradients and running statistics after the last batch of an epoch, forwards and
    backwards from the weights that the seed gives."""
    config, data = config_of(case), fake_data.Data()
    torch.manual_seed(3)
    model = build_model(config.model, samples.SHAPES, 3, config.scmrl)
    set_recompute(model, config.train.recompute)
    run = loop._Run(config, Path("nowhere"), model, data, group)
    run.model.train()
    *_, (inputs, labels) = run._batches(0)
    run.optimizer.step = lambda: None
    loss, hits = run._step(0, inputs, labels)
    found = {
        "loss": torch.tensor(loss),
        "hits": torch.tensor(hits),
        "count": torch.tensor(len(labels)),
    }
    found["own"] = torch.tensor(inputs[0].shape[1])
    found |= {f"grad {n}": p.grad for n, p in run.model.named_parameters() if p.grad is not None}
    return found | {f"state {n}": v for n, v in run.model.state_dict().items()}


def train(out: Path, ranks: Ranks | None) -> None:
    """Train ``add`` into a folder."""
    loop.train(config_of("add"), out, cache_dir=out, ranks=ranks)


def main(folder: Path, rank: int, ports: list[int]) -> None:
    """Save every case's step, train, and tell the error of a training that one process leaves.

    ports: one for every time that the processes meet, so that none finds those of the last time.
    """
    places = [Ranks(rank, 2, rank, 2, "127.0.0.1", port) for port in ports]
    with joined(places.pop(), torch.device("cpu")) as group:
        found = {case: step(case, group) for case in CASES}
    torch.save(found, folder / f"steps{rank}.pt")
    loop.load_data = fake_data.load_data
    train(folder / "run", places.pop())
    for name, who, fail in (("agreed", 0, _refuse), ("lost", 1, _leave)):
        loop.load_data = fail if rank == who else fake_data.load_data
        try:
            train(folder / name, places.pop())
            text = "no error"
        except NeuroavError as error:
            text = f"{type(error).__name__}: {error}"
        (folder / f"{name}{rank}.txt").write_text(text)


def _refuse(*_, **__):
    raise ConfigError("as asked")


def _leave(config, **_):
    """Data whose augmentation fails in this process alone, while the other one waits for it."""
    data = fake_data.Data()
    data.split("train").augmented = _refuse
    return data


def command_line(arguments: list[str]) -> None:
    """Be ``neuroav`` on the made-up data; the second process kills itself once, after an epoch."""
    from neuroav.cli.group import cli

    out = Path(arguments[arguments.index("--out") + 1])
    loop.load_data = fake_data.load_data
    real = loop._Run._epoch

    def epoch(self, number):
        if number == 1 and os.environ["RANK"] == "1" and not (out / KILLED).exists():
            (out / KILLED).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, number)

    loop._Run._epoch = epoch
    cli.main(arguments, prog_name="neuroav")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "cli":
        command_line(sys.argv[2:])
    else:
        main(Path(sys.argv[2]), int(sys.argv[3]), [int(port) for port in sys.argv[4:]])
