"""Zero-shot data: stages to splits, alignment of the text, av-attributes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zero_shot_data

from neuroav import data
from neuroav.data import avattributes, is_zero_shot, load_zero_shot
from neuroav.data import zeroshot as zs
from neuroav.data.attributes import LIT, NAMES, PHONES, attributes, class_vectors
from neuroav.errors import DataError


def test_splits_are_made_of_their_stages_and_balanced_from_the_start():
    made = zero_shot_data.make()
    sizes = {name: len(made.split(name)) for name in ("train", "val", "test")}
    assert sizes == {"train": 8 * 10, "val": 8 * 6, "test": 8 * 8}
    first = made.split("test").labels[:8]
    assert np.isin(first, made.unseen).sum() == 2  # 2 of 8 classes
    assert made.sought.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert made.seen.tolist() == [0, 1, 2, 3, 4, 5]


def test_frames_repeat_a_vector_without_copying_and_keep_a_sequence():
    made = zero_shot_data.make()
    frames = made.split("val").frames([3, 1])
    assert frames.audio.shape == (2, zero_shot_data.STEPS, zero_shot_data.AUDIO)
    assert frames.audio.strides[1] == 0
    sequence = np.zeros((2, 3, 5), np.float32)
    assert zs.in_steps(sequence, 3) is sequence
    with pytest.raises(DataError, match="set data.steps"):
        zs.in_steps(sequence, 4)
    with pytest.raises(DataError, match="allowed are 0 to 47"):
        made.split("val").frames([48])


def test_the_content_hash_sees_every_part():
    base = zero_shot_data.make()
    stage = base.stages[zs.STAGE_2_TEST_UNSEEN]
    audio = stage.audio.copy()
    audio[-1, -1] += 1
    changed = [
        replace(base, steps=base.steps + 1),
        replace(base, text=np.roll(base.text, 1, axis=1)),
        replace(base, text_compat=None),
        replace(base, classes=(*base.classes[:-1], "other")),
        replace(base, stages={**base.stages, zs.STAGE_2_TEST_UNSEEN: replace(stage, audio=audio)}),
    ]
    assert len({base.content_hash, *(c.content_hash for c in changed)}) == 1 + len(changed)


def test_bad_features_are_refused():
    made = zero_shot_data.make().stages[zs.STAGE_1_TRAIN]
    with pytest.raises(DataError, match="needs float32"):
        replace(made, audio=made.audio.astype(np.float64))
    with pytest.raises(DataError, match="differ in their number"):
        replace(made, labels=made.labels[1:])
    broken = made.visual.copy()
    broken[0, 0] = np.inf
    with pytest.raises(DataError, match="1 values are NaN or infinite"):
        replace(made, visual=broken)


def test_labels_outside_their_stage_are_refused():
    made = zero_shot_data.make()
    stage = made.stages[zs.STAGE_1_TRAIN]
    wrong = replace(stage, labels=np.full_like(stage.labels, 7))
    with pytest.raises(DataError, match="classes not listed: class 7"):
        replace(made, stages={**made.stages, zs.STAGE_1_TRAIN: wrong})


def test_text_by_alignment():
    made = zero_shot_data.make()
    assert len(made.misaligned) == zero_shot_data.CLASSES
    assert (made.embeddings("avca_compat") == np.roll(made.text, 1, axis=0)).all()
    alone = replace(made, text_compat=None)
    assert len(alone.misaligned) == 0
    with pytest.raises(DataError, match="use 'by_name'"):
        alone.embeddings("avca_compat")
    with pytest.raises(DataError, match="did you mean 'by_name'"):
        made.embeddings("by_nam")


# --- av-attributes -----------------------------------------------------------------------------
def test_attributes_say_what_the_digits_are():
    table = attributes()
    assert table.shape == (10, len(NAMES))
    assert len({row.tobytes() for row in table}) == 10
    lit = {d: {n[-1] for n, on in zip(NAMES, table[d], strict=True) if on and n[:7] == "segment"}
           for d in range(10)}  # fmt: skip
    assert lit == {d: set(segments) for d, segments in enumerate(LIT)}
    assert [bool(table[d, NAMES.index("two syllables")]) for d in range(10)] == [
        d in (0, 7) for d in range(10)
    ]
    # three, THree; one ends in a nasal; two and three end in a vowel
    assert table[3, NAMES.index("onset dental")]
    assert table[1, NAMES.index("coda nasal")]
    assert not any(table[d, i] for d in (0, 2, 3) for i, n in enumerate(NAMES) if n[:4] == "coda")
    assert len(PHONES) == 10


def test_class_vectors_have_length_1_and_nothing_in_common():
    for part in class_vectors():
        assert np.allclose(np.linalg.norm(part, axis=1), 1)
        assert np.abs(part.mean(axis=0)).max() < 0.25


@pytest.fixture(scope="module")
def pairs(av_cache):
    return load_zero_shot("av-attributes", preset="default", steps=5, cache_dir=av_cache)


@pytest.fixture(scope="module")
def av_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_pairs_hold_out_combinations_and_share_no_recording(pairs):
    assert len(pairs.classes) == 100
    assert {s: len(c) for s, c in pairs.stage_classes.items()} == {
        "stage_1_train": 50,
        "stage_1_val_seen": 50,
        "stage_1_val_unseen": 20,
        "stage_2_test_seen": 70,
        "stage_2_test_unseen": 30,
    }
    heard, seen = np.divmod(pairs.seen, 10)
    assert (np.bincount(heard) == 7).all()  # every sound and every picture is trained on
    assert (np.bincount(seen) == 7).all()
    assert not np.intersect1d(pairs.seen, pairs.unseen).size
    names = {s: {r for n in f.names for r in str(n).split("+")} for s, f in pairs.stages.items()}
    assert all(n.startswith("test-") for n in names["stage_2_test_seen"])
    assert all(n.startswith("test-") for n in names["stage_2_test_unseen"])
    assert all(n.startswith("train-") for n in names["stage_1_train"])
    assert all(n.startswith("val-") for n in names["stage_1_val_seen"])


def test_pairs_join_a_sound_and_a_picture_of_their_class(pairs, av_cache):
    base = data.load("av-digits", preset="easy", cache_dir=av_cache, spec=avattributes.SPEC)
    part, source = pairs.stages["stage_2_test_unseen"], base.split("test")
    for row in (0, 17, 99):
        heard, seen = (int(n.split("-")[1]) for n in str(part.names[row]).split("+"))
        assert divmod(int(part.labels[row]), 10) == (source.labels[heard], source.labels[seen])
        frames = source.frames([heard, seen])
        assert np.allclose(part.audio[row], np.log1p(frames.audio[0].sum(-1, dtype=int).ravel()))
        assert np.allclose(part.visual[row], np.log1p(frames.visual[1].sum(0, dtype=int).ravel()))


def test_pairs_repeat_with_the_seed(pairs, av_cache):
    again = load_zero_shot("av-attributes", preset="default", steps=5, cache_dir=av_cache)
    assert again.content_hash == pairs.content_hash


def test_single_digits_hold_out_three(av_cache):
    digits = load_zero_shot("av-attributes", preset="digits", steps=5, cache_dir=av_cache)
    assert len(digits.classes) == 10
    assert len(digits.unseen) == 3
    assert len(digits.stage_classes["stage_1_val_unseen"]) == 2
    assert not np.intersect1d(digits.seen, digits.unseen).size
    assert sum(len(digits.stages[s]) for s in ("stage_2_test_seen", "stage_2_test_unseen")) == 450


def test_names_and_presets_are_checked(av_cache):
    assert is_zero_shot("av-attributes")
    assert not is_zero_shot("av-digits")
    with pytest.raises(DataError, match="did you mean 'digits'"):
        load_zero_shot("av-attributes", preset="digit", steps=5, cache_dir=av_cache)
    with pytest.raises(DataError, match="holds events"):
        load_zero_shot("av-digits", preset="default", steps=5, cache_dir=av_cache)
    with pytest.raises(DataError, match="load_zero_shot reads it"):
        data.load("av-attributes", cache_dir=av_cache)
    with pytest.raises(DataError, match="--data-root"):
        load_zero_shot("ucf-gzsl", preset="main", steps=5, cache_dir=av_cache)


def test_described_and_prepared(pairs, av_cache):
    facts = data.describe("av-attributes", cache_dir=av_cache)
    assert facts["prepared"]
    assert facts["stages"]["stage_2_test_unseen"] == {"classes": 30, "samples": 300}
    assert facts["text"] == len(NAMES)
    assert data.prepare("av-attributes", cache_dir=av_cache).is_file()
    missing = data.describe("ucf-gzsl", preset="main", cache_dir=av_cache)
    assert not missing["prepared"]
