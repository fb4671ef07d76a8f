"""The generator of av-digits: same bits twice, and splits that share nothing."""

import importlib.util
import sys
from itertools import chain

import numpy as np
import pytest

from neuroav import data
from neuroav.data import avdigits, cache, speech
from neuroav.errors import DataError, MissingDependency


def _variant(voice: bytes) -> str:
    return voice.decode().partition("+")[2]


def _speaker(variant: str) -> tuple[str, ...]:
    return next(names for names in speech.SPEAKERS if variant in names)


def test_two_fresh_generations_are_bit_identical(prepared, tmp_path):
    again = data.prepare("av-digits", cache_dir=tmp_path, limit=200)
    assert again.name == prepared.name
    first, second = cache.read(prepared, ""), cache.read(again, "")
    assert len(first.audio["time"]) > 50_000
    assert len(first.visual["time"]) > 200_000
    for path, array in first.datasets().items():
        np.testing.assert_array_equal(array, second.datasets()[path], err_msg=path)
    assert first.content_hash == second.content_hash


def test_global_random_state_is_neither_used_nor_changed():
    np.random.seed(1)
    first = avdigits.generate("default", 0, 40).content_hash
    state = np.random.get_state()[1].copy()
    np.random.seed(1)
    np.testing.assert_array_equal(state, np.random.get_state()[1])
    np.random.seed(2)
    assert avdigits.generate("default", 0, 40).content_hash == first


def test_another_seed_gives_other_events():
    assert (
        avdigits.generate("default", 1, 40).content_hash
        != avdigits.generate("default", 2, 40).content_hash
    )


def test_whole_manifest_has_its_sizes_and_shares_no_picture():
    pictures, labels, split = avdigits._manifest(0, avdigits.PAIRS)
    assert np.bincount(split).tolist() == [1147, 200, 450]
    assert pictures.shape == (1797, 8, 8)
    assert 0 < pictures.max() <= 16
    from sklearn.datasets import load_digits

    bunch = load_digits()
    ours = sorted((label, *p.ravel()) for label, p in zip(labels, pictures, strict=True))
    theirs = sorted(
        (label, *p.ravel()) for label, p in zip(bunch.target, bunch.images, strict=True)
    )
    assert ours == theirs  # every picture exactly once


@pytest.mark.parametrize("count", [200, avdigits.PAIRS])
def test_labels_are_balanced_in_every_split_and_prefix(count):
    _, labels, split = avdigits._manifest(0, count)
    for code in range(3):
        counts = np.bincount(labels[split == code], minlength=10)
        assert counts.min() > 0
        assert counts.max() - counts.min() <= max(2, 0.06 * counts.mean())
    start = np.bincount(labels[split == 2][:20], minlength=10)
    assert set(start) <= {1, 2, 3}


def test_voices_are_disjoint_between_splits(small):
    heard = {}
    for name in ("train", "val", "test"):
        split = small.split(name)
        voices = split.recordings.source["voice"][split.rows]
        heard[name] = {_speaker(_variant(voice)) for voice in voices}
    assert min(len(speakers) for speakers in heard.values()) >= 7
    assert not heard["train"] & heard["test"]
    assert not heard["train"] & heard["val"]
    assert not heard["val"] & heard["test"]


@pytest.mark.parametrize("seed", range(5))
def test_voice_variants_are_shared_out_whole_by_speaker(seed):
    shares = speech.split_variants(np.random.default_rng(seed), avdigits.VOICES)
    assert {name: len(share) for name, share in shares.items()} == avdigits.VOICES
    assert sorted(chain(*shares.values())) == sorted(speech.VARIANTS)
    speakers = [{_speaker(variant) for variant in share} for share in shares.values()]
    assert sum(map(len, speakers)) == len(speech.SPEAKERS)


def test_the_word_spoken_is_the_label(small):
    labels = small.split("test").recordings.labels
    split = small.split("test").recordings.split
    words = [one.text for one in avdigits._utterances(0, labels, split)]
    assert words == [small.classes[label] for label in labels]


def test_presets_lose_what_they_say():
    count = 2000
    snr, drop = avdigits._conditions(avdigits.PRESETS["unreliable"], 0, count)
    deaf, blind = snr == -25, drop == 0.995
    assert deaf.mean() == pytest.approx(0.3, abs=0.03)
    assert blind.mean() == pytest.approx(0.3, abs=0.03)
    assert not (deaf & blind).any()
    assert snr[~deaf].min() >= 0
    assert snr[~deaf].max() <= 10
    assert np.isinf(avdigits._conditions(avdigits.PRESETS["easy"], 0, count)[0]).all()
    hard = avdigits._conditions(avdigits.PRESETS["hard"], 0, count)[0]
    assert (hard.min() < -9, hard.max() > -1) == (True, True)


def test_event_counts_are_those_of_real_sensors():
    clean = avdigits.generate("easy", 0, 60)
    assert 700 < np.median(clean.audio.counts) < 1300  # N-TIDIGITS: about 900
    assert 3500 < np.median(clean.visual.counts) < 4600  # N-MNIST: about 4200
    for events, window in ((clean.audio, 640_000), (clean.visual, 300_000)):
        assert events["time"].max() < window
        steps = np.diff(events["time"].astype(np.int64))
        within = np.diff(events.item) == 0
        assert (steps[within] >= 0).all()


@pytest.mark.parametrize(("limit", "seed"), [(39, 0), (1798, 0), (40, -1), (40, 2**31)])
def test_limits_and_seeds_out_of_range_are_refused(limit, seed):
    with pytest.raises(DataError, match="allowed are"):
        avdigits.generate("default", seed, limit)


def test_without_espeak_the_line_that_installs_it_is_named(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        speech.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "espeakng_loader" else real(name, *rest),
    )
    with pytest.raises(MissingDependency, match=r"pip install 'neuroav\[speech\]'"):
        data.prepare("av-digits", cache_dir=tmp_path, limit=40)


def test_an_espeak_that_does_not_load_is_reported(monkeypatch, tmp_path):
    broken = tmp_path / "espeakng_loader.py"
    broken.write_text("def get_library_path(): return '/nowhere/libespeak-ng.so'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"nowhere.*pip install 'neuroav\[speech\]'"):
        speech.speak([speech.Utterance("en", "one", 175, 50, 50)], 0)


@pytest.mark.parametrize(
    ("voice", "text", "reason"),
    [("xx-none", "one", "refused voice 'xx-none'"), ("en", "", "spoke nothing")],
)
def test_a_failed_utterance_is_reported(voice, text, reason):
    with pytest.raises(DataError, match=reason):
        speech.speak([speech.Utterance(voice, text, 175, 50, 50)], 0)


def test_espeak_stays_out_of_this_process_and_words_differ():
    waves, rate = speech.speak(
        [speech.Utterance("en+f1", word, 175, 50, 50) for word in ("two", "seven")], 0
    )
    assert "espeakng_loader" not in sys.modules
    assert [wave.dtype for wave in waves] == [np.int16, np.int16]
    assert all(0.1 < len(wave) / rate < 1 for wave in waves)
    assert np.abs(waves[0]).max() > 1000
    assert len(waves[0]) != len(waves[1])
