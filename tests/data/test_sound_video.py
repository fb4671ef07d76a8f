"""Sound, video and pictures in files of the true formats, with the defects of published ones."""

import io
import struct
import wave
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from samples import ROOT, load_script

from neuroav.data.formats.guarded import NotSurvived, guarded
from neuroav.data.formats.media import FORMATS
from neuroav.data.formats.picture import read_picture
from neuroav.data.formats.sound import Sound, mono, read_sound, resampled
from neuroav.data.formats.video import middle_picture, read_video
from neuroav.errors import ConfigError, DataError, FileFormatError

av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")
fuzz = load_script(ROOT / "benchmarks" / "container_fuzz.py")


def write_pcm(path: Path, raw: bytes, width: int, channels: int = 1, rate: int = 8000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return path


def write_with(path: Path, codec: str, values: np.ndarray, kind: str, layout: str) -> Path:
    """A file of another encoding, by FFmpeg. values: (channels or 1, n) of the sample type."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8000, layout=layout)
        frame = av.AudioFrame.from_ndarray(values, format=kind, layout=layout)
        frame.sample_rate, frame.pts = 8000, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


# --- WAV ---------------------------------------------------------------------------------------
PCM = {
    1: (bytes([0, 128, 255]), [-1, 0, 127 / 128]),
    2: (struct.pack("<3h", -32768, 0, 16384), [-1, 0, 0.5]),
    3: (bytes([0, 0, 0x80, 0, 0, 0, 0, 0, 0x40]), [-1, 0, 0.5]),
    4: (struct.pack("<3i", -(2**31), 0, 2**30), [-1, 0, 0.5]),
}


@pytest.mark.parametrize("width", PCM)
def test_pcm_of_every_width(tmp_path, width):
    raw, expected = PCM[width]
    found = read_sound(write_pcm(tmp_path / "a.wav", raw, width))
    assert found.samples.dtype == np.float32
    assert found.samples.tolist() == [expected]
    assert found.rate == 8000
    # FFmpeg, which reads the other kinds of WAV, has the same full scale.
    with av.open(str(tmp_path / "a.wav")) as container:
        theirs = next(container.decode(audio=0)).to_ndarray()
    if width == 2:
        assert (theirs.reshape(-1) / 32768).tolist() == expected


def test_channels_stay_apart(tmp_path):
    values = np.array([[1, 2, 3], [-4, -5, -6]], "<i2")
    found = read_sound(write_pcm(tmp_path / "a.wav", values.T.tobytes(), 2, 2))
    assert np.array_equal(found.samples * 32768, values)
    assert (mono(found, "mean") * 32768).tolist() == [-1.5, -1.5, -1.5]
    assert (mono(found, "first") * 32768).tolist() == [1, 2, 3]
    with pytest.raises(DataError, match="2 channels"):
        mono(found, "only")
    with pytest.raises(ConfigError, match="allowed are mean, first, only"):
        mono(found, "left")


@pytest.mark.parametrize(
    ("codec", "kind", "dtype"),
    [("pcm_f32le", "flt", "f4"), ("pcm_mulaw", "s16", "i2"), ("adpcm_ms", "s16", "i2")],
)  # fmt: skip
def test_other_kinds_of_wav_are_left_to_ffmpeg(tmp_path, codec, kind, dtype):
    tone = np.sin(np.arange(4000) / 9) / 2
    values = (tone if kind == "flt" else tone * 32768).astype(dtype)[None]
    found = read_sound(write_with(tmp_path / "a.wav", codec, values, kind, "mono"))
    assert abs(found.samples.shape[1] - 4000) <= 1100  # whole blocks of the encoding
    assert np.corrcoef(found.samples[0][:4000], tone[: found.samples.shape[1]])[0, 1] > 0.98
    if kind == "flt":
        assert np.array_equal(found.samples, values)


def test_extensible_headers(tmp_path):
    """WAVE_FORMAT_EXTENSIBLE, which some recordings of UrbanSound8K have."""
    raw = struct.pack("<4h", 1, -2, 3, -4)
    guid = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 16, 4) + guid
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(raw)) + raw
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert (read_sound(path).samples * 32768).tolist() == [[1, -2, 3, -4]]


def test_a_size_that_the_writer_did_not_know(tmp_path):
    path = write_pcm(tmp_path / "a.wav", bytes(range(200)), 2)
    content = bytearray(path.read_bytes())
    content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    assert read_sound(path).samples.shape == (1, 100)


@pytest.mark.parametrize("end", [45, 60, 143, 243])
def test_cut_wav(tmp_path, end):
    path = write_pcm(tmp_path / "a.wav", bytes(200), 2)
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(
        FileFormatError, match=r"a\.wav: \d+ samples where its header says 100: cut"
    ):
        read_sound(path)
    assert read_sound(path, allow_cut=True, allow_empty=True).samples.shape[1] == (end - 44) // 2


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"RIFF$\0\0\0WAVEfmt \x10\0"]
)
def test_what_is_no_sound(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"a\.wav: "):
        read_sound(path)


def test_headers_out_of_range(tmp_path):
    for options in ({"rate": 10}, {"channels": 65}):
        path = write_pcm(tmp_path / "a.wav", bytes(520), 2, **options)
        with pytest.raises(FileFormatError, match=r"a\.wav: .*1\.\.64 channels at 1000"):
            read_sound(path)


def test_silence_and_nothing(tmp_path):
    silent = read_sound(write_pcm(tmp_path / "silent.wav", bytes(200), 2))
    assert silent.silent
    assert silent.seconds == 100 / 8000
    assert not Sound(np.array([[0, 0.1]], np.float32), 8000).silent
    empty = write_pcm(tmp_path / "empty.wav", b"", 2)
    with pytest.raises(FileFormatError, match=r"empty\.wav: holds no sound"):
        read_sound(empty)
    assert read_sound(empty, allow_empty=True).samples.shape == (1, 0)
    with pytest.raises(FileFormatError, match=r"none\.wav cannot be read"):
        read_sound(tmp_path / "none.wav")


def test_samples_that_are_no_numbers(tmp_path):
    values = np.array([[0, np.nan, 1]], np.float32)
    path = write_with(tmp_path / "a.wav", "pcm_f32le", values, "flt", "mono")
    with pytest.raises(FileFormatError, match="NaN"):
        read_sound(path)


def test_rates_are_changed_on_demand():
    tone = np.sin(2 * np.pi * 200 * np.arange(16000) / 16000).astype(np.float32)
    for rate in (8000, 22050, 16000):
        found = resampled(tone, 16000, rate)
        assert found.dtype == np.float32
        assert len(found) == rate
        expected = np.sin(2 * np.pi * 200 * np.arange(rate) / rate)
        assert np.abs(found - expected)[100:-100].max() < 0.01
    assert resampled(np.stack([tone, -tone]), 16000, 8000).shape == (2, 8000)
    assert resampled(np.zeros((1, 0)), 16000, 8000).shape == (1, 0)
    for rates in ((16000, 0), (1, 8000)):
        with pytest.raises(ConfigError, match="1000"):
            resampled(tone, *rates)


# --- sound and pictures by FFmpeg ---------------------------------------------------------------
@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips with and without sound: 12 pictures as flv, 65 as mp4, 50 as mpg."""
    folder = tmp_path_factory.mktemp("clips")
    fuzz.write_video(folder / "a.flv")
    fuzz.write_video(folder / "mute.flv", tone=False)
    fuzz.write_video(folder / "b.mp4", "mpeg4", frames=65)
    fuzz.write_video(folder / "c.mpg", "mpeg1video", frames=50, rate=25, tone=False)
    fuzz.write_mp3(folder / "d.mp3")
    return folder


def test_pictures_are_counted_as_they_are_decoded(clips):
    found = read_video(clips / "a.flv", every=1)
    assert found.decoded == 12
    assert found.frames.shape == (12, 48, 64, 3)
    assert found.frames.dtype == np.uint8
    assert found.indices.tolist() == list(range(12))
    assert found.sound
    assert not read_video(clips / "mute.flv").sound
    # The pictures are grey, 20 lighter each.
    grey = found.frames.mean(axis=(1, 2, 3))
    assert np.abs(grey - 20 * np.arange(12)).max() < 6


@pytest.mark.parametrize("name", ["a.flv", "mute.flv", "b.mp4", "c.mpg"])
def test_one_picture_per_second_is_opencvs(clips, name):
    """The loop of S-CMRL's extraction, with OpenCV itself."""
    cv2 = pytest.importorskip("cv2")
    capture = cv2.VideoCapture(str(clips / name))
    rate, pictures = int(capture.get(cv2.CAP_PROP_FPS)), []
    while True:
        good, picture = capture.read()
        if not good:
            break
        pictures.append(picture[..., ::-1])
    found = read_video(clips / name)
    assert int(found.fps) == rate > 0
    assert found.decoded == len(pictures)
    assert found.indices.tolist() == list(range(0, len(pictures), rate))
    for ours, index in zip(found.frames, found.indices, strict=True):
        assert np.abs(ours.astype(int) - pictures[index]).max() <= 3  # rounding of the conversion


@pytest.mark.parametrize(("rate", "states"), [(1000, True), (4, True), (4, False)])
def test_the_middle_of_a_picture_per_second_by_their_times(tmp_path, rate, states):
    """Also where the rate changes, as in a browser's recordings, which state 1000 per second."""
    path, shown = tmp_path / "a.mkv", []
    gaps = np.random.default_rng(0).integers(20, 380, 60) if rate == 1000 else np.full(60, 250)
    times = np.concatenate([[0], np.cumsum(gaps)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = 32
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            picture = np.full((32, 32, 3), 4 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
            shown.append(picture)
        container.mux(stream.encode())
    seconds = [int(np.argmax(times >= 1000 * k)) for k in range(int(times[-1]) // 1000 + 1)]
    assert len(seconds) > 5
    found = middle_picture(path)
    assert np.abs(found.astype(int) - 4 * seconds[len(seconds) // 2]).max() <= 3


def test_what_a_header_says(clips):
    assert read_video(clips / "b.mp4").stated_s == pytest.approx(65 / 30, abs=0.1)
    assert read_video(clips / "c.mpg").stated_s is None  # FFmpeg would guess it from the size


def without_duration(path: Path, out: Path) -> Path:
    """An flv whose script tag states no duration, like 1064_TIE_SAD_XX."""
    content = path.read_bytes()
    assert content.count(b"duration") == 1
    out.write_bytes(content.replace(b"duration", b"dur_tion"))
    return out


def test_clips_without_a_duration(clips, tmp_path):
    path = without_duration(clips / "a.flv", tmp_path / "1064_TIE_SAD_XX.flv")
    assert read_video(path, every=1).decoded == 12
    assert read_sound(path).seconds == pytest.approx(0.44, abs=0.03)


def test_clips_without_sound(clips):
    with pytest.raises(FileFormatError, match=r"mute\.flv: holds no sound track"):
        read_sound(clips / "mute.flv")
    assert read_sound(clips / "mute.flv", allow_empty=True).samples.size == 0
    with pytest.raises(FileFormatError, match=r"d\.mp3: holds no pictures"):
        read_video(clips / "d.mp3")


def test_a_clip_that_lasts_too_long(clips):
    """Like 1064_IEO_DIS_MD, a minute where a sentence is said."""
    with pytest.raises(FileFormatError, match=r"b\.mp4: more than 64 pictures; allowed are 64"):
        read_video(clips / "b.mp4", most_frames=64)
    assert read_video(clips / "b.mp4", most_frames=65).decoded == 65


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("read", [read_video, read_sound])
def test_cut_flv(clips, tmp_path, share, read):
    """Like 1076_MTI_NEU_XX: its end is missing."""
    content = (clips / "a.flv").read_bytes()
    path = tmp_path / "cut.flv"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileFormatError, match=r"cut\.flv: "):
        read(path)


def test_what_there_is_of_a_cut_flv(clips, tmp_path):
    content = (clips / "a.flv").read_bytes()
    path = tmp_path / "cut.flv"
    path.write_bytes(content[: len(content) // 2])
    found = read_video(path, every=1, allow_cut=True)
    assert 1 <= found.decoded < 12
    assert np.array_equal(
        found.frames, read_video(clips / "a.flv", every=1).frames[: found.decoded]
    )
    assert 0 < read_sound(path, allow_cut=True).seconds < 0.4


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_cut_mp4(clips, tmp_path, share):
    content = (clips / "b.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileFormatError, match=r"cut\.mp4: cut, damaged or no media file"):
        read_video(path)


def test_sound_of_every_container(clips):
    for name, seconds in (("a.flv", 0.4), ("b.mp4", 65 / 30), ("d.mp3", 15000 / 44100)):
        found = read_sound(clips / name)
        assert found.rate == 44100
        assert found.samples.shape[0] == 1
        assert found.seconds == pytest.approx(seconds, abs=0.06)  # the silence mp3 adds
        middle = found.samples[0, 5000:-5000]
        assert np.abs(middle).max() == pytest.approx(8000 / 32768, rel=0.1)


def test_sound_that_changes_its_channels_is_refused(clips, tmp_path):
    path = tmp_path / "two.mp3"
    tone = (8000 * np.sin(np.arange(15000) / 20)).astype(np.int16)
    write_with(tmp_path / "b.mp3", "mp3", np.stack([tone, -tone]), "s16p", "stereo")
    write_with(tmp_path / "c.mp3", "mp3", tone[None], "s16p", "mono")
    for second in ("b.mp3", "c.mp3"):  # other channels, another rate
        path.write_bytes((clips / "d.mp3").read_bytes() + (tmp_path / second).read_bytes())
        with pytest.raises(FileFormatError, match=r"two\.mp3: \d channels at \d+ Hz after \d"):
            read_sound(path)


def test_stereo_stays_stereo(tmp_path):
    left = (8000 * np.sin(np.arange(8000) / 20)).astype(np.int16)
    path = write_with(
        tmp_path / "a.flac", "flac", np.stack([left, 0 * left], 1).reshape(1, -1), "s16", "stereo"
    )
    found = read_sound(path)
    assert np.array_equal(found.samples * 32768, np.stack([left, 0 * left]))


PLAYLISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "a.ffconcat": "ffconcat version 1.0\nfile '{0}'\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_no_other_file_is_opened(tmp_path, name):
    """FFmpeg would follow a playlist, by whatever name, to any file or address."""
    inner = tmp_path / "inner.ts"
    fuzz.write_video(inner, "mpeg1video", tone=False)
    path = tmp_path / name
    path.write_text(PLAYLISTS[name].format(inner.name))
    with av.open(str(path), options={"safe": "0"}) as container:
        assert container.streams.video, "FFmpeg itself follows it"
    with pytest.raises(FileFormatError, match="no media file"):
        read_video(path)
    assert not {"hls", "concat", "image2", "dash"} & set(FORMATS.split(","))


def test_paths_are_no_protocols(clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("concat:a.flv").write_bytes((clips / "a.flv").read_bytes())
    assert read_video(Path("concat:a.flv"), every=1).decoded == 12


def test_video_options_and_missing_files(clips, tmp_path):
    with pytest.raises(ConfigError, match="every 0th"):
        read_video(clips / "a.flv", every=0)
    for read in (read_video, read_sound, read_picture):
        with pytest.raises(FileFormatError, match=r"none\.flv"):
            read(tmp_path / "none.flv")


def test_guarded_readers_give_the_same(clips):
    found = guarded(read_video, clips / "b.mp4")
    assert np.array_equal(found.frames, read_video(clips / "b.mp4").frames)
    heard = guarded(read_sound, clips / "a.flv")
    assert np.array_equal(heard.samples, read_sound(clips / "a.flv").samples)
    with pytest.raises(NotSurvived, match=r"b\.mp4: .*did not end within 0.001 s"):
        guarded(read_video, clips / "b.mp4", seconds=0.001)


# --- pictures ------------------------------------------------------------------------------------
@pytest.fixture
def pixels():
    """(32, 48, 3) of smooth colour."""
    rows, columns = np.mgrid[:32, :48]
    return np.stack([rows * 8, columns * 5, rows + columns], axis=2).astype(np.uint8)


def saved(path: Path, picture, **options) -> Path:
    picture.save(path, **options)
    return path


def test_png_is_exact_and_jpeg_near(tmp_path, pixels):
    picture = Image.fromarray(pixels)
    assert np.array_equal(read_picture(saved(tmp_path / "a.png", picture)), pixels)
    found = read_picture(saved(tmp_path / "a.jpg", picture, quality=95))
    assert found.shape == (32, 48, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - pixels).mean() < 4


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, pixels, mode):
    ending = "jpg" if mode == "CMYK" else "png"
    picture = Image.fromarray(pixels).convert(mode)
    path = saved(tmp_path / f"a.{ending}", picture)
    found = read_picture(path)
    assert found.shape == (32, 48, 3)
    if mode in ("L", "P", "RGBA"):
        assert np.array_equal(found, np.array(picture.convert("RGB")))


def test_sixteen_bits_are_refused(tmp_path):
    deep = Image.fromarray(np.full((4, 4), 60_000, np.uint16))
    with pytest.raises(FileFormatError, match=r"a\.png: pixels of the kind I;16"):
        read_picture(saved(tmp_path / "a.png", deep))


def test_sixteen_bits_of_colours_are_refused(tmp_path):
    """Pillow calls these RGB and drops their lower bytes; it cannot write them."""

    def chunk(name, content):
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    for kind, channels in ((2, 3), (6, 4)):
        head = struct.pack(">2I5B", 2, 2, 16, kind, 0, 0, 0)
        rows = zlib.compress((b"\0" + struct.pack(">H", 1000) * (2 * channels)) * 2)
        content = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
        with pytest.raises(FileFormatError, match=r"a\.png: 16 bits per channel, allowed is 8"):
            read_picture(tmp_path / "a.png")


def test_orientation_is_applied_on_demand(tmp_path, pixels):
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    path = saved(tmp_path / "a.jpg", picture, exif=exif)
    assert read_picture(path).shape == (32, 48, 3)
    turned = read_picture(path, exif="apply")
    assert np.array_equal(turned, np.rot90(read_picture(path), -1))
    with pytest.raises(ConfigError, match="allowed are ignore, apply"):
        read_picture(path, exif="maybe")


def test_large_pictures_are_refused_before_they_are_decoded(tmp_path, pixels):
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    with pytest.raises(FileFormatError, match=r"a\.png: 48 x 32 pixels, allowed is 1000"):
        read_picture(path, most_pixels=1000)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)  # the header of a bomb
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"a\.png: .*(60000|3600000000)"):
        read_picture(path)


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_cut_pictures(tmp_path, pixels, ending, share):
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(pixels))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileFormatError, match=rf"a\.{ending}: cut, damaged"):
        read_picture(path)


def test_other_kinds_of_picture(tmp_path, pixels):
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "BMP")
    for content in (b"", made.getvalue(), b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        path = tmp_path / "a.jpg"
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="no JPEG or PNG"):
            read_picture(path)
