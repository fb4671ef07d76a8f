"""``neuroav calibrate`` passes its folder on and shows the files it wrote."""

from __future__ import annotations


def test_calibrate_passes_the_folder_and_lists_the_files(run, stand_in, tmp_path):
    write = stand_in(
        "neuroav.report.calibration:write_calibration", return_value={"points": [], "path": "x"}
    )
    done = run("calibrate", "--out", tmp_path)
    write.assert_called_once_with(tmp_path)
    files = ("calibration.html", "calibration.json", "calibration.md")
    assert done.out.split() == [str(tmp_path / name) for name in files]
    assert run("calibrate", "--out", tmp_path, "--json").json == {"points": [], "path": "x"}


def test_calibrate_writes_into_a_folder_only(run, tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    done = run("calibrate", "--out", tmp_path / "file")
    assert (done.code, done.out) == (1, "")
    assert "is a file, the page needs a folder" in done.err
    assert (tmp_path / "file").read_text(encoding="utf-8") == "x"


def test_calibrate_needs_a_folder(run):
    done = run("calibrate")
    assert done.code == 2
    assert "--out" in done.err
