"""Reading films: frame counts, times, rates, rotation, damage."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from talkface.errors import TalkfaceError
from talkface.media import exact_rate, is_video, open_video

NTSC_FILM, NTSC = Fraction(24000, 1001), Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (25, Fraction(25)),
        (25.0, Fraction(25)),
        (23.976, NTSC_FILM),
        (23.98, NTSC_FILM),
        (29.97, NTSC),
        (59.94, Fraction(60000, 1001)),
        (12.5, Fraction(25, 2)),
        (NTSC, NTSC),
        (24.0, Fraction(24)),
        (30.0, Fraction(30)),
    ],
)
def test_rounded_rates_mean_exact_ones(fps, rate):
    assert exact_rate(fps) == rate


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1001])
def test_impossible_rates(fps):
    with pytest.raises(TalkfaceError, match="frame rate"):
        exact_rate(fps)


@pytest.mark.parametrize("rate", [Fraction(25), NTSC_FILM, NTSC, Fraction(60), Fraction(25, 2)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_fixed_rates_are_found_exactly(tmp_path, make, rate, name):
    reader = open_video(make.film(tmp_path / name, make.frames(40), rate))
    assert (reader.rate, reader.is_variable, reader.num_frames) == (rate, False, 40)
    assert reader.size == (48, 64)
    assert not reader.has_audio
    assert reader.duration == pytest.approx(float(40 / rate))
    assert np.allclose(reader.frame_times, np.arange(40) / float(rate))
    assert np.allclose(reader.frame_centres, (np.arange(40) + 0.5) / float(rate))
    assert [make.number(frame) for frame in reader] == list(range(40))
    assert [make.number(frame) for frame in reader] == list(range(40)), "a second pass starts anew"


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.webm", "libvpx-vp9"),
        ("a.mpg", "mpeg1video"),
        ("a.ts", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.avi", "libx264"),
    ],
)
def test_other_containers(tmp_path, make, name, codec):
    path = make.film(tmp_path / name, make.frames(30), 25, codec)
    assert is_video(path)
    reader = open_video(path)
    assert (reader.rate, reader.is_variable) == (25, False)
    numbers = [make.number(frame) for frame in reader]
    assert len(numbers) == reader.num_frames
    assert numbers == list(range(30))


def test_variable_rate_keeps_every_time(tmp_path, make):
    ticks = np.cumsum([0] + [30, 30, 45, 33, 120, 33, 20, 33, 50, 33] * 4).tolist()
    path = make.film(tmp_path / "a.mkv", make.frames(41), 25, ticks=ticks, clock=Fraction(1, 1000))
    reader = open_video(path)
    assert reader.is_variable
    assert np.allclose(reader.frame_times, np.array(ticks) / 1000)
    assert np.allclose(reader.frame_ends[:-1], np.array(ticks[1:]) / 1000)
    assert reader.fps == pytest.approx(40 / (ticks[-1] / 1000), rel=1e-3)
    assert [make.number(frame) for frame in reader] == list(range(41))


def test_one_dropped_frame_makes_a_rate_variable(tmp_path, make):
    ticks = [k if k < 20 else k + 1 for k in range(40)]
    path = make.film(tmp_path / "a.mp4", make.frames(40), 25, ticks=ticks, clock=Fraction(1, 25))
    reader = open_video(path)
    assert reader.is_variable
    assert reader.frame_times[[19, 20]] == pytest.approx([0.76, 0.84])


def test_times_count_from_the_first_picture(tmp_path, make):
    ticks = [5000 + 40 * k for k in range(20)]
    path = make.film(tmp_path / "a.mkv", make.frames(20), ticks=ticks, clock=Fraction(1, 1000))
    reader = open_video(path)
    assert reader.frame_times[0] == 0
    assert reader.rate == 25


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_of_telephones_is_honoured(tmp_path, make, degrees):
    """The display matrix is patched into the track header; players turn the picture clockwise."""
    upright = np.zeros((64, 48, 3), np.uint8)
    upright[:16, :24] = (250, 20, 20)
    upright[48:, 24:] = (20, 20, 250)
    stored = np.ascontiguousarray(np.rot90(upright, degrees // 90))
    path = make.film(tmp_path / "a.mp4", [stored] * 3)
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    reader = open_video(path)
    assert reader.size == (64, 48)
    frame = next(iter(reader)).astype(int)
    assert np.abs(frame - upright).mean() < 12


def test_colours_survive(tmp_path, make):
    """Tagged BT.709 by our own writer; read back without a shift."""
    from talkface.media import VideoWriter

    colours = np.random.default_rng(0).integers(30, 225, (4, 6, 3)).astype(np.uint8)
    frame = np.kron(colours, np.ones((16, 16, 1), np.uint8))
    with VideoWriter(tmp_path / "a.mp4", 25, crf=4) as writer:
        for _ in range(5):
            writer.write(frame)
    for back in open_video(tmp_path / "a.mp4"):
        inner = back.reshape(4, 16, 6, 16, 3)[:, 6:10, :, 6:10].astype(int)
        shift = inner.mean(axis=(1, 3)) - colours
        assert np.abs(shift.mean(axis=(0, 1))).max() < 0.5
        assert np.abs(shift).max() < 3


def test_damaged_middle_keeps_the_count_and_the_places(tmp_path, make):
    import av

    path = make.film(tmp_path / "a.mp4", make.frames(40), options={"g": "1", "bf": "0"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for index, packet in enumerate(container.demux(video=0)):
            if index in (0, 1, 20, 21, 22):
                data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    reader = open_video(path)
    numbers = [make.number(frame) for frame in reader]
    assert numbers == [2, 2, *range(2, 20), 19, 19, 19, *range(23, 40)]


def test_truncated(tmp_path, make):
    path = make.film(tmp_path / "a.mp4", make.frames(60))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(TalkfaceError, match="damaged"):
        open_video(path)
    path = make.film(tmp_path / "a.mkv", make.frames(60), 25, "mpeg4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    reader = open_video(path)
    assert 5 < reader.num_frames < 60
    assert len(list(reader)) == reader.num_frames


def test_pictures_and_sounds_are_not_films(tmp_path, make):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    frames = [Image.new("L", (16, 16), shade) for shade in (0, 99, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    make.wav(tmp_path / "a.wav", make.tone(1, 16000), 16000)
    for name in ("a.png", "a.gif", "a.wav"):
        assert not is_video(tmp_path / name)
        with pytest.raises(TalkfaceError, match="no moving pictures"):
            open_video(tmp_path / name)
    (tmp_path / "a.txt").write_text("nothing to see")
    for name, message in (("a.txt", "damaged or of an unknown type"), ("b", "does not exist")):
        with pytest.raises(TalkfaceError, match=message):
            is_video(tmp_path / name)
        with pytest.raises(TalkfaceError, match=message):
            open_video(tmp_path / name)


def test_real_clip(grid):
    reader = open_video(grid / "bbaf2n.mpg")
    assert (reader.rate, reader.num_frames, reader.size, reader.has_audio) == (25, 75, (288, 360), True)
    assert sum(1 for _ in reader) == 75
