"""What a data set is and holds, for people to read; nothing is prepared for it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data import avattributes, cache, gzsl
from neuroav.data.avdata import OpenSpec, Spec
from neuroav.data.catalogue import cache_path, dataset_info, frame_spec, load_zero_shot, remedy
from neuroav.data.frames import FrameSpec
from neuroav.data.info import DatasetInfo
from neuroav.data.zeroshot import STAGES


def describe(
    name: str,
    preset: str = "default",
    *,
    data_seed: int = 0,
    cache_dir: Path,
    data_root: Path | None = None,
    spec: Spec | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Facts for display, all JSON values; never prepares anything.

    Always: name, title, preset, presets, data_seed, classes, licence, limits, augmentation, layout,
    file, prepared. When prepared also: content_hash, bytes, splits (pairs and pairs per class by
    split), where the set has them protocol, defects, notes, skipped (number of items) and
    skipped_items (item -> why), left_out and left_out_items (the same of files that are part of no
    item), and median events per recording (audio_events_median,
    visual_events_median).
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
        "layout": layout(spec or frame_spec(name)),
        "file": str(path),
        "prepared": path.exists(),
    }
    if path.exists():
        again = remedy(
            name, preset=preset, data_seed=data_seed, cache_dir=cache_dir, data_root=data_root
        )
        facts |= _contents(cache.read(path, again)) | {"bytes": path.stat().st_size}
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
    del facts["steps"], facts["visual_size"]  # of frames, which features have none of
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
    meta = recordings.meta
    told = {key: meta[key] for key in ("protocol", "defects", "notes") if meta.get(key)}
    if "skipped" in meta:
        told |= {"skipped": len(meta["skipped"]), "skipped_items": meta["skipped"]}
    if left := {**meta.get("orphans", {}), **meta.get("left_out", {})}:
        told |= {"left_out": len(left), "left_out_items": left}
    return {"content_hash": recordings.content_hash, "splits": splits, **medians, **told}


def layout(spec: Spec) -> dict[str, str]:
    """What each axis of the frames means, in words, for ``spec``."""
    if isinstance(spec, OpenSpec):
        return {"frames": "as the settings of the folder say; known once it is prepared"}
    if not isinstance(spec, FrameSpec):
        return spec.layout()
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
