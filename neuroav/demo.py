"""The main job with the shipped ``demo`` configuration: data, training, export, report."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from neuroav.simulate import Progress

TARGET = "loihi2"
TWINS = ("audio", "visual")


def run_demo(
    out: Path, *, cache_dir: Path, data_root: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Train the audio-visual network and its twins, deploy it, report; return the main figures.

    out: folder for the runs, ``scmrl.nav`` and ``report/``. Runs already finished there are kept,
    an interrupted one is resumed. Keys: audio, visual, av_float, av_deployed (test accuracies),
    agreement, deployment, report (path of report.html).
    """
    from neuroav.report import write_report
    from neuroav_export import export_run

    places: dict[str, Any] = {"cache_dir": cache_dir, "data_root": data_root, "progress": progress}
    model = demo_config(None).model.name
    accuracy = {name: _train(Path(out) / name, name, places) for name in (*TWINS, model)}
    file = Path(out) / f"{model}.nav"
    export_run(Path(out) / model, target=TARGET, out=file, **places)
    report = write_report([file], out=Path(out) / "report", **places)
    return {
        "audio": accuracy["audio"],
        "visual": accuracy["visual"],
        "av_float": accuracy[model],
        "av_deployed": report["accuracy"]["deployed"],
        "agreement": report["accuracy"]["agreement"],
        "deployment": str(file),
        "report": str(report["path"]),
    }


def demo_config(model: str | None):
    """Return the shipped configuration, with another model's name where given."""
    from neuroav.training.config import load_config

    with resources.as_file(resources.files("neuroav") / "shipped" / "demo.toml") as path:
        return load_config(file=path, model=model)


def _train(run: Path, model: str, places: dict[str, Any]) -> float:
    """Train one model unless ``run`` is finished; return its test accuracy."""
    from neuroav.training.checkpoint import CONFIG, METRICS
    from neuroav.training.evaluate import evaluate
    from neuroav.training.loop import train

    if not (run / METRICS).exists():
        train(demo_config(model), run, resume=(run / CONFIG).exists(), **places)
    return evaluate(run, split="test", **places)["accuracy"]
