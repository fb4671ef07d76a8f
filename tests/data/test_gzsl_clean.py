"""The clean protocol of the zero-shot benchmarks: no recording in two stages."""

from collections import Counter

import numpy as np
import pytest
from gzsl_files import published, write_benchmark
from gzsl_named import tiny_benchmark

from neuroav.data import load_zero_shot
from neuroav.data.gzsl import load_benchmark
from neuroav.data.gzsl.clean import Named, deal, recording, shared_recordings
from neuroav.data.zeroshot import STAGES
from neuroav.errors import DataError

UCF = "ucf-gzsl"
CLASSES = {
    "stage_1_train": np.array([0, 1]),
    "stage_1_val_seen": np.array([0, 1]),
    "stage_1_val_unseen": np.array([2]),
    "stage_2_test_seen": np.array([0, 1, 2]),
    "stage_2_test_unseen": np.array([3]),
}
TRAIN, VAL, LATER, SEEN, UNSEEN = STAGES


def _named(*clips):
    """Clips (name, label, stage)."""
    names, labels, stages = zip(*clips, strict=True)
    return Named(names, np.array(labels), stages)


def _clips(label, stage, groups, each=2, of="v_C{}_g{:02}_c{:02}"):
    """``each`` clips of every group of a class."""
    return [(of.format(label, g, STAGES.index(stage) * each + c + 1), label, stage)
            for g in groups for c in range(each)]  # fmt: skip


def _leaky():
    """Every recording of the seen classes is in every stage of its class."""
    clips = []
    for label in (0, 1):
        for stage, groups in ((TRAIN, range(1, 21)), (VAL, range(1, 4)), (SEEN, range(1, 5))):
            clips += _clips(label, stage, groups)
    clips += _clips(2, LATER, range(1, 11)) + _clips(2, SEEN, range(1, 3))
    return _named(*clips, *_clips(3, UNSEEN, range(1, 6)))


@pytest.mark.parametrize(
    ("benchmark", "clip", "source"),
    [
        (UCF, "v_Archery_g01_c06", "v_Archery_g01"),
        (UCF, "v_Archery_1_train_0", None),
        ("vggsound-gzsl", "-0iEMffOYwo_000005", "-0iEMffOYwo"),
        ("vggsound-gzsl", "_cb_U_z_Ct0_000030", "_cb_U_z_Ct0"),  # underscores in the id
        ("vggsound-gzsl", "-0iEMffOYwo_5", None),
        ("activitynet-gzsl", "U0qUFAPUg_Y_10", "U0qUFAPUg_Y"),
        ("activitynet-gzsl", "-IkL9Kq9zfQ", None),
    ],
)
def test_recording_is_told_by_the_name_of_a_clip(benchmark, clip, source):
    assert recording(benchmark, clip) == source


def test_dealing_ends_every_overlap_and_keeps_the_shares():
    clips = _leaky()
    before = shared_recordings(UCF, clips.names, clips.stages)
    assert len(before) == 10
    assert before["v_C0_g01"] == (TRAIN, VAL, SEEN)
    dealt = deal(UCF, clips, CLASSES, 0)
    assert shared_recordings(UCF, clips.names, dealt.stages) == {}
    assert dealt.dropped == 0
    assert dealt.moved > 0
    for label, published_sizes in ((0, (40, 6, 8)), (2, (20, 4))):
        found = Counter(s for s, c in zip(dealt.stages, clips.labels, strict=True) if c == label)
        allowed = (TRAIN, VAL, SEEN) if label == 0 else (LATER, SEEN)
        assert set(found) == set(allowed)
        for stage, size in zip(allowed, published_sizes, strict=True):
            assert abs(found[stage] - size) <= 6  # one whole recording of up to six clips
    unseen = [s for s, c in zip(dealt.stages, clips.labels, strict=True) if c == 3]
    assert unseen == [UNSEEN] * 10


def test_dealing_depends_on_seed_and_names_alone():
    clips = _leaky()
    first = dict(zip(clips.names, deal(UCF, clips, CLASSES, 0).stages, strict=True))
    order = np.random.default_rng(3).permutation(len(clips.names))
    shuffled = Named(
        tuple(clips.names[i] for i in order),
        clips.labels[order],
        tuple(clips.stages[i] for i in order),
    )
    assert dict(zip(shuffled.names, deal(UCF, shuffled, CLASSES, 0).stages, strict=True)) == first
    assert dict(zip(clips.names, deal(UCF, clips, CLASSES, 1).stages, strict=True)) != first


ACT = "activitynet-gzsl"


def _video(label, stage, count, first=0):
    return [(f"video-{label}-{first + i:03}_0", label, stage) for i in range(count)]


@pytest.mark.parametrize(
    ("shared", "left"),
    [
        # an unseen class of the test and a class that is trained on
        ([("shared-vid0_0", 0, TRAIN), ("shared-vid0_1", 3, UNSEEN)], [None, UNSEEN]),
        ([("shared-vid0_0", 2, LATER), ("shared-vid0_1", 3, UNSEEN)], [None, UNSEEN]),
        ([("shared-vid0_0", 1, SEEN), ("shared-vid0_1", 3, UNSEEN)], [None, UNSEEN]),
        # validated as unseen and trained on before
        ([("shared-vid0_0", 0, TRAIN), ("shared-vid0_1", 2, LATER)], [None, "either"]),
        # two classes alike: together
        ([("shared-vid0_0", 0, TRAIN), ("shared-vid0_1", 1, VAL)], ["same", "same"]),
    ],
)
def test_recording_with_clips_of_several_classes(shared, left):
    clips = []
    for label in (0, 1):
        clips += _video(label, TRAIN, 6) + _video(label, VAL, 2, 6) + _video(label, SEEN, 2, 8)
    clips += _video(2, LATER, 6) + _video(2, SEEN, 2, 6) + _video(3, UNSEEN, 3)
    assert all(recording(ACT, name) for name, _, _ in clips + shared)
    for seed in range(5):
        named = _named(*clips, *shared)
        dealt = deal(ACT, named, CLASSES, seed)
        assert shared_recordings(ACT, named.names, dealt.stages) == {}
        found = dealt.stages[-2:]
        assert dealt.dropped == left.count(None)
        for stage, wanted in zip(found, left, strict=True):
            if wanted == "same":
                assert stage == found[0]
                assert stage in (TRAIN, VAL, SEEN)
            elif wanted == "either":
                assert stage in (LATER, SEEN)
            else:
                assert stage == wanted


def test_what_cannot_be_dealt_is_said():
    clips = _leaky()
    strange = _named(("v_C0_train_1", 0, TRAIN))
    with pytest.raises(DataError, match=r"'v_C0_train_1': its name does not tell its recording, a"):
        deal(UCF, strange, CLASSES, 0)
    few = _named(*_clips(0, TRAIN, [1]), *_clips(0, VAL, [1]), *_clips(0, SEEN, [2]))
    with pytest.raises(DataError, match=r"class number 0: .*at least 3 groups, found 2"):
        deal(UCF, few, CLASSES, 0)
    assert deal(UCF, clips, CLASSES, 0).dropped == 0


# --- from files ---------------------------------------------------------------------------------
@pytest.fixture
def root(tmp_path):
    return tiny_benchmark(tmp_path, UCF, "main")


def _all(data):
    """Every sample by name: its label and vectors."""
    return {
        name: (int(part.labels[i]), part.audio[i].tobytes(), part.visual[i].tobytes())
        for part in data.stages.values()
        for i, name in enumerate(part.names.tolist())
    }


def test_clean_preset_moves_samples_and_changes_nothing_else(root):
    paper = load_benchmark(UCF, data_root=root, preset="main", steps=2)
    clean = load_benchmark(UCF, data_root=root, preset="main-clean", steps=2)
    assert len(_all(paper)) == sum(len(p) for p in paper.stages.values()) > 100
    assert _all(clean) == _all(paper)
    stages = {s: p.names.tolist() for s, p in clean.stages.items()}
    names = [n for s in STAGES for n in stages[s]]
    assert shared_recordings(UCF, names, [s for s in STAGES for _ in stages[s]]) == {}
    assert all(len(clean.stages[s]) for s in STAGES)
    assert stages[UNSEEN] == sorted(paper.stages[UNSEEN].names.tolist())
    assert "clean protocol, data seed 0" in clean.notes[-1]
    assert "protocol as published: of 40 of 40 test clips of seen classes" in paper.notes[-1]


def test_data_seed_reaches_the_clean_presets_alone(root, tmp_path):
    def loaded(preset, seed):
        return load_zero_shot(
            UCF, preset=preset, steps=2, data_seed=seed, data_root=root, cache_dir=tmp_path
        ).content_hash

    assert loaded("main", 0) == loaded("main", 1)
    assert loaded("main-clean", 0) == loaded("main-clean", 0)
    hashes = {loaded("main", 0), *(loaded("main-clean", seed) for seed in range(3))}
    assert len(hashes) == 4


@pytest.mark.parametrize("preset", ["main", "cls", "cls-temporal"])
def test_clean_presets_on_the_real_lists_of_ucf(tmp_path, preset):
    written = write_benchmark(tmp_path, published(), preset=preset, widths=(4, 6))
    data = load_benchmark(UCF, data_root=written.root, preset=f"{preset}-clean", steps=2)
    names = [n for s in STAGES for n in data.stages[s].names.tolist()]
    stages = [s for s in STAGES for _ in range(len(data.stages[s]))]
    assert len(names) == (6816 if preset == "main" else 6394)
    assert shared_recordings(UCF, names, stages) == {}
    sizes = np.array([len(data.stages[s]) for s in STAGES[:4]])
    assert (np.abs(sizes / (3174, 353, 1467, 555) - 1) < 0.1).all()
