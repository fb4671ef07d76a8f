"""Class lists, splits and text embeddings: the published ones, and made-up ones that are wrong."""

import io
import os
import pickle
import shutil

import numpy as np
import pytest
from gzsl_files import MADE_UP_DROPPED, make_lists, published, write_embeddings

from neuroav.data.gzsl import BENCHMARKS, find_class_lists, read_class_lists, stage_counts
from neuroav.data.gzsl.classlists import ALL_STAGES, STAGE_2_TRAIN, read_clips
from neuroav.data.gzsl.embeddings import avca_compat, by_name, misaligned, read_embeddings
from neuroav.data.gzsl.pickled import unpickled
from neuroav.errors import DataError, FileFormatError

UCF = BENCHMARKS["ucf-gzsl"]

# (classes, clips) per stage, in the order of ALL_STAGES; test_unseen by split.
SEEN = {
    "ucf-gzsl": [(30, 3174), (30, 353), (12, 1467), (42, 4994), (42, 555)],
    "vggsound-gzsl": [(138, None), (138, 7817), (69, 3102), (207, None), (207, 9032)],
    "activitynet-gzsl": [(99, 9204), (99, 1023), (51, 4307), (150, 14534), (150, 1615)],
}
UNSEEN = {
    ("ucf-gzsl", "main_split"): (9, 1267),
    ("ucf-gzsl", "cls_split"): (6, 845),
    ("vggsound-gzsl", "main_split"): (69, 3450),
    ("vggsound-gzsl", "cls_split"): (64, 3200),
    ("activitynet-gzsl", "main_split"): (50, 4199),
    ("activitynet-gzsl", "cls_split"): (48, 4052),
}
# Classes with another's embedding in the published loader: of all, of test_unseen.
MISALIGNED = {
    ("ucf-gzsl", "main_split"): (79, 101, 5),
    ("ucf-gzsl", "cls_split"): (79, 101, 4),
    ("vggsound-gzsl", "main_split"): (205, 309, 42),
    ("vggsound-gzsl", "cls_split"): (205, 309, 38),
    ("activitynet-gzsl", "main_split"): (8, 200, 1),
    ("activitynet-gzsl", "cls_split"): (8, 200, 1),
}


def _published(name, split):
    benchmark = BENCHMARKS[name]
    return read_class_lists(published() / benchmark.folder / "class-split", benchmark, split)


@pytest.fixture
def made_up(tmp_path):
    """Folder of made-up lists of UCF, and of embeddings."""
    return make_lists(tmp_path / "source")


def _read(source, benchmark=UCF, split="main_split"):
    return read_class_lists(source / benchmark.folder / "class-split", benchmark, split)


def _edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# --- published lists ----------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "split"), UNSEEN)
def test_published_counts(name, split):
    counts = stage_counts(_published(name, split))
    found = [(counts[stage].classes, counts[stage].clips) for stage in ALL_STAGES]
    assert found == [*SEEN[name], UNSEEN[name, split]]


@pytest.mark.parametrize(("name", "split"), UNSEEN)
def test_published_stages_hold_classes_out(name, split):
    stages = _published(name, split).stages
    train, val_unseen = stages["stage_1_train"], stages["stage_1_val_unseen"]
    assert np.array_equal(train, stages["stage_1_val_seen"])
    assert not np.intersect1d(train, val_unseen).size
    assert np.array_equal(stages[STAGE_2_TRAIN], np.union1d(train, val_unseen))
    assert np.array_equal(stages["stage_2_test_seen"], stages[STAGE_2_TRAIN])
    for stage in ALL_STAGES[:-1]:
        assert not np.intersect1d(stages[stage], stages["stage_2_test_unseen"]).size
    assert all((np.diff(classes) > 0).all() for classes in stages.values())


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("ucf-gzsl", {"BandMarching", "BrushingTeeth", "Typing"}),
        ("vggsound-gzsl", {"airplane", "helicopter", "sharpen knife", "thunder", "wind chime"}),
        ("activitynet-gzsl", {"Brushingteeth", "Knitting"}),
    ],
)
def test_cls_split_drops_unseen_classes_only(name, dropped):
    main, cls = _published(name, "main_split"), _published(name, "cls_split")
    for stage in ALL_STAGES:
        gone = np.setdiff1d(main.stages[stage], cls.stages[stage])
        assert {main.classes[i] for i in gone} == (
            dropped if stage == "stage_2_test_unseen" else set()
        )


@pytest.mark.parametrize(("name", "split"), MISALIGNED)
def test_published_embeddings_and_their_two_alignments(name, split):
    lists = _published(name, split)
    embeddings = read_embeddings(published() / "w2v_features" / lists.benchmark.text)
    right, used = by_name(embeddings, lists), avca_compat(embeddings, lists)
    differs = np.flatnonzero((right != used).any(axis=1))
    unseen = lists.stages["stage_2_test_unseen"]
    assert (len(differs), len(right), len(np.intersect1d(differs, unseen))) == MISALIGNED[
        name, split
    ]
    assert np.array_equal(differs, misaligned(lists))
    assert right.shape == (len(lists.classes), 300)
    assert right.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(right, axis=1), 1, atol=1e-5)


def test_published_misalignment_is_a_shift_of_names():
    """CleanAndJerk is called Weight Lifting, so its successors move up by one."""
    lists = _published("ucf-gzsl", "main_split")
    embeddings = read_embeddings(published() / "w2v_features" / lists.benchmark.text)
    used = avca_compat(embeddings, lists)
    assert lists.manual[lists.number("CleanAndJerk")] == "Weight Lifting"
    for original, taken in (
        ("CuttingInKitchen", "Diving"),
        ("PlayingFlute", "Playing Guitar"),
        ("ShavingBeard", "Shotput"),
    ):
        assert np.array_equal(used[lists.number(original)], embeddings[taken])


def test_published_names_with_commas():
    lists = _published("vggsound-gzsl", "main_split")
    number = lists.number("child speech, kid speaking")
    assert lists.manual[number] == "kid speaking"
    assert lists.number("Child speech, kid speaking") is None


# --- made-up lists ------------------------------------------------------------------------------
def test_class_number_is_its_place_in_the_sorted_list_capitals_first(made_up):
    path = made_up / "UCF/class-split/all_class.txt"
    path.write_text("".join(sorted(path.read_text().splitlines(keepends=True), reverse=True)))
    lists = _read(made_up)
    assert lists.classes == (
        "Archery",
        "Basketball",
        "CleanAndJerk",
        "Drumming",
        "PlayingCello",
        "YoYo",
        "diving",
    )
    assert lists.manual[5] == "Yo Yo, playing"


def test_ucf_names_match_without_regard_to_case(made_up):
    folder = made_up / "UCF/class-split"
    for path in (folder / "main_split").iterdir():
        path.write_text(path.read_text().replace("Archery", "archery"))
    _edit(folder / UCF.names, "Archery,", "ARCHERY,")
    lists = _read(made_up)
    assert lists.number("aRCHERY") == 0
    assert read_clips(lists, "stage_1_train").labels.tolist() == [0] * 3 + [2] * 3 + [6] * 3
    folder.parent.rename(made_up / "VGGSound")
    (made_up / "VGGSound/class-split" / UCF.names).rename(
        made_up / "VGGSound/class-split/vggsound_w2v_class_names.csv"
    )
    with pytest.raises(DataError, match=r"vggsound_w2v_class_names\.csv line .*'ARCHERY'.* not in"):
        _read(made_up, BENCHMARKS["vggsound-gzsl"])


def test_txt_decides_which_clips_of_the_csv_count(made_up):
    main, cls = _read(made_up), _read(made_up, split="cls_split")
    assert (stage_counts(main)["stage_2_test_unseen"].clips, main.split) == (6, "main_split")
    assert stage_counts(cls)["stage_2_test_unseen"].clips == 3
    clips = read_clips(cls, "stage_2_test_unseen")
    assert cls.number(MADE_UP_DROPPED) not in clips.labels.tolist()


def test_csv_and_stage_2_train_may_be_absent(made_up):
    folder = made_up / "UCF/class-split/main_split"
    (folder / "stage_1_train.csv").unlink()
    (folder / "stage_2_train.csv").unlink()
    (folder / "stage_2_train.txt").unlink()
    counts = stage_counts(_read(made_up))
    assert counts["stage_1_train"].clips is counts[STAGE_2_TRAIN].clips is None
    assert counts[STAGE_2_TRAIN].classes == 5


def test_columns_are_found_by_name(made_up):
    path = made_up / "UCF/class-split/main_split/stage_1_train.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("".join(f"x,{c},{a},{b}\n" for a, b, c in rows))
    assert stage_counts(_read(made_up))["stage_1_train"].clips == 9


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("main_split/stage_1_train.txt", "Archery", "Arching", r"stage_1_train\.txt.*'Arching'"),
        ("main_split/stage_1_train.txt", "diving", "Archery", r"'Archery' is there twice"),
        (
            "main_split/stage_2_test_unseen.txt",
            "PlayingCello",
            "diving",
            r"stage_2_test_unseen\.txt.*disjoint.*'diving'",
        ),
        ("main_split/stage_1_val_seen.txt", "diving\n", "", r"val_seen\.txt.*equal.*'diving'"),
        ("main_split/stage_1_val_unseen.txt", "YoYo", "diving", r"val_unseen\.txt.*disjoint"),
        ("main_split/stage_2_test_seen.txt", "YoYo", "PlayingCello", r"test_seen\.txt.*among"),
        ("main_split/stage_2_train.txt", "YoYo\n", "", r"stage_2_train\.txt.*equal"),
        ("all_class.txt", "diving", "archery", r"all_class\.txt: 'archery' is there twice"),
        ("ucf_w2v_class_names.csv", "diving,D\n", "", r"class_names\.csv: 1 classes.*'diving'"),
        ("ucf_w2v_class_names.csv", "manual", "hand", r"columns original, hand, needs"),
        ("ucf_w2v_class_names.csv", "diving,D", "diving,Drumming", r"'Drumming' is there twice"),
        ("ucf_w2v_class_names.csv", "diving,D", "diving", r"csv line 8: needs 2 values.*cut"),
    ],
)
def test_wrong_lists_give_one_error_naming_the_file(made_up, file, old, new, said):
    _edit(made_up / "UCF/class-split" / file, old, new)
    with pytest.raises(DataError, match=said) as caught:
        _read(made_up)
    assert str(made_up) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",Archery,0", ",Arching,0", r"stage_1_train\.csv line 2: label 'Arching'"),
        (",Archery,0", ",Archery,1", r"label 'Archery' with label_code 1.* numbers 0"),
        (",Archery,0", ",Archery", r"line 2: needs 3 values"),
        ("filename", "file", r"columns file, label, label_code, needs filename, label"),
    ],
)
def test_wrong_csv_gives_one_error_naming_the_line(made_up, old, new, said):
    _edit(made_up / "UCF/class-split/main_split/stage_1_train.csv", old, new)
    with pytest.raises(DataError, match=said):
        stage_counts(_read(made_up))


@pytest.mark.parametrize("file", ["all_class.txt", UCF.names, "main_split/stage_1_train.txt"])
def test_missing_empty_or_binary_lists(made_up, file):
    path = made_up / "UCF/class-split" / file
    path.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(DataError, match=f"{path.name} cannot be read as text"):
        _read(made_up)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=rf"{path.name}(:| lists no class)"):
        _read(made_up)
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name} is missing.*AVCA-GZSL release"):
        _read(made_up)


def test_unknown_split(made_up):
    with pytest.raises(DataError, match="unknown class split 'main'"):
        _read(made_up, split="main")


# --- embeddings ---------------------------------------------------------------------------------
@pytest.fixture
def file(made_up):
    return made_up / "w2v_features" / UCF.text


def _save(path, value):
    np.save(path, np.array(value, dtype=object), allow_pickle=True)


def test_made_up_alignments(made_up, file):
    lists, embeddings = _read(made_up), read_embeddings(file)
    manual = ["Archery", "Basketball", "Weight Lifting", "Drumming", "Cello", "Yo Yo, playing", "D"]
    assert np.array_equal(by_name(embeddings, lists), np.stack([embeddings[n] for n in manual]))
    used = avca_compat(embeddings, lists)
    assert np.array_equal(used, np.stack([embeddings[n] for n in sorted(manual)]))
    assert misaligned(lists).tolist() == [2, 3, 4, 5, 6]


def test_embeddings_must_be_those_of_the_classes(made_up, file):
    lists, embeddings = _read(made_up), read_embeddings(file)
    more = {**embeddings, "Yodel": embeddings["D"]}
    for align in (by_name, avca_compat):
        with pytest.raises(DataError, match=rf"{UCF.text}: 'Yodel' is no class"):
            align(more, lists)
        with pytest.raises(DataError, match="'D' has no embedding"):
            align({k: v for k, v in embeddings.items() if k != "D"}, lists)


@pytest.mark.parametrize(("protocol", "numpy_1"), [(3, False), (4, False), (5, False), (3, True)])
def test_pickles_of_every_protocol_and_of_both_numpy(tmp_path, protocol, numpy_1):
    stored = {"a": np.arange(300, dtype=np.float32), "b": np.arange(300, dtype=">f8")}
    content = pickle.dumps(np.array(stored, dtype=object), protocol=protocol)
    if numpy_1:  # up to protocol 3 a name is a line of text, so another length does no harm
        content = content.replace(b"numpy._core", b"numpy.core")
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    path = tmp_path / "e.npy"
    path.write_bytes(stream.getvalue() + content)
    found = read_embeddings(path)
    assert all(
        np.array_equal(found[k], v) and found[k].dtype == np.float32 for k, v in stored.items()
    )


class _Hostile:
    """Pickles into a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_hostile_embeddings_are_refused_and_not_run(tmp_path, file):
    marker = tmp_path / "was_run"
    for hostile in (
        _Hostile(os.system, f"touch {marker}"),
        _Hostile(eval, f"open({str(marker)!r}, 'w')"),
        _Hostile(np.save, str(marker), np.zeros(3)),
        _Hostile(getattr, "text", "upper"),
    ):
        _save(file, {"a": np.ones(300, np.float32), "b": hostile})
        name = hostile.call[0].__name__
        with pytest.raises(
            FileFormatError, match=rf"{UCF.text}: refused.*\.{name};.*run"
        ) as caught:
            read_embeddings(file)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("was_run*"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"\x80\x03cnumpy\nndarray\n\x8a\x05\x00\x00\x00\x00\x10\x85R.",
            "asks for making an array",
        ),
        (b"\x80\x03cnumpy\ndtype\n}b.", "asks for altering a function"),
        (b"\x80\x03cnumpy\ndtype\nX\x02\x00\x00\x00V8\x85R.", "numbers of type 'V8'"),
        (b"\x80\x03]r\xff\xff\xff\x7f.", "cut or damaged .memo index"),
        (b"(S'true'\nios\nsystem\n.", "asks for the operation STRING"),
        (b"(ios\nsystem\n.", "asks for the operation INST"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "asks for the operation NEWOBJ"),
        (b"\x80\x02U\x01xQ.", "asks for the operation SHORT_BINSTRING"),
        (b"\x80\x02\x82\x01.", "asks for the operation EXT1"),
        (b"\x80\x05\x97.", "asks for the operation NEXT_BUFFER"),
        (b"\x80\x05\x96\x00\x00\x00\x00\x00\x00\x00\x10x.", "cut or damaged"),
        (b"\x80\x03]", "cut or damaged"),
        (b"", "cut or damaged"),
    ],
)
def test_pickles_that_grow_or_do_more_than_hold_data_are_refused(tmp_path, content, said):
    with pytest.raises(FileFormatError, match=said):
        unpickled(content, tmp_path / "x.pkl", "elsewhere")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": np.ones(299, np.float32)}, r"found float32 \(299,\) under 'a'"),
        ({"a": np.ones((1, 300), np.float32)}, r"found float32 \(1, 300\)"),
        ({"a": np.ones(300, np.int64)}, r"found int64"),
        ({"a": np.full(300, np.nan, np.float32)}, r"NaN or infinite values under 'a'"),
        ({"a": np.full(300, 1e60)}, r"NaN or infinite values under 'a'"),
        ({"a": [1.0] * 300}, r"'a' that is no vector"),
        ({3: np.ones(300, np.float32)}, r"entry 3 that is no vector under a name"),
        ({}, r"found no embedding"),
        ("words", r"found no dictionary"),
        ([1, 2], r"found an array \(2,\) of object"),
    ],
)
def test_wrong_embeddings_give_one_error_naming_the_file(file, value, said):
    _save(file, value)
    with pytest.raises(FileFormatError, match=rf"{UCF.text}: .*{said}.*take the file from"):
        read_embeddings(file)


def test_numbers_in_place_of_embeddings(file):
    np.save(file, np.ones((7, 300), np.float32))
    with pytest.raises(FileFormatError, match=r"found an array \(7, 300\) of float32"):
        read_embeddings(file)
    file.write_bytes(b"PK\x03\x04 not this")
    with pytest.raises(FileFormatError, match="no header of an npy file"):
        read_embeddings(file)
    file.unlink()
    with pytest.raises(DataError, match=rf"{UCF.text} is missing.*AVCA-GZSL release"):
        read_embeddings(file)


@pytest.mark.filterwarnings("ignore")  # numpy warns of headers that damage made look old
def test_cut_and_damaged_embeddings_never_fail_otherwise(tmp_path):
    path, rng = tmp_path / "e.npy", np.random.default_rng(0)
    write_embeddings(path, {"a": rng.normal(size=300), "b": rng.normal(size=300)})
    whole = path.read_bytes()
    for length in rng.integers(0, len(whole), 60):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"e\.npy"):
            read_embeddings(path)
    header = len(whole) - 2400  # beyond are numbers, where most damage goes unseen
    for place in rng.integers(0, header, 400):
        damaged = bytearray(whole)
        damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found = read_embeddings(path)
        except FileFormatError as err:
            assert "e.npy" in str(err)  # noqa: PT017
        else:
            assert all(v.shape == (300,) and np.isfinite(v).all() for v in found.values())


def test_folder_may_be_called_as_the_readme_says(made_up):
    shutil.move(made_up / "UCF/class-split", made_up / "UCF/class_split")
    assert len(find_class_lists(made_up, UCF, "main_split").classes) == 7
