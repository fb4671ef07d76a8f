"""Synthetic audio-visual zero-shot benchmarks in the published layouts, for tests.

Class lists, splits and text embeddings are copied from a folder like ``$NEUROAV_DATA/avgzsl``, or
made up by ``make_lists``. Features are never recordings: a clip of class c is
relu(A e_c + noise), with A random per modality and e_c the embedding of c, so unseen classes can be
told from their text. Every folder of features holds a ``SYNTHETIC.txt`` that says so.
"""

from __future__ import annotations

import csv
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest

from neuroav.data.gzsl.benchmark import PRESET_FILES, SYNTHETIC
from neuroav.data.gzsl.classlists import (
    ALL_STAGES,
    BENCHMARKS,
    BenchmarkSet,
    ClassLists,
    read_class_lists,
    read_clips,
)
from neuroav.data.gzsl.embeddings import by_name, read_embeddings
from neuroav.data.zeroshot import STAGES

WIDTHS = {"main": (512, 512), "cls": (128, 4096), "cls-temporal": (128, 4096)}
_LABEL = "Synthetic features, made up for tests: relu(A e_class + noise). No recordings.\n"
# Manual names sort differently from original ones where a name is shifted, as in UCF.
_MADE_UP = {
    "stage_1_train": (("Archery", "Archery"), ("CleanAndJerk", "Weight Lifting"), ("diving", "D")),
    "stage_1_val_unseen": (("Drumming", "Drumming"), ("YoYo", "Yo Yo, playing")),
    "stage_2_test_unseen": (("Basketball", "Basketball"), ("PlayingCello", "Cello")),
}
MADE_UP_DROPPED = "Basketball"  # by the cls split


@dataclass
class Written:
    """What was written. sets: of which (data root below which it lies); parts: by stage, the
    arrays audio, visual, labels, names in the order that a reader must give them. Sequences are
    lists of arrays (T_i, D)."""

    root: Path
    folder: Path
    lists: ClassLists
    parts: dict[str, dict[str, list]] = field(default_factory=dict)


def published() -> Path:
    """Folder of the real class lists and embeddings; skips the test where it is not there."""
    value = os.environ.get("NEUROAV_DATA")
    if not value:
        pytest.skip("NEUROAV_DATA is not set; it names a folder with third-party data")
    if not (folder := Path(value) / "avgzsl").is_dir():
        pytest.skip(f"{folder} is absent: class lists and embeddings of AVCA-GZSL")
    return folder


def make_lists(source: Path, name: str = "ucf-gzsl", clips: int = 3, seed: int = 0) -> Path:
    """Write class lists, csv and embeddings of seven made-up classes; return ``source``."""
    benchmark = BENCHMARKS[name]
    folder = source / benchmark.folder / "class-split"
    pairs = sorted(pair for group in _MADE_UP.values() for pair in group)
    folder.mkdir(parents=True)
    (folder / "all_class.txt").write_text("".join(f"{original}\n" for original, _ in pairs))
    with (folder / benchmark.names).open("w", newline="") as file:
        csv.writer(file).writerows([("original", "manual"), *pairs])
    for split in ("main_split", "cls_split"):
        (folder / split).mkdir()
        for stage in ALL_STAGES:
            _write_stage_lists(folder / split, stage, [original for original, _ in pairs], clips)
    rng = np.random.default_rng(seed)
    vectors = {manual: rng.normal(size=300) for _, manual in pairs}
    write_embeddings(source / "w2v_features" / benchmark.text, vectors)
    return source


def _write_stage_lists(folder: Path, stage: str, classes: list[str], clips: int) -> None:
    first = [original for original, _ in _MADE_UP["stage_1_train"]]
    later = [original for original, _ in _MADE_UP["stage_1_val_unseen"]]
    unseen = [original for original, _ in _MADE_UP["stage_2_test_unseen"]]
    mine = {
        "stage_1_train": first,
        "stage_1_val_seen": first,
        "stage_1_val_unseen": later,
        "stage_2_train": first + later,
        "stage_2_test_seen": first + later,
        "stage_2_test_unseen": unseen,
    }[stage]
    kept = [c for c in mine if folder.name != "cls_split" or c != MADE_UP_DROPPED]
    (folder / f"{stage}.txt").write_text("".join(f"{name}\n" for name in kept))
    rows = [
        (f"v_{name}_{stage[6:]}_{i}", name, classes.index(name))
        for name in mine
        for i in range(clips)
    ]
    with (folder / f"{stage}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "label", "label_code"), *rows])


def write_embeddings(path: Path, vectors: Mapping[str, np.ndarray]) -> None:
    """Write a dictionary of embeddings, made of length one, as it is published."""
    path.parent.mkdir(parents=True, exist_ok=True)
    normed = {k: (v / np.linalg.norm(v)).astype(np.float32) for k, v in vectors.items()}
    np.save(path, np.array(normed, dtype=object), allow_pickle=True)


def write_benchmark(
    root: Path,
    source: Path,
    name: str = "ucf-gzsl",
    preset: str = "main",
    *,
    per_class: int | None = None,
    widths: tuple[int, int] | None = None,
    noise: float = 0.5,
    seed: int = 0,
    fixed_urls: bool = False,
    dtype: type = np.float32,
) -> Written:
    """Write one preset of a benchmark below ``root`` in the published layout.

    source: folder of class lists and embeddings. per_class: clips of each class and stage, else as
    many as the csv lists. widths: features of audio and video, else the published ones.
    fixed_urls: clip names as bytes of 80, else as variable strings. The whole of UCF: 2 s as
    ``main``. ValueError where there is no csv and no per_class.
    """
    benchmark, chosen = BENCHMARKS[name], PRESET_FILES[preset]
    released = "avgzsl_benchmark_non_averaged_datasets" if chosen.temporal else _AVCA
    home = root / released / benchmark.folder
    lists = _copy_lists(source, home, benchmark, chosen.split)
    folder = home / "features" / chosen.kinds[0]
    (folder / "text").mkdir(parents=True)
    shutil.copyfile(source / "w2v_features" / benchmark.text, folder / "text" / benchmark.text)
    (folder / SYNTHETIC).write_text(_LABEL)
    text = by_name(read_embeddings(folder / "text" / benchmark.text), lists)
    made = _Maker(text, widths or WIDTHS[preset], noise, seed, preset, np.dtype(dtype))
    written = Written(root, folder, lists)
    for stage in STAGES:
        part = written.parts[stage] = {k: [] for k in ("audio", "visual", "labels", "names")}
        for number, names in sorted(_clips(lists, stage, per_class).items()):
            audio, visual = made.clips(number, len(names))
            # Classes that the split drops have files all the same, as published.
            if number in lists.stages[stage]:
                part["audio"].extend(audio)
                part["visual"].extend(visual)
                part["labels"].extend([number] * len(names))
                part["names"].extend(names)
            for kind, data in (("audio", audio), ("video", visual)):
                path = folder / kind / stage / lists.classes[number]
                path.parent.mkdir(parents=True, exist_ok=True)
                if chosen.temporal:
                    write_pkl(Path(f"{path}.pkl"), data, names)
                else:
                    write_h5(Path(f"{path}.h5"), np.stack(data), names, fixed_urls)
    return written


_AVCA = "avgzsl_benchmark_datasets"


def _copy_lists(source: Path, home: Path, benchmark: BenchmarkSet, split: str) -> ClassLists:
    from_folder, to_folder = source / benchmark.folder / "class-split", home / "class-split"
    for path in sorted(from_folder.rglob("*")):
        if path.is_file():
            target = to_folder / path.relative_to(from_folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)  # not the mode: the source may be read-only
    return read_class_lists(to_folder, benchmark, split)


def _clips(lists: ClassLists, stage: str, per_class: int | None) -> dict[int, list[str]]:
    """Names of clips by class, of all that the csv lists."""
    numbers = set(lists.stages[stage].tolist())
    path = lists.folder / lists.split / f"{stage}.csv"
    if per_class is None:
        if not path.exists():
            raise ValueError(f"{path} was not published: say per_class")
        every = ClassLists(
            lists.benchmark,
            lists.split,
            lists.folder,
            lists.classes,
            lists.manual,
            {stage: np.arange(len(lists.classes))},
        )
        listed = read_clips(every, stage)
        found: dict[int, list[str]] = {}
        for number, name in zip(listed.labels.tolist(), listed.names, strict=True):
            found.setdefault(number, []).append(name)
        return found
    return {n: [f"synthetic_{stage[6:]}_{n}_{i}" for i in range(per_class)] for n in numbers}


class _Maker:
    """Draws clips of a class: relu(A e + noise), scaled as the published features are."""

    def __init__(self, text, widths, noise, seed, preset, dtype):
        self.rng = np.random.default_rng(seed)
        # A row of A times an embedding of length one has a standard deviation of one.
        means = [text @ self.rng.normal(size=(text.shape[1], w)).astype(np.float32) for w in widths]
        self.means, self.noise, self.dtype = means, noise, dtype
        self.bytes, self.temporal = preset != "main", preset == "cls-temporal"

    def clips(self, number: int, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Audio and visual of ``count`` clips."""
        if not self.temporal:
            audio, visual = self._drawn(0, number, count), self._drawn(1, number, count)
            return list(audio.astype(self.dtype)), list(visual.astype(self.dtype))
        # A window of video every 0.64 s, of audio every 0.96 s.
        lengths = self.rng.integers(2, 16, count)
        visual = [self._drawn(1, number, int(n)) for n in lengths]
        audio = [self._drawn(0, number, -(-int(n) * 2 // 3)).astype(np.uint8) for n in lengths]
        return audio, visual

    def _drawn(self, modality: int, number: int, rows: int) -> np.ndarray:
        mean = self.means[modality][number]
        noise = self.rng.standard_normal((rows, len(mean)), dtype=np.float32)
        values = np.maximum(mean + np.float32(self.noise) * noise, 0)
        # VGGish with PCA is quantised to 0 .. 255.
        return np.minimum(values * 64, 255) if self.bytes and modality == 0 else values


def write_h5(path: Path, data: np.ndarray, names: list[str], fixed_urls: bool = False) -> None:
    """Write one class as AVCA publishes it."""
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data)
        if fixed_urls:
            file.create_dataset("video_urls", data=np.array(names, "S80"))
        else:
            file.create_dataset("video_urls", data=names, dtype=h5py.string_dtype())


def write_pkl(path: Path, sequences: list[np.ndarray], names: list[str]) -> None:
    """Write one class as TCaF publishes it."""
    encoded = [name.encode() for name in names]
    entry = {"features": sequences, "video_names": encoded, "fps": [25] * len(names)}
    path.write_bytes(pickle.dumps(entry))
