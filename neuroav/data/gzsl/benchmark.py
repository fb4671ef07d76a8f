"""The audio-visual zero-shot benchmarks by name, as ``ZeroShotData``.

Nothing of them is in the package. Below the data root, ``<set>`` being UCF, VGGSound or
ActivityNet, the parts are looked for in ``avgzsl_benchmark_datasets/<set>``,
``avgzsl_benchmark_non_averaged_datasets/<set>`` (as TCaF is published), ``avgzsl/<set>`` and
``<set>``; class lists, text and features may come from different ones of these:

- ``class-split`` (see ``classlists``);
- ``features/<kind>`` (see ``features``), <kind> as the preset says;
- ``features/<kind>/text/word_embeddings_*.npy``, or ``w2v_features`` beside the sets, or above.

Presets: ``main``: SeLaVi, audio 512 and video 512. ``cls``: VGGish 128 in 0 .. 255, not scaled,
and C3D 4096, which is 0 or more; fewer unseen classes, free of those that pretraining knew.
``cls-temporal``: the same as sequences. A file ``SYNTHETIC.txt`` in ``features/<kind>`` says that
its features are made up, and becomes a note of the data.

These follow the published protocol, in which clips of one recording are trained on and tested.
``main-clean``, ``cls-clean`` and ``cls-temporal-clean`` read the same files and deal the clips out
by recording (see ``clean``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from neuroav.data.gzsl import clean
from neuroav.data.gzsl.classlists import (
    BENCHMARKS,
    FOLDERS,
    RELEASE,
    BenchmarkSet,
    ClassLists,
    read_class_lists,
    read_clips,
)
from neuroav.data.gzsl.embeddings import avca_compat, by_name, read_embeddings
from neuroav.data.gzsl.features import (
    TEMPORAL_RELEASE,
    read_stage,
    static_layout,
    temporal_layout,
)
from neuroav.data.zeroshot import STAGE_2_TEST_SEEN, STAGES, Features, ZeroShotData
from neuroav.errors import DataError, unknown_name

_ROOTS = ("avgzsl_benchmark_datasets", "avgzsl_benchmark_non_averaged_datasets", "avgzsl", ".")
_TEXT_FOLDER = "w2v_features"
SYNTHETIC = "SYNTHETIC.txt"  # beside the feature files where they are no recordings


@dataclass(frozen=True)
class GzslPreset:
    """kinds: names of its folder of features, the published one first; split: of the classes;
    source: who publishes the files; temporal: whether they hold sequences; clean: whether clips are
    dealt out by recording."""

    kinds: tuple[str, ...]
    split: str
    source: str
    temporal: bool = False
    clean: bool = False


_PUBLISHED: dict[str, GzslPreset] = {
    "main": GzslPreset(("main_features",), "main_split", RELEASE),
    "cls": GzslPreset(("cls_features",), "cls_split", RELEASE),
    # The second name is what the script published with TCaF makes.
    "cls-temporal": GzslPreset(
        ("cls_features_non_averaged", "cls_features_no_averaged"),
        "cls_split",
        TEMPORAL_RELEASE,
        temporal=True,
    ),
}
PRESET_FILES: dict[str, GzslPreset] = _PUBLISHED | {
    f"{name}-clean": replace(preset, clean=True) for name, preset in _PUBLISHED.items()
}
PRESETS = tuple(PRESET_FILES)
DEFAULT_STEPS = 10  # of published spiking networks on these benchmarks


def load_benchmark(
    name: str, *, data_root: Path | None, preset: str, steps: int, data_seed: int = 0
) -> ZeroShotData:
    """Read ``name`` ('ucf-gzsl', 'vggsound-gzsl', 'activitynet-gzsl') from below ``data_root``.

    data_seed: of the dealing in clean presets; the others do not depend on it. DataError for an
    unknown name or preset, fewer than one step, or what is missing or does not fit together, and
    in clean presets for clips whose names do not tell their recordings; FileFormatError for a
    damaged or refused file. Each names the file or folder.
    """
    if name not in BENCHMARKS:
        raise unknown_name("zero-shot benchmark", name, BENCHMARKS, DataError)
    if preset not in PRESETS:
        raise unknown_name(f"preset of {name}", preset, PRESETS, DataError)
    if steps < 1:
        raise DataError(f"{name}: {steps} steps, at least 1 is needed")
    benchmark, chosen = BENCHMARKS[name], PRESET_FILES[preset]
    root = _require_root(data_root, benchmark, chosen)
    lists = find_class_lists(root, benchmark, chosen.split)
    embeddings = read_embeddings(_find_text(root, benchmark, chosen))
    # A folder of text alone is none of features.
    audio = tuple(f"features/{kind}/audio" for kind in chosen.kinds)
    folder = _find(root, benchmark, audio, "features", chosen.source).parent
    layout = temporal_layout(steps) if chosen.temporal else static_layout()
    stages = {stage: read_stage(folder, stage, lists, layout) for stage in STAGES}
    stage_classes = {stage: lists.stages[stage] for stage in STAGES}
    notes = _notes(folder, lists, stages)
    if chosen.clean:
        stages, dealt = clean.clean_stages(name, stages, stage_classes, data_seed)
        notes += (dealt,)
    elif shared := _shared(name, stages):
        notes += (shared,)
    return ZeroShotData(
        name=name,
        preset=preset,
        classes=lists.classes,
        stages=stages,
        stage_classes=stage_classes,
        text=by_name(embeddings, lists),
        text_compat=avca_compat(embeddings, lists),
        steps=steps,
        notes=notes,
    )


def find_class_lists(data_root: Path, benchmark: BenchmarkSet, split: str) -> ClassLists:
    """Read the class lists from below ``data_root``. Errors as ``load_benchmark``."""
    folder = _find(data_root, benchmark, FOLDERS, "class lists", RELEASE)
    return read_class_lists(folder, benchmark, split)


def _require_root(data_root: Path | None, benchmark: BenchmarkSet, preset: GzslPreset) -> Path:
    wanted = (
        f"{benchmark.name} is read from files that are not part of this package, from {RELEASE}"
        f"{' and ' + preset.source if preset.source != RELEASE else ''}: "
        f"{_ROOTS[0]}/{benchmark.folder} with {FOLDERS[0]} and features/{preset.kinds[0]}"
    )
    if data_root is None:
        raise DataError(
            f"{wanted}; name the folder that holds them with --data-root DIR or NEUROAV_DATA=DIR"
        )
    root = Path(data_root)
    if not root.is_dir():
        raise DataError(f"data root {root}: there is no such folder; {wanted}")
    return root


def _homes(root: Path, benchmark: BenchmarkSet) -> list[Path]:
    """Where files of the set may lie, the most specific place first."""
    return [root / place / benchmark.folder for place in _ROOTS]


def _find(
    root: Path, benchmark: BenchmarkSet, names: tuple[str, ...], what: str, source: str
) -> Path:
    """The first folder there is with one of the names; DataError saying where it was looked for."""
    for home in _homes(root, benchmark):
        for name in names:
            if (home / name).is_dir():
                return home / name
    raise DataError(
        f"{benchmark.name}: no {what}: there is no folder {' or '.join(names)} in "
        f"{root}/{benchmark.folder}, nor in {benchmark.folder} below {', '.join(_ROOTS[:-1])} of "
        f"{root}; it is part of {source}"
    )


def _find_text(root: Path, benchmark: BenchmarkSet, preset: GzslPreset) -> Path:
    homes = _homes(root, benchmark)
    kinds = dict.fromkeys((*preset.kinds, "main_features", "cls_features"))
    places = [home / "features" / kind / "text" for kind in kinds for home in homes]
    places += [home.parent / _TEXT_FOLDER for home in homes] + [root / _TEXT_FOLDER]
    for place in places:
        if (place / benchmark.text).is_file():
            return place / benchmark.text
    raise DataError(
        f"{benchmark.name}: no text embeddings: there is no {benchmark.text} in "
        f"features/{preset.kinds[0]}/text of {homes[0]}, nor in {_TEXT_FOLDER} beside the sets; it "
        f"is part of {RELEASE}"
    )


def _notes(folder: Path, lists: ClassLists, stages: Mapping[str, Features]) -> tuple[str, ...]:
    """What a reader of results must know: features that are made up, clips not as listed."""
    notes = []
    if (folder / SYNTHETIC).is_file():
        notes.append("the features are synthetic: results say nothing about recordings")
    differing = []
    for stage, features in stages.items():
        clips = read_clips(lists, stage)
        if clips is None:
            continue
        listed = sorted(zip(clips.labels.tolist(), clips.names, strict=True))
        found = sorted(zip(features.labels.tolist(), features.names.tolist(), strict=True))
        if listed != found:
            both = len(set(listed) & set(found))
            differing.append(f"{stage} {len(found)} against {len(listed)}, {both} in both")
    if differing:
        notes.append(f"clips with features are not those of the lists: {'; '.join(differing)}")
    return tuple(notes)


def _shared(name: str, stages: Mapping[str, Features]) -> str:
    """What the published protocol shares between training and test, '' where nothing is told."""
    names = [clip for part in stages.values() for clip in part.names.tolist()]
    of_clips = [stage for stage, part in stages.items() for _ in range(len(part))]
    found = clean.shared_recordings(name, names, of_clips)
    trained = set(STAGES[:3])
    leaked = {r for r, s in found.items() if STAGE_2_TEST_SEEN in s and trained & set(s)}
    if not leaked:
        return ""
    tested = stages[STAGE_2_TEST_SEEN].names.tolist()
    clips = sum(clean.recording(name, clip) in leaked for clip in tested)
    return (
        f"protocol as published: of {clips} of {len(tested)} test clips of seen classes, other "
        "clips of the same recording are in training or validation; a clean preset has none"
    )
