"""``neuroav ablate``: from the published zero-shot network to the one on a chip, step by step.

Every step changes one thing of the step before and keeps the rest; each is trained for every seed,
measured on the test, and counted: spikes, synaptic operations, multiply-accumulates, energy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroav import navfile
from neuroav.costs.conventional import prices
from neuroav.costs.energy import NOT_PLACED, price, unknown
from neuroav.data.zeroshot_scores import deployed_scores
from neuroav.errors import ConfigError
from neuroav.files import written_whole
from neuroav.models.zeroshot.search import ZeroShotClassifier
from neuroav.sim import real
from neuroav.simulate import Progress, load_samples, run_backend
from neuroav.studies.grid import check_folder
from neuroav.training.checkpoint import CONFIG, METRICS
from neuroav.training.config import RunConfig, load_config
from neuroav.training.evaluate import load_run
from neuroav.training.loop import train
from neuroav.training.zeroshot.batches import inputs_of
from neuroav.training.zeroshot.evaluate import score_zero_shot
from neuroav.training.zeroshot.operations import counted
from neuroav_export import export_run

MEASURES = ("seen", "unseen", "hm", "zsl")
COUNTED = 256  # test samples that operations are counted on
FILES = ("ablation.json", "ablation.md", "ablation.svg", "ablation.png")


@dataclass(frozen=True)
class Step:
    """name: for files; title: what changed; model, settings: the configuration, cumulative."""

    name: str
    title: str
    model: str
    settings: Mapping[str, str]


def _steps() -> tuple[Step, ...]:
    changes: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("stft", "as published", {}),
        ("fixed-time", "step weights learned, the same for every sample",
         {"stft.time_factor": "fixed"}),
        ("no-pooling", "no global-local pooling", {"stft.pooling": "none"}),
        ("fixed-threshold", "one threshold for all samples", {"stft.dynamic_threshold": "none"}),
        ("cp", "diagonal core (CP) instead of Tucker's", {"stft.fusion": "cp"}),
        ("linear-mixing", "linear cross-modal mixing", {"stft.cross_modal": "linear"}),
        ("no-knowledge", "no latent knowledge combiner", {"stft.knowledge": "false"}),
        ("batch-norm", "batch norm in the spiking branch", {"stft.norm": "batch"}),
    )  # fmt: skip
    settings: dict[str, str] = {}
    found = []
    for name, title, change in changes:
        settings = {**settings, **change}
        found.append(Step(name, title, "stft", settings))
    chip = "stft-chip: all neurons, one embedding for both modalities"
    return (*found, Step("stft-chip", chip, "stft-chip", {}))


STEPS = _steps()


def train_once(
    config: RunConfig, run: Path, *, progress: Progress | None = None, **places: Any
) -> Path:
    """Train into ``run`` unless that is done; go on with a cut-off run."""
    check_folder(run, config)
    if not (run / METRICS).exists():
        train(config, run, resume=(run / CONFIG).exists(), progress=progress, **places)
    return run


def measure_float(run: Path, **places: Any) -> dict[str, Any]:
    """Return the test measures of a run's network, and its operations per sample.

    Keys: seen, unseen, hm, zsl, by_query, parameters, rates, spikes, synops, macs, energy_pj
    (arithmetic alone, 45 nm).
    """
    model, data, config = load_run(run, **places)
    torch.set_num_threads(config.train.threads)
    assert isinstance(model, ZeroShotClassifier)
    found = score_zero_shot(model, data, "test")
    test = data.split("test").features
    rows = np.arange(min(COUNTED, len(test)))
    # class texts are projected once for all samples: not counted
    with torch.no_grad(), counted(model.net) as operations:
        model.net.embed(inputs_of(test, rows))
    metrics = json.loads((run / METRICS).read_text(encoding="utf-8"))
    each = {k: getattr(operations, k) / len(rows) for k in ("spikes", "synops", "macs")}
    mac_pj, add_pj = arithmetic_pj()
    return {
        **{k: found[k] for k in (*MEASURES, "by_query", "accuracy")},
        "parameters": metrics["parameters"],
        "rates": metrics["rates"],
        **each,
        "energy_pj": each["macs"] * mac_pj + each["synops"] * add_pj,
    }


def arithmetic_pj() -> tuple[float, float]:
    """Return the energy of an FP32 multiply-accumulate and of an FP32 addition, at 45 nm."""
    cost = prices("45nm", "fp32")
    return float(cost.mac[1]), float(cost.add[1])


def measure_deployed(
    run: Path, *, target: str = "loihi2", bits: int | None = None, **places: Any
) -> dict[str, Any]:
    """Deploy a run, simulate the whole test, and return the same keys.

    spikes, synops: of the chip; macs: of the host; energy_pj: of the chip as ``target`` prices what
    it prices (placement, static and host energy are not modelled), energy_host_pj: of the host's
    MACs in 45 nm; agreement: share of samples that the real-valued network classifies alike.
    """
    file = run / f"{target}-{bits or 8}-bits.nav"
    made = export_run(run, target=target, out=file, bits=bits, **places)
    deployment = navfile.load(file)
    samples = load_samples(deployment, split="test", samples=None, **places)
    outcome = run_backend(deployment, samples, "fast")
    _, data, _ = load_run(run, **places)
    scores = deployed_scores(outcome.scores, samples.labels, data)
    assert scores is not None  # the whole test has samples of both kinds
    twin = deployment.real
    answers = [
        t.outputs[twin.output].reshape(t.samples, -1) for t in real.run(twin, samples.inputs)
    ]
    graph, counts = deployment.integer, outcome.counts
    spikes = counts.spikes_per_sample()
    time = unknown("s", NOT_PLACED)
    energy = price(counts, None, deployment.profile, period=time, alone=time).known_part
    return {
        **{k: getattr(scores, k) for k in MEASURES},
        "accuracy": float((outcome.predictions == samples.labels).mean()),
        "agreement": float((np.concatenate(answers).argmax(axis=1) == outcome.predictions).mean()),
        "neurons": made["neurons"],
        "synapses": made["synapses"],
        "spikes": sum(v for n, v in spikes.items() if n not in graph.inputs),
        "synops": sum(counts.synops_per_sample().values()),
        "macs": float(made["host_macs"]),
        "energy_pj": energy.value,
        "energy_band_pj": [energy.low, energy.high],
        "energy_host_pj": made["host_macs"] * arithmetic_pj()[0],
        "file": file.name,
    }


def run_ablation(
    out: Path,
    *,
    data: str = "av-attributes",
    seeds: Sequence[int] = (0, 1, 2),
    overrides: Mapping[str, str] | None = None,
    target: str = "loihi2",
    steps: Sequence[str] | None = None,
    progress: Progress | None = None,
    **places: Any,
) -> dict[str, Any]:
    """Train and measure every step for every seed; return and write what was found.

    Runs that are finished in ``out`` are not trained again. steps: names of ``STEPS`` to run, all
    by default. Keys: data, seeds, target, rows (title, name, runs, mean and sd of every measure).
    """
    chosen = [s for s in STEPS if steps is None or s.name in steps]
    if not chosen:
        raise ConfigError(f"steps {list(steps or ())}: allowed are {[s.name for s in STEPS]}")
    rows = []
    for step in chosen:
        runs, deployed = [], []
        for seed in seeds:
            settings = {**(overrides or {}), **step.settings, "train.seed": str(seed)}
            config = load_config(model=step.model, data=data, overrides=settings)
            run = train_once(config, out / f"{step.name}-{seed}", progress=progress, **places)
            runs.append(_kept(run, "float", lambda run=run: measure_float(run, **places)))
            if step.model == "stft-chip":
                deployed.append(
                    _kept(
                        run, target, lambda run=run: measure_deployed(run, target=target, **places)
                    )
                )
        rows.append({"name": step.name, "title": step.title, "runs": runs, **_summary(runs)})
        if deployed:
            title = f"deployed on {target}, 8 bits"
            rows.append({"name": target, "title": title, "runs": deployed, **_summary(deployed)})
    found = {"data": data, "seeds": list(seeds), "target": target, "rows": rows}
    _write(out, found)
    return found


def _kept(run: Path, side: str, measure: Any) -> dict[str, Any]:
    """Return what ``measure`` gives, from a file beside the run once it has been measured."""
    path = run / f"measured-{side}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    found = measure()
    with written_whole(path) as part:
        part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


_SUMMED = (*MEASURES, "parameters", "spikes", "synops", "macs", "energy_pj", "energy_host_pj",
           "agreement")  # fmt: skip


def _summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation of every measure that all runs have."""
    present = [k for k in _SUMMED if all(r.get(k) is not None for r in runs)]
    return {
        "mean": {k: float(np.mean([r[k] for r in runs])) for k in present},
        "sd": {k: float(np.std([r[k] for r in runs])) for k in present},
    }


def _write(out: Path, found: Mapping[str, Any]) -> None:
    from neuroav.studies.zeroshot_plot import draw

    with written_whole(out / "ablation.json") as part:
        part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    with written_whole(out / "ablation.md") as part:
        part.write_text(as_markdown(found), encoding="utf-8")
    draw(found, out)


def as_markdown(found: Mapping[str, Any]) -> str:
    """Return the table of an ablation, energies in nJ."""
    lines = [
        "| step | S | U | HM | ZSL | spikes | synops | MACs | energy, nJ |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    several = len(found["seeds"]) > 1
    for row in found["rows"]:
        m, s = row["mean"], row["sd"]
        measures = [f"{m[k]:.3f}" + (f" +- {s[k]:.3f}" if several else "") for k in MEASURES]
        counts = [f"{m[k]:,.0f}" for k in ("spikes", "synops", "macs")]
        energy = f"{m['energy_pj'] / 1000:,.1f}" if "energy_pj" in m else "unknown"
        if "energy_host_pj" in m:
            energy += f" + {m['energy_host_pj'] / 1000:,.1f} host"
        lines.append("| " + " | ".join([row["title"], *measures, *counts, energy]) + " |")
    mac_pj, add_pj = arithmetic_pj()
    notes = (
        f"{found['data']}, seed {', '.join(map(str, found['seeds']))}"
        f"{'; mean and standard deviation' if several else ''}; counts per sample.\n"
        "Spikes are those of LIF neurons; in the deployed row, of sums and products too.\n"
        "Each row keeps the changes of the rows above, but for stft-chip, which is built anew.\n"
        "Energy of the real-valued rows and of the host: arithmetic alone, 45 nm (FP32 "
        f"multiply-accumulate {mac_pj:g} pJ, add {add_pj:g} pJ; Horowitz, ISSCC 2014), "
        "memory left out.\n"
        f"Energy of the deployed row: what profile {found['target']} prices of the chip; an "
        "estimate, not a measurement.\n"
    )
    return "\n".join(lines) + "\n\n" + notes
