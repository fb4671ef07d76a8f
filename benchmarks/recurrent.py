"""A recurrent network with synaptic currents on speech: 8 bits after training, 4 bits aware.

    NEUROAV_DATA=... python benchmarks/recurrent.py --out runs/recurrent

Spoken digits of the Free Spoken Digit Dataset, as `nmnist-fsdd` hears them. `--test recordings`:
the first ten recordings of each digit by each of the four speakers are the test (400, validation
200, training 1400). `--test speaker`: all 500 of a speaker who is heard nowhere else. 64 cochlear
channels in 32 steps of 20 ms -> linear -> 128 recurrent LIF with synaptic currents -> linear ->
leaky readout, its last membrane the answer. Trains what is not trained yet, deploys it at 8 and 4
bits, per tensor and per channel, goes on training with the deployed integers (`prepare` and a plain
loop), and prints change of accuracy in points and agreement per test sample with the float network.
`results.json` keeps every figure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import torch
from torch import nn

from neuroav import data, integer
from neuroav.data.augment import augment_audio
from neuroav.data.avdata import AVSplit
from neuroav.data.frames import FrameSpec, bin_audio
from neuroav.deployment import Deployment
from neuroav.models.layers import Li, LifParameters, PerStep, RecurrentLif, TimeLast
from neuroav.quantization import RANGE_SAMPLES
from neuroav.sim import fast
from neuroav.sim.trace import collect
from neuroav_export import compile_module, prepare

SPEC = FrameSpec(steps=32, audio_channels=1, audio_rows=64, audio_fine_bins=1)
DT_S = 0.02
HIDDEN, BATCH = 128, 64
MOST = 7  # of a cell: a cochlear channel is silent for 3 ms after a spike
SPARSE = 0.3  # of the loss, per spike and neuron and step, while the float network is trained
CHECKED = 64  # samples whose every message is compared with that of the prepared network


class Spoken(nn.Module):
    """Event counts (T, B, 1, 64, 1) to class scores (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        neuron = LifParameters(tau_mem_s=0.06, dt_s=DT_S, v_threshold=0.3)
        self.flat, self.fc = PerStep(nn.Flatten()), PerStep(nn.Linear(64, HIDDEN))
        recurrent = nn.Linear(HIDDEN, HIDDEN, bias=False)
        nn.init.orthogonal_(recurrent.weight, 0.5)
        self.rnn = RecurrentLif(recurrent, neuron, tau_syn_s=0.04)
        self.head, self.li, self.last = nn.Linear(HIDDEN, 10), Li(0.3, dt_s=DT_S), TimeLast()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.li(self.head(self.rnn(self.fc(self.flat(x))))))


@dataclass(frozen=True)
class Training:
    """A plain loop: Adam with a cosine, augmented anew in every epoch."""

    epochs: int
    learning_rate: float


FLOAT, AWARE = Training(60, 3e-3), Training(12, 1e-3)


def splits(test: str) -> Mapping[str, AVSplit]:
    """Return train, val, test; test: 'speaker' as the data set has it, or 'recordings'."""
    found = data.load("nmnist-fsdd", preset="default", data_seed=0, spec=SPEC,
                      cache_dir=common.CACHE, data_root=common.data_root())  # fmt: skip
    names = ("train", "val", "test")
    if test == "speaker":
        return {name: found.split(name) for name in names}
    all_ = found.split("train").recordings
    files = [name.decode() for name in all_.source["sound_file"]]
    take = np.array([int(re.search(r"_(\d+)\.wav$", file)[1]) for file in files])
    rows = dict(zip(names, (take >= 15, (take >= 10) & (take < 15), take < 10), strict=True))
    return {
        name: AVSplit(name, all_.labels[mine], all_, np.flatnonzero(mine), SPEC)
        for name, mine in rows.items()
    }


def augmented(split: AVSplit, rng: np.random.Generator) -> np.ndarray:
    """Return counts (N, T, 1, 64, 1) of the altered sounds of a split."""
    meta = split.recordings.meta
    events = split.recordings.audio.take(split.rows)
    amount = data.DATASETS["nmnist-fsdd"].augmentation
    window, channels = meta["audio_window_us"], meta["audio_channels"]
    events = augment_audio(events, amount, window, rng, channels)
    return bin_audio(events, SPEC, window, channels)[0]


def time_first(counts: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(counts, 1, 0))).float()


def batches(split: AVSplit, rng: np.random.Generator) -> Iterator[tuple]:
    counts, labels = augmented(split, rng), torch.from_numpy(split.labels)
    for chosen in np.array_split(rng.permutation(len(labels)), -(-len(labels) // BATCH)):
        yield time_first(counts[chosen]), labels[chosen]


def fit(model: nn.Module, split: AVSplit, training: Training, seed: int) -> None:
    """Train in place."""
    rng, rates = np.random.default_rng(seed), []
    watched = model.rnn if isinstance(model, Spoken) else model
    hook = watched.register_forward_hook(lambda m, _x, spikes: rates.append(spikes.mean()))
    price = SPARSE * isinstance(model, Spoken)
    steps = training.epochs * -(-len(split) // BATCH)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(training.epochs):
        for x, labels in batches(split, rng):
            rates.clear()
            loss = nn.functional.cross_entropy(model(x), labels, label_smoothing=0.1)
            loss = loss + price * sum(rates)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    hook.remove()


def trained(file: Path, model: nn.Module, work: Callable[[], None]) -> nn.Module:
    """Return the model as the file has it; ``work`` trains it where there is no file."""
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
    else:
        work()
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), file)
    return model.eval()


def answers(module: nn.Module, split: AVSplit) -> common.Answers:
    with torch.no_grad():
        found = module(time_first(split.frames().audio)).argmax(1).numpy()
    return common.Answers(found, split.labels)


def deployed(deployment: Deployment, split: AVSplit) -> common.Answers:
    """Return the answers of the integers; the hidden spikes must be neither absent nor constant."""
    found = collect(fast.run(deployment, {"x": split.frames().audio}))
    for name, pop in deployment.integer.populations.items():
        if isinstance(pop, integer.IntLif) and pop.projections:
            assert 0.005 < found[name].mean() < 0.5, (name, found[name].mean())
    return common.Answers(found[deployment.integer.output][:, -1].argmax(1), split.labels)


def unequal(prepared: nn.Module, deployment: Deployment, counts: np.ndarray) -> int:
    """Return how many messages of the prepared network are not those of the deployment."""
    with torch.no_grad():
        trained = prepared.messages(time_first(counts))
    found = collect(fast.run(deployment, {"x": counts}))
    assert set(trained) == set(found)
    pairs = ((v, np.moveaxis(trained[n].numpy(), 0, 1)) for n, v in found.items())
    return sum(int((a != b).sum()) for a, b in pairs)


def measure(out: Path, held: str, seed: int) -> list[dict]:
    """Return one row per setting of one network."""
    parts, out = splits(held), out / held
    torch.manual_seed(seed)
    model = Spoken()
    trained(out / f"float-{seed}.pt", model, lambda: fit(model, parts["train"], FLOAT, seed))
    floating, test = answers(model, parts["test"]), parts["test"]
    sample = {"x": parts["val"].frames().audio[:RANGE_SAMPLES]}
    rows: list[dict] = []

    def add(kind: str, bits: int, per_channel: bool, found: common.Answers, **more) -> None:
        rows.append({
            "test": held, "seed": seed, "float": floating.accuracy, "bits": bits,
            "deployed": found.accuracy, "kind": kind + (", per channel" if per_channel else ""),
            "change": 100 * (found.accuracy - floating.accuracy),
            "agreement": 100 * floating.agreement(found), **more,
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)

    for bits in (8, 4):
        for per_channel in (False, True):
            options = {"bits": bits, "per_channel": per_channel, "max_count": {"x": MOST}}
            for calibration in ("max", "mse"):
                made = compile_module(model, sample, calibration=calibration, **options)
                add(f"after, {calibration}", bits, per_channel, deployed(made, test))
            if bits == 8:
                continue
            aware = prepare(model, sample, calibration="mse", **options)
            file = out / f"aware-{bits}{'c' * per_channel}-{seed}.pt"
            trained(file, aware, lambda net=aware: fit(net, parts["train"], AWARE, seed))
            made = compile_module(aware, sample, max_count=options["max_count"])
            wrong = unequal(aware, made, test.frames().audio[:CHECKED])
            add("aware", bits, per_channel, deployed(made, test), unequal_messages=wrong)
    return rows


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--test", nargs="+", default=["recordings", "speaker"])
    args = parser.parse_args()
    work = [(args.out, test, seed) for test in args.test for seed in args.seeds]
    rows = [row for part in common.in_parallel(measure, work, args.jobs) for row in part]
    (args.out / "results.json").write_text(json.dumps(rows, indent=1))
    for test in args.test:
        table([r for r in rows if r["test"] == test])


def table(rows: list[dict]) -> None:
    floats = list({r["seed"]: r["float"] for r in rows}.values())
    print(f"\ntest: {rows[0]['test']}, float accuracy {common.mean_and_spread(floats)}")
    print("| bits | quantized | accuracy | change, points | agreement, % |\n|---|---|---|---|---|")
    for bits, kind in dict.fromkeys((r["bits"], r["kind"]) for r in rows):
        own = [r for r in rows if (r["bits"], r["kind"]) == (bits, kind)]
        accuracy, change, same = ([r[k] for r in own] for k in ("deployed", "change", "agreement"))
        print(f"| {bits} | {kind} | {common.mean_and_spread(accuracy)} | {np.mean(change):+.2f} "
              f"+- {np.std(change):.2f} | {np.mean(same):.1f} +- {np.std(same):.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
