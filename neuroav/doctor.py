"""What is installed: versions, optional parts present or missing, and the line that installs each.

``PARTS`` is the literal table of the packages that the project uses; a test holds it against
``pyproject.toml``. Nothing here reads an environment variable: the caller passes what it read.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from neuroav import __version__
from neuroav.errors import NeuroavError

_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Part:
    """One package. extra: the extra that brings it, '' for the core. spec: what pip is asked for.

    needs: packages that pip must be asked for besides, because ``spec`` is installed without its
    own dependencies (lava's wheels declare Python 3.10, and numpy and torch below our range).
    """

    name: str
    module: str
    extra: str
    spec: str
    used_for: str
    needs: tuple[str, ...] = ()


PARTS = (
    Part("numpy", "numpy", "", "numpy>=1.24", "integer arithmetic"),
    Part("h5py", "h5py", "", "h5py>=3.8", "FILE.nav and recordings"),
    Part("click", "click", "", "click>=8.2", "command line"),
    Part("rich", "rich", "", "rich>=13", "tables and progress"),
    Part("pydantic", "pydantic", "", "pydantic>=2.5", "profiles and configurations"),
    Part("jinja2", "jinja2", "", "jinja2>=3.1", "report pages"),
    Part("platformdirs", "platformdirs", "", "platformdirs>=4", "cache folder"),
    Part("tomli-w", "tomli_w", "", "tomli-w>=1.0", "writing config.toml"),
    Part("torch", "torch", "train", "torch>=2.4,<2.14", "models, training, batched executor"),
    Part("norse", "norse", "train", "norse>=1.1,<1.2", "spiking neurons"),
    Part("numba", "numba", "train", "numba>=0.59", "training speed"),
    Part("torchmetrics", "torchmetrics", "train", "torchmetrics>=1.3", "accuracy and confusion"),
    Part("tensorboard", "tensorboard", "train", "tensorboard>=2.14", "training curves"),
    Part("setuptools", "setuptools", "train", "setuptools<81", "tensorboard's pkg_resources"),
    Part("safetensors", "safetensors", "train", "safetensors>=0.4", "weights"),
    Part("scikit-learn", "sklearn", "train", "scikit-learn>=1.3", "baselines"),
    Part("scipy", "scipy", "train", "scipy>=1.10", "signals and statistics"),
    Part("tonic", "tonic", "train", "tonic>=1.5,<2", "event files"),
    Part("onnx", "onnx", "train", "onnx>=1.16", "ONNX files"),
    Part("nir", "nir", "train", "nir>=1.0", "NIR files"),
    Part(
        "lava-nc", "lava", "lava", "lava-nc==0.10.0", "Lava's own executor",
        ("asteval>=0.9.31", "networkx>=2.8", "scikit-learn>=1.5", "scipy>=1.10"),
    ),
    Part(
        "lava-dl", "lava.lib.dl", "lava", "lava-dl==0.6.0", "Lava's network reader",
        ("matplotlib>=3.5", "pillow>=10", "torch>=2.4,<2.14", "opencv-python-headless>=4.8"),
    ),
    Part("espeakng-loader", "espeakng_loader", "speech", "espeakng-loader>=0.2.4",
         "synthesised speech"),
    Part("pymetis", "pymetis", "mapping", "pymetis>=2025.2", "placing cores on the mesh"),
    Part("sanafe", "sanafe", "sanafe", "sanafe>=2.2.9,<2.3", "energy and time in SANA-FE"),
    Part("optuna", "optuna", "studies", "optuna>=3.6", "sweeps"),
    Part("matplotlib", "matplotlib", "studies", "matplotlib>=3.7", "figures of studies"),
    Part("av", "av", "data", "av>=12", "video and compressed sound"),
    Part("pillow", "PIL", "data", "pillow>=10", "pictures"),
    Part("sounddevice", "sounddevice", "stream", "sounddevice>=0.4.6", "a microphone"),
    Part("ray", "ray", "scale", "ray>=2.60,<3", "many workers and machines"),
    Part("mkdocs", "mkdocs", "docs", "mkdocs>=1.6,<2", "the documentation as a site"),
    Part("mkdocs-material", "material", "docs", "mkdocs-material>=9.5,<10", "its looks and search"),
)  # fmt: skip


def install_line(module: str) -> str | None:
    """Return the line that installs the optional part with ``module``; None if it is not ours."""
    for part in PARTS:
        if part.extra and part.module.partition(".")[0] == module:
            return _install(part)
    return None


def examine(*, data_root: Path | None, vectors: Path | None, cache_dir: Path) -> dict[str, Any]:
    """Return versions, parts, machine and folders; ``ok`` is whether the core has what it needs."""
    parts = [_state(part) for part in PARTS]
    return {
        "ok": all(p["state"] == "present" for p in parts if not p["extra"]),
        "neuroav": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_free_bytes": _free_memory(),
        "cache_dir": str(cache_dir),
        "cache_dir_writable": _writable(cache_dir),
        "data_root": _folder(data_root),
        "vectors": _folder(vectors),
        "parts": parts,
    }


def _state(part: Part) -> dict[str, Any]:
    """Return a part's row: state is present, missing or broken, problem says why broken."""
    row = {k: v for k, v in asdict(part).items() if k in ("name", "extra", "used_for")}
    row |= {"install": _install(part), "problem": None}
    try:
        row["version"] = version(part.name)
    except PackageNotFoundError:
        return row | {"version": None, "state": "missing"}
    problem = _lava_problem() if part.extra == "lava" else _import_problem(part)
    return row | {"problem": problem, "state": "broken" if problem else "present"}


def _import_problem(part: Part) -> str | None:
    """Return why a part cannot be imported. Optional parts are only looked up: they load slowly."""
    try:
        if part.extra:
            return None if find_spec(part.module) else f"installed without module {part.module}"
        import_module(part.module)
    except ImportError as error:
        return str(error)
    return None


def _lava_problem() -> str | None:
    """Return why lava cannot be imported under this Python, None if it can."""
    try:
        import_module("neuroav.sim.lava.shim").prepare()
    except (ImportError, NeuroavError) as error:
        return str(error)
    return None


def _install(part: Part) -> str:
    python = shlex.quote(sys.executable)
    pip = f"{python} -m pip install"
    if find_spec("pip") is None:  # uv makes environments without pip
        pip = f"{python} -m ensurepip && {pip}"
    if part.needs:
        needs = " ".join(map(shlex.quote, part.needs))
        return (
            f"{pip} {needs} && {python} -m pip install --no-deps --ignore-requires-python "
            f"{part.spec}"
        )
    return f"{pip} {shlex.quote(part.spec)}"


def _free_memory() -> int | None:
    """Return the bytes a program could still take; None where the system does not tell."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        return next(int(w.split()[1]) * 1024 for w in lines if w.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _writable(folder: Path) -> bool:
    """Return whether files can be made in ``folder``, or it can be made itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def _folder(path: Path | None) -> dict[str, Any] | None:
    return None if path is None else {"path": str(path), "exists": path.is_dir()}
