"""The data sets by name: what they are, preparing them once, loading and describing them."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

from neuroav.data import (
    avattributes,
    avdigits,
    cache,
    checking,
    gzsl,
    nmnistfsdd,
    preparing,
    published,
)
from neuroav.data.avdata import AVData, Spec
from neuroav.data.avdigits import Progress
from neuroav.data.entries import ENTRIES
from neuroav.data.frames import FrameSpec
from neuroav.data.info import DatasetInfo
from neuroav.data.zeroshot import ZeroShotData
from neuroav.errors import DataError, unknown_name

DATASETS: dict[str, DatasetInfo] = ENTRIES | {
    module.INFO.name: module.INFO for module in published.MODULES
}

# Each offers parameters(preset, seed, limit), generate(preset, seed, limit, progress, data_root)
# and made_with().
_GENERATORS: dict[str, ModuleType] = {"av-digits": avdigits, "nmnist-fsdd": nmnistfsdd}
# Each offers what ``neuroav.data.plans`` says.
_PLANNED: dict[str, ModuleType] = {module.INFO.name: module for module in published.MODULES}


def dataset_info(name: str) -> DatasetInfo:
    """Facts about ``name``; DataError with near matches if there is no such data set."""
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS, DataError)
    return DATASETS[name]


def is_zero_shot(name: str) -> bool:
    """Whether ``name`` has feature vectors and class texts; DataError for unknown names."""
    return dataset_info(name).features


def load_zero_shot(
    name: str,
    *,
    preset: str,
    steps: int,
    data_seed: int = 0,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> ZeroShotData:
    """The zero-shot data set ``name``, made of av-digits or read from ``data_root``.

    steps: time steps per sample. DataError and FileFormatError name place, found and allowed.
    """
    if not is_zero_shot(name):
        raise DataError(f"{name}: holds events, not features with class texts")
    if name == avattributes.NAME:
        return avattributes.load(
            preset, steps=steps, data_seed=data_seed, cache_dir=cache_dir, progress=progress
        )
    return gzsl.load_benchmark(
        name, data_root=data_root, preset=preset, steps=steps, data_seed=data_seed
    )


def _require_events(name: str) -> None:
    if is_zero_shot(name):
        raise DataError(f"{name}: holds features with class texts; load_zero_shot reads it")


def frame_spec(name: str, *, steps: int | None = None, visual_size: int | None = None) -> Spec:
    """How the data set is laid out as network input; ConfigError for what it cannot be.

    steps: time steps. visual_size: edge of the picture, of data sets that leave the choice. None:
    as the set's facts say.
    """
    info = dataset_info(name)
    steps = info.steps if steps is None else steps
    visual_size = info.visual_size if visual_size is None else visual_size
    if name in _PLANNED:
        return _PLANNED[name].spec(steps, visual_size)
    return FrameSpec(steps=steps, visual_size=visual_size)


def cache_path(
    name: str,
    *,
    preset: str = "default",
    data_seed: int = 0,
    cache_dir: Path,
    data_root: Path | None = None,
    limit: int | None = None,
) -> Path:
    """Where the prepared data lies or would lie; its name holds a hash of every parameter.

    Presets that are two names of one have one file.
    """
    _require_events(name)
    if name in _PLANNED:
        stated = _PLANNED[name].parameters(preset, data_seed, limit, data_root)
        preset = _PLANNED[name].canonical(preset)
    else:
        stated = _GENERATORS[name].parameters(preset, data_seed, limit)
    stated = {**stated, "cache_version": cache.VERSION}
    key = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:16]
    return Path(cache_dir) / name / f"{preset}-{key}.h5"


def remedy(
    name: str,
    *,
    preset: str = "default",
    data_seed: int = 0,
    cache_dir: Path,
    data_root: Path | None = None,
    limit: int | None = None,
    force: bool = True,
) -> str:
    """What makes prepared data anew, as a command; it has no ``limit``, which is for trials."""
    options = [("--preset", preset, "default"), ("--seed", data_seed, 0)]
    options += [("--data-root", data_root, None), ("--cache-dir", cache_dir, None)]
    words = [part for option, value, usual in options if value != usual
             for part in (option, str(value))]  # fmt: skip
    command = shlex.join(["neuroav", "data", "prepare", name, *words])
    return f"delete it or run: {command} --force" if force else f"run: {command}"


def prepare(
    name: str,
    *,
    preset: str = "default",
    data_seed: int = 0,
    cache_dir: Path,
    data_root: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
    limit: int | None = None,
    jobs: int = 1,
    skip_broken: bool = False,
    accept_changed: bool = False,
    manifest: Path | None = None,
) -> Path:
    """Make sure the data is in the cache, and return its file.

    A file already there is checked and kept unless ``force`` or ``accept_changed``, or unless it
    lacks items that an earlier call skipped as broken and this one does not. ``data_root`` holds
    recordings for data sets that need some, as nmnist-fsdd does; it is only read, and not needed
    for what is in the cache. ``limit`` makes that many pairs only, for trials. Of data sets read
    from files ``jobs`` processes convert; ``skip_broken``, ``accept_changed`` and ``manifest``: as
    ``preparing.carry_out`` says, DataError for other data sets.
    ``progress(stage, done, total)``. DataError for unknown names, a damaged file or a folder that
    cannot be written; MissingDependency when an optional package is absent. Interrupted, it leaves
    the cache as it was, and goes on from there when called again. Of feature data sets everything
    is read and checked, and the base in the cache, or the data root, is returned.
    """
    dataset_info(name)
    if name not in _PLANNED and (skip_broken or accept_changed or manifest is not None):
        raise DataError(
            f"{name}: the package lists what it is made of; skipping broken files, accepting "
            f"changed ones and manifests are for {', '.join(sorted(_PLANNED)) or 'other sets'}"
        )
    if is_zero_shot(name):
        return _check_features(name, preset, data_seed, cache_dir, data_root, progress)
    chosen: dict[str, Any] = {
        "preset": preset,
        "data_seed": data_seed,
        "data_root": data_root,
        "limit": limit,
    }
    path = cache_path(name, cache_dir=cache_dir, **chosen)
    if path.exists() and not (force or accept_changed):
        stored = cache.read(path, remedy(name, cache_dir=cache_dir, **chosen))
        if skip_broken or data_root is None or not stored.meta.get("forced"):
            preparing.tidy(path)
            if manifest is not None:
                checking.require_listed(path, manifest)
            return path
    _generate(
        name, path, progress, jobs=jobs, skip_broken=skip_broken, accept_changed=accept_changed,
        manifest=manifest, **chosen,
    )  # fmt: skip
    return path


def _check_features(
    name: str,
    preset: str,
    data_seed: int,
    cache_dir: Path,
    data_root: Path | None,
    progress: Progress | None,
) -> Path:
    load_zero_shot(
        name,
        preset=preset,
        steps=1 if name == avattributes.NAME else gzsl.DEFAULT_STEPS,
        data_seed=data_seed,
        cache_dir=cache_dir,
        data_root=data_root,
        progress=progress,
    )
    if name == avattributes.NAME:
        return cache_path(
            avattributes.BASE,
            preset=avattributes.BASE_PRESET,
            data_seed=data_seed,
            cache_dir=cache_dir,
        )
    return Path(str(data_root))


def _generate(
    name: str,
    path: Path,
    progress: Progress | None,
    *,
    preset: str,
    data_seed: int,
    data_root: Path | None,
    limit: int | None,
    jobs: int = 1,
    skip_broken: bool = False,
    accept_changed: bool = False,
    manifest: Path | None = None,
) -> None:
    """Make the recordings and write them to ``path``."""
    if name in _PLANNED:
        module = _PLANNED[name]
        plan = module.plan(preset, data_seed, limit, data_root)
        cache.require_folder(path.parent)
        preparing.carry_out(
            plan, Path(str(data_root)), path, module.made_with(),
            jobs=jobs, skip_broken=skip_broken, progress=progress,
            accept_changed=accept_changed, manifest=manifest,
        )  # fmt: skip
        return
    generator = _GENERATORS[name]
    cache.require_folder(path.parent)
    recordings = generator.generate(preset, data_seed, limit, progress, data_root)
    if progress is not None:
        progress("write", 0, 1)
    cache.save(path, recordings, generator.made_with())
    if progress is not None:
        progress("write", 1, 1)


def load(
    name: str,
    *,
    preset: str = "default",
    data_seed: int = 0,
    cache_dir: Path,
    data_root: Path | None = None,
    spec: Spec | None = None,
    progress: Progress | None = None,
    limit: int | None = None,
) -> AVData:
    """The data set, from the cache or else prepared first. Errors as ``prepare``."""
    chosen: dict[str, Any] = {
        "preset": preset,
        "data_seed": data_seed,
        "data_root": data_root,
        "limit": limit,
    }
    path = cache_path(name, cache_dir=cache_dir, **chosen)
    if not path.exists():
        _generate(name, path, progress, **chosen)
    recordings = cache.read(path, remedy(name, cache_dir=cache_dir, **chosen))
    return AVData.of(recordings, spec or frame_spec(name), DATASETS[name].augmentation)


def check(
    name: str,
    *,
    preset: str = "default",
    data_seed: int = 0,
    cache_dir: Path,
    data_root: Path | None = None,
    manifest: Path | None = None,
    progress: Progress | None = None,
    limit: int | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Read again every byte of prepared data, and of its source files where ``data_root`` is given.

    Returns facts as ``checking.check`` says, ``problems`` among them. DataError where nothing is
    prepared, and for feature data sets, which ``prepare`` reads and checks whole.
    """
    chosen: dict[str, Any] = {
        "preset": preset,
        "data_seed": data_seed,
        "data_root": data_root,
        "limit": limit,
    }
    wanted = path = cache_path(name, cache_dir=cache_dir, **chosen)
    if not path.exists():
        other = _of_other_files(name, path, chosen)
        if other is None:
            anew = remedy(name, cache_dir=cache_dir, force=False, **chosen)
            raise DataError(f"{name} ({preset}) is not prepared; {anew}")
        path = other
    shipped = nmnistfsdd.MANIFEST if name == nmnistfsdd.NAME else None
    found = checking.check(
        path, remedy(name, cache_dir=cache_dir, **chosen), data_root, shipped=shipped,
        manifest=manifest, planned=name in _PLANNED, jobs=jobs, progress=progress,
    )  # fmt: skip
    if path != wanted and data_root is not None:
        first = f"{data_root} holds other files than those that {path} was made of"
        found["problems"] = [first, *found["problems"]]
    return {"name": name, "preset": preset, **found}


def _of_other_files(name: str, path: Path, chosen: dict[str, Any]) -> Path | None:
    """The newest file prepared with the same parameters but for ``files``, None if there is none:
    what is below the data root, or was, is part of a file's name."""
    if name not in _PLANNED:
        return None
    order = ("preset", "data_seed", "limit", "data_root")
    stated = _PLANNED[name].parameters(*(chosen[key] for key in order))
    wanted = json.loads(json.dumps({**stated, "files": None}))
    others = path.parent.glob(f"{path.stem.rpartition('-')[0]}-*{path.suffix}")
    for other in sorted(others, key=lambda p: -p.stat().st_mtime_ns):
        try:
            made = cache.read(other, "", verify=False).meta["parameters"]
        except (DataError, KeyError):  # damaged: not what is asked about
            continue
        if {**made, "files": None} == wanted:
            return other
    return None
