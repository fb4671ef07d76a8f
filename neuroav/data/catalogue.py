"""The data sets by name: what they are, preparing them once, loading and describing them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from neuroav.data import avattributes, avdigits, cache, gzsl, nmnistfsdd, preparing, published
from neuroav.data.avdata import AVData, Spec
from neuroav.data.avdigits import Progress
from neuroav.data.entries import ENTRIES
from neuroav.data.frames import FrameSpec
from neuroav.data.info import DatasetInfo
from neuroav.data.zeroshot import STAGES, ZeroShotData
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
    return gzsl.load_benchmark(name, data_root=data_root, preset=preset, steps=steps)


def _require_events(name: str) -> None:
    if is_zero_shot(name):
        raise DataError(f"{name}: holds features with class texts; load_zero_shot reads it")


def frame_spec(name: str, *, steps: int, visual_size: int) -> Spec:
    """How the data set is laid out as network input; ConfigError for what it cannot be.

    steps: time steps. visual_size: edge of the picture, of data sets that leave the choice.
    """
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
    """Where the prepared data lies or would lie; its name holds a hash of every parameter."""
    _require_events(name)
    if name in _PLANNED:
        stated = _PLANNED[name].parameters(preset, data_seed, limit, data_root)
    else:
        stated = _GENERATORS[name].parameters(preset, data_seed, limit)
    stated = {**stated, "cache_version": cache.VERSION}
    key = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:16]
    return Path(cache_dir) / name / f"{preset}-{key}.h5"


def _remedy(name: str) -> str:
    return f"delete it or run: neuroav data prepare {name} --force"


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
) -> Path:
    """Make sure the data is in the cache, and return its file.

    A file already there is checked and kept unless ``force``. ``data_root`` holds recordings for
    data sets that need some, as nmnist-fsdd does; it is only read, and not needed for what is in
    the cache. ``limit`` makes that many pairs only, for trials.
    ``progress(stage, done, total)``. DataError for unknown names, a damaged file or a folder that
    cannot be written; MissingDependency when an optional package is absent. Interrupted, it leaves
    the cache as it was. Of feature data sets everything is read and checked, and the base in the
    cache, or the data root, is returned.
    """
    if is_zero_shot(name):
        return _check_features(name, preset, data_seed, cache_dir, data_root, progress)
    chosen: dict[str, Any] = {
        "preset": preset,
        "data_seed": data_seed,
        "data_root": data_root,
        "limit": limit,
    }
    path = cache_path(name, cache_dir=cache_dir, **chosen)
    if path.exists() and not force:
        cache.read(path, _remedy(name))
        return path
    _generate(name, path, progress, jobs=jobs, skip_broken=skip_broken, **chosen)
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
) -> None:
    """Make the recordings and write them to ``path``."""
    if name in _PLANNED:
        module = _PLANNED[name]
        plan = module.plan(preset, data_seed, limit, data_root)
        cache.require_folder(path.parent)
        preparing.carry_out(
            plan, Path(str(data_root)), path, module.made_with(),
            jobs=jobs, skip_broken=skip_broken, progress=progress,
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
    recordings = cache.read(path, _remedy(name))
    return AVData.of(recordings, spec or FrameSpec(), DATASETS[name].augmentation)


def describe(
    name: str,
    preset: str = "default",
    *,
    data_seed: int = 0,
    cache_dir: Path,
    data_root: Path | None = None,
    spec: FrameSpec | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Facts for display, all JSON values; never prepares anything.

    Always: name, title, preset, presets, data_seed, classes, licence, limits, augmentation, layout,
    file, prepared. When prepared also: content_hash, bytes, splits (pairs and pairs per class by
    split) and median events per recording (audio_events_median, visual_events_median).
    """
    info = dataset_info(name)
    if info.features:
        return _describe_features(info, preset, data_seed, cache_dir, data_root)
    path = cache_path(
        name, preset=preset, data_seed=data_seed, cache_dir=cache_dir, data_root=data_root,
        limit=limit,
    )  # fmt: skip
    facts = asdict(info) | {
        "preset": preset,
        "data_seed": data_seed,
        "layout": layout(spec or FrameSpec()),
        "file": str(path),
        "prepared": path.exists(),
    }
    if path.exists():
        facts |= _contents(cache.read(path, _remedy(name))) | {"bytes": path.stat().st_size}
    return facts


def _describe_features(
    info: DatasetInfo, preset: str, data_seed: int, cache_dir: Path, data_root: Path | None
) -> dict[str, Any]:
    """Facts of a feature data set: classes and samples of every stage, text alignment."""
    base = None
    if info.name == avattributes.NAME:
        avattributes.check_preset(preset)
        base = cache_path(
            avattributes.BASE,
            preset=avattributes.BASE_PRESET,
            data_seed=data_seed,
            cache_dir=cache_dir,
        )
    facts = asdict(info) | {"preset": preset, "data_seed": data_seed}
    ready = base.exists() if base else data_root is not None
    facts |= {"file": str(base or data_root), "prepared": ready}
    if not ready:
        return facts
    data = load_zero_shot(
        info.name,
        preset=preset,
        steps=gzsl.DEFAULT_STEPS,
        data_seed=data_seed,
        cache_dir=cache_dir,
        data_root=data_root,
    )
    stages = {
        s: {"classes": len(data.stage_classes[s]), "samples": len(data.stages[s])} for s in STAGES
    }
    return facts | {
        "classes": data.classes,
        "content_hash": data.content_hash,
        "stages": stages,
        "unseen": [data.classes[c] for c in data.unseen],
        "features_audio": data.stages[STAGES[0]].audio.shape[1:],
        "features_visual": data.stages[STAGES[0]].visual.shape[1:],
        "text": data.text.shape[1],
        "misaligned_classes": len(data.misaligned),
        "notes": list(data.notes),
    }


def _contents(recordings: cache.Recordings) -> dict[str, Any]:
    classes = recordings.meta["classes"]
    splits = {}
    for code, split in enumerate(cache.SPLITS):
        labels = recordings.labels[recordings.split == code]
        counts = np.bincount(labels, minlength=len(classes)).tolist()
        splits[split] = {"pairs": len(labels), "by_class": dict(zip(classes, counts, strict=True))}
    medians = {
        f"{name}_events_median": float(np.median(events.counts))
        for name in ("audio", "visual")
        if (events := getattr(recordings, name)) is not None
    }
    return {"content_hash": recordings.content_hash, "splits": splits, **medians}


def layout(spec: FrameSpec) -> dict[str, str]:
    """What each axis of the frames means, in words, for ``spec``."""
    steps, bands, rows, fine = spec.audio_shape
    size = spec.visual_size
    return {
        "audio": (
            f"uint8 ({steps}, {bands}, {rows}, {fine}) = (step, input channel, row, fine time bin) "
            f"event counts; cochlear channel c, 0 = lowest, is input channel c // {rows} and row "
            f"c % {rows}"
            if bands * rows == 64
            else f"uint8 ({steps}, {bands}, {rows}, {fine}) = (step, input channel, row, fine time "
            f"bin) event counts; {64 // (bands * rows)} neighbouring cochlear channels are added"
        ),
        "visual": (
            f"uint8 ({steps}, 2, {size}, {size}) = (step, polarity 0 OFF 1 ON, row y, column x) "
            f"event counts over the central 32x32 pixels, binned {32 // size}x{32 // size}"
        ),
    }
