"""Clean protocols share nothing with their tests, counted on the real tables."""

import sys
from pathlib import Path

import pytest
import samples

sys.path.insert(0, str(samples.ROOT / "benchmarks"))
import clean_splits

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def tables(recordings):
    """Rows of every table and seed, measured once."""
    kept = {}

    def measured(name, seed):
        if (name, seed) not in kept:
            kept[name, seed] = clean_splits.TABLES[name](recordings, seed)
        return kept[name, seed]

    return measured


@pytest.mark.parametrize(
    ("name", "seed"), [*((name, 0) for name in clean_splits.TABLES), ("ucf-gzsl", 1), ("cremad", 1)]
)
def test_nothing_tested_is_trained_on_in_a_clean_protocol(tables, name, seed):
    clean = [row for row in tables(name, seed) if row.is_clean]
    assert clean
    for row in clean:
        assert row.groups > 1
        assert sum(row.samples.values()) > 100
        assert all(size > 0 for size in row.samples.values())
        assert row.tested == 0, row
        if "validation hears" not in row.note:
            assert row.shared == 0, row


@pytest.mark.parametrize(
    ("name", "samples_by_split", "groups", "shared", "tested"),
    [
        ("cremad", (6698, 744), 91, 91, 91),
        ("ucf-gzsl", (3174, 353, 1467, 555, 1267), 1271, 640, 460),
        ("vggsound-gzsl", (7817, 3102, 9032, 3450), 22574, 327, 327),
        ("activitynet-gzsl", (9204, 1023, 4307, 1615, 4199), 13453, 1007, 671),
        ("fsdd", (1800, 200), 4, 4, 4),
    ],
)
def test_what_published_protocols_share(tables, name, samples_by_split, groups, shared, tested):
    row = next(row for row in tables(name, 0) if row.protocol == "paper")
    assert sorted(row.samples.values()) == sorted(samples_by_split)
    assert (row.groups, row.shared, row.tested) == (groups, shared, tested)


def test_clips_of_a_published_test_that_are_known_from_training(tables):
    notes = {
        name: next(r.note for r in tables(name, 0) if r.protocol == "paper")
        for name in ("ucf-gzsl", "vggsound-gzsl", "activitynet-gzsl")
    }
    assert notes["ucf-gzsl"] == "555 of 555 test clips of seen classes"
    assert notes["activitynet-gzsl"].startswith("784 of 1615 test clips")
    assert (
        "stage_1_train.csv was not published: overlaps are at least these" in notes["vggsound-gzsl"]
    )


def test_data_seeds_are_different_folds(recordings):
    from neuroav.data.published.single import NMNIST

    tested = [
        {
            i.name
            for i in NMNIST.plan("train-only", seed, None, recordings).items
            if i.split == "test"
        }
        for seed in SEEDS
    ]
    assert tested[0] != tested[1]


def test_overlaps_are_seen():
    """The count can fail: one speaker in train and test, one in both tests."""
    entries = [("train", {"speaker": "a"}), ("test", {"speaker": "a"}), ("val", {"speaker": "b"}),
               ("test", {"speaker": "c"}), ("unseen", {"speaker": "c"})]  # fmt: skip
    (row,) = clean_splits.rows("x", "clean", entries, ("test", "unseen"))
    assert (row.groups, row.shared, row.tested) == (3, 2, 1)
    assert "| x | clean | 3 speakers | train 1, test 2, val 1, unseen 1 | 2 | 1 |" in (
        clean_splits.table([row])
    )


def test_command_prints_a_table_and_what_is_left_out(tmp_path, monkeypatch, capsys):
    few = {name: clean_splits.TABLES[name] for name in ("fsdd", "ucf-gzsl")}
    monkeypatch.setattr(clean_splits, "TABLES", few)
    monkeypatch.setattr(sys, "argv", ["clean_splits.py", "--data-root", str(Path(tmp_path))])
    assert clean_splits.main() == 0
    said = capsys.readouterr()
    assert "| nmnist-fsdd | clean, tests theo | 4 speakers |" in said.out
    assert "ucf-gzsl: left out: " in said.err
