"""Reading sound: every sample at its presentation time, every bad file one clear error."""

from __future__ import annotations

import wave
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import Image

from talkface.errors import TalkfaceError
from talkface.media import read_audio

CODECS = [
    ("a.mp3", "libmp3lame"),
    ("a.flac", "flac"),
    ("a.m4a", "aac"),
    ("a.ogg", "libopus"),
    ("a.mkv", "aac"),
    ("a.mp2", "mp2"),
]


@pytest.mark.parametrize(("name", "codec"), CODECS)
@pytest.mark.parametrize("rate", [48000, 24000])
def test_a_click_stays_where_it_is_in_every_codec(tmp_path, make, name, codec, rate):
    path = make.sound(tmp_path / name, make.click(2.0, rate, 1.0)[None], rate, codec)
    audio = read_audio(path)
    # MPEG layer 2 carries no note of its encoder's delay of 481 samples
    tolerance = 0.022 if codec == "mp2" else 0.002
    assert make.onset(audio.samples, 16000) == pytest.approx(1.0, abs=tolerance)
    assert audio.duration == pytest.approx(2.0, abs=0.06)
    assert audio.samples.dtype == np.float32
    assert audio.samples.ndim == 1


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_any_rate(tmp_path, make, rate):
    path = make.wav(tmp_path / "a.wav", make.tone(1.0, rate), rate)
    audio = read_audio(path)
    assert audio.sample_rate == 16000
    assert abs(len(audio.samples) - 16000) <= 2
    middle = slice(2000, 14000)
    wanted = make.tone(1.0, 16000)[middle]
    assert np.abs(audio.samples[middle] - wanted).max() < 0.01


def test_channels_are_averaged(tmp_path, make):
    sine = make.tone(0.5, 16000, level=0.8)
    stereo = np.stack([sine, np.zeros_like(sine)], axis=1)
    assert np.abs(read_audio(make.wav(tmp_path / "2.wav", stereo, 16000)).samples - sine / 2).max() < 2e-3
    seven = np.repeat(sine[:, None], 7, axis=1)
    audio = read_audio(make.wav(tmp_path / "7.wav", seven, 16000))
    assert np.abs(audio.samples - sine).max() < 2e-3


def test_low_frequency_effects_are_left_out(tmp_path, make):
    speech, rumble = make.tone(0.5, 48000), make.tone(0.5, 48000, hertz=60, level=0.9)
    surround = np.stack([speech, speech, speech, rumble, speech, speech])
    path = make.sound(tmp_path / "a.flac", surround, 48000, "flac", "5.1")
    samples = read_audio(path).samples
    assert np.abs(samples[1000:-1000] - make.tone(0.5, 16000)[1000:-1000]).max() < 0.01


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sample_widths(tmp_path, make, width):
    sine = make.tone(0.3, 16000)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(16000)
        if width == 1:
            data = np.rint(sine * 127 + 128).astype(np.uint8).tobytes()
        else:
            scaled = np.rint(sine.astype(np.float64) * (2 ** (8 * width - 1) - 1)).astype("<i4")
            data = scaled.view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
        file.writeframes(data)
    assert np.abs(read_audio(tmp_path / "a.wav").samples - sine).max() < 0.01


def test_not_a_number_is_silence(tmp_path, make):
    samples = make.tone(0.5, 16000)
    samples[100:200] = np.nan
    samples[300] = np.inf
    audio = read_audio(make.float_wav(tmp_path / "a.wav", samples, 16000))
    assert np.isfinite(audio.samples).all()
    assert np.abs(audio.samples).max() <= 1.0
    assert np.abs(audio.samples[100:200]).max() == 0
    assert np.abs(audio.samples[4000:] - samples[4000:]).max() < 1e-3


def test_silence_is_flagged_not_refused(tmp_path, make):
    assert read_audio(make.wav(tmp_path / "a.wav", np.zeros(16000), 16000)).is_silent
    assert not read_audio(make.wav(tmp_path / "b.wav", make.tone(1, 16000, level=0.01), 16000)).is_silent


def test_sound_of_a_film_is_counted_from_its_first_picture(tmp_path, make):
    """Both streams start late; the sound 0.3 s after the pictures."""
    frames = make.frames(50)
    path = make.film(
        tmp_path / "a.mkv",
        frames,
        ticks=[1000 + 40 * k for k in range(50)],
        clock=Fraction(1, 1000),
        sound=(make.click(1.5, 16000, 0.5), 16000),
        sound_start=1.3,
    )
    assert make.onset(read_audio(path).samples, 16000) == pytest.approx(0.8, abs=0.003)


def test_sound_before_the_first_picture_is_cut(tmp_path, make):
    frames = make.frames(25)
    path = make.film(
        tmp_path / "a.mkv",
        frames,
        ticks=[500 + 40 * k for k in range(25)],
        clock=Fraction(1, 1000),
        sound=(make.click(1.5, 16000, 0.8), 16000),
    )
    assert make.onset(read_audio(path).samples, 16000) == pytest.approx(0.3, abs=0.003)


def test_holes_in_the_stream_are_silence(tmp_path, make):
    """Packets of seconds 1 to 2 are lost on the way; what follows stays in step."""
    import av

    source = make.sound(tmp_path / "a.mkv", make.click(4.0, 48000, 3.0)[None], 48000, "libopus")
    with av.open(str(source)) as read, av.open(str(tmp_path / "b.mkv"), "w") as write:
        stream = write.add_stream_from_template(read.streams.audio[0])
        for packet in read.demux(audio=0):
            if packet.size and not 1.0 <= float(packet.pts * packet.time_base) < 2.0:
                packet.stream = stream
                write.mux(packet)
    assert make.onset(read_audio(tmp_path / "b.mkv").samples, 16000) == pytest.approx(3.0, abs=0.003)


def test_too_long_names_both_lengths_and_the_option(tmp_path, make):
    path = make.wav(tmp_path / "a.wav", np.zeros(8000 * 12), 8000)
    with pytest.raises(TalkfaceError, match=r"too long: 12 s; allowed are 10 s; .*max_seconds"):
        read_audio(path, max_seconds=10)
    assert read_audio(path, max_seconds=13).duration == pytest.approx(12)


def test_three_hours_are_refused_at_once(tmp_path):
    """A sparse file, so that only a reader that trusts the header first is fast."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(b"\0\0")
        inside: Any = file  # what is not public of it
        inside._file.seek(44 + 3 * 3600 * 32000)
        inside._file.write(b"\0\0")
        inside._datawritten = 3 * 3600 * 32000 + 2
        inside._patchheader()
    with pytest.raises(TalkfaceError, match="too long: 10800 s; allowed are 3600 s"):
        read_audio(tmp_path / "a.wav")


def test_a_header_that_exaggerates_is_not_believed(tmp_path, make):
    path = make.wav(tmp_path / "a.wav", make.tone(1.0, 16000), 16000)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # what a recorder that was cut off leaves
    path.write_bytes(data)
    assert read_audio(path).duration == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.09])
def test_too_short(tmp_path, make, seconds):
    path = make.wav(tmp_path / "a.wav", make.tone(seconds, 16000), 16000)
    with pytest.raises(TalkfaceError, match=r"too short: 0\.0|damaged"):
        read_audio(path)


def test_not_sounds(tmp_path, make):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "noise.wav").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "text.mp3").write_text("no sound " * 100)
    (tmp_path / "empty.wav").write_bytes(b"")
    make.film(tmp_path / "mute.mp4", make.frames(5))
    with pytest.raises(TalkfaceError, match="holds no sound"):
        read_audio(tmp_path / "a.png")
    with pytest.raises(TalkfaceError, match="holds no sound"):
        read_audio(tmp_path / "mute.mp4")
    with pytest.raises(TalkfaceError, match="0 bytes"):
        read_audio(tmp_path / "empty.wav")
    with pytest.raises(TalkfaceError, match="does not exist"):
        read_audio(tmp_path / "missing.wav")
    with pytest.raises(TalkfaceError, match="is a folder"):
        read_audio(tmp_path)
    for name in ("noise.wav", "text.mp3"):
        with pytest.raises(TalkfaceError, match=r"damaged|too short|no sound") as caught:
            read_audio(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_truncated_file_gives_what_is_there(tmp_path, make):
    path = make.sound(tmp_path / "a.mp3", make.tone(4.0, 16000)[None], 16000, "libmp3lame")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert 1.5 < read_audio(path).duration < 2.2
    path = make.sound(tmp_path / "a.m4a", make.tone(4.0, 16000)[None], 16000, "aac")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])  # its index stood at the end
    with pytest.raises(TalkfaceError, match="damaged"):
        read_audio(path)


def test_song_with_cover_picture_is_a_sound(tmp_path, make):
    import av

    Image.new("RGB", (64, 64), "red").save(tmp_path / "cover.jpg")
    source = make.sound(tmp_path / "a.mp3", make.click(2.0, 16000, 1.0)[None], 16000, "libmp3lame")
    with (
        av.open(str(source)) as sound,
        av.open(str(tmp_path / "cover.jpg")) as cover,
        av.open(str(tmp_path / "b.mp3"), "w") as write,
    ):
        audio = write.add_stream_from_template(sound.streams.audio[0])
        picture = write.add_stream_from_template(cover.streams.video[0])
        for read, stream in ((cover, picture), (sound, audio)):
            for packet in read.demux():
                if packet.size:
                    packet.stream = stream
                    write.mux(packet)
    assert make.onset(read_audio(tmp_path / "b.mp3").samples, 16000) == pytest.approx(1.0, abs=0.002)


def test_real_clip(grid):
    audio = read_audio(grid / "bbaf2n.mpg")
    assert audio.duration == pytest.approx(2.978, abs=0.002)
    assert not audio.is_silent
