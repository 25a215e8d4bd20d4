"""Writing films: lengths, sync, failures, interruptions."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from talkface.errors import TalkfaceError
from talkface.media import VideoWriter, open_video, read_audio
from talkface.media.sound import SoundQueue

RATES = [23.976, 25, 29.97, 12.5, 60]


def stream_seconds(path: Path) -> dict[str, float]:
    """Durations that a player is told."""
    with av.open(str(path)) as container:
        return {stream.type: float(stream.duration * stream.time_base) for stream in container.streams}


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize(
    ("sound_seconds", "rate", "channels"), [(0.6, 16000, 1), (3.0, 44100, 2), (1.1, 96000, 1)]
)
def test_sound_and_picture_have_one_length(tmp_path, make, fps, sound_seconds, rate, channels):
    """Whether the sound is shorter or longer than the pictures."""
    sound = np.repeat(make.tone(sound_seconds, rate)[:, None], channels, axis=1)
    make.wav(tmp_path / "a.wav", sound, rate)
    with VideoWriter(tmp_path / "a.mp4", fps, tmp_path / "a.wav") as writer:
        for frame in make.frames(round(fps)):
            writer.write(frame)
    reader = open_video(tmp_path / "a.mp4")
    assert reader.fps == pytest.approx(fps, rel=2e-5)
    assert [make.number(frame) for frame in reader] == list(range(round(fps)))
    seconds = stream_seconds(tmp_path / "a.mp4")
    assert seconds["video"] == pytest.approx(round(fps) / fps, abs=1e-3)
    assert abs(seconds["audio"] - seconds["video"]) < 0.002
    with av.open(str(tmp_path / "a.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert audio.codec_context.name == "aac"
        assert audio.codec_context.sample_rate == min(rate, 48000)
        assert audio.codec_context.layout.nb_channels == channels
    assert make.leftovers(tmp_path, "a.mp4", "a.wav") == []


def test_lengths_do_not_drift_in_ten_minutes(tmp_path, make):
    """At one frame a second, slowed like NTSC, so that counting in whole seconds would be 0.6 s off."""
    fps = Fraction(1000, 1001)
    make.wav(tmp_path / "a.wav", make.click(600.0, 8000, 599.0), 8000)
    with VideoWriter(tmp_path / "a.mp4", fps, tmp_path / "a.wav", preset="ultrafast") as writer:
        for _ in range(600):
            writer.write(np.full((16, 16, 3), 90, np.uint8))
    reader = open_video(tmp_path / "a.mp4")
    assert (reader.rate, reader.num_frames) == (fps, 600)
    seconds = stream_seconds(tmp_path / "a.mp4")
    assert seconds == pytest.approx({"video": 600.6, "audio": 600.6}, abs=0.002)
    assert make.onset(read_audio(tmp_path / "a.mp4").samples, 16000) == pytest.approx(599.0, abs=0.003)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_flash_and_click_stay_together(tmp_path, make, name, suffix):
    """A white frame and a noise that begin at the same moment, through every lossy step."""
    fps, rate, flash = Fraction(30000, 1001), 44100, 40
    sound = make.click(3.0, rate, float(flash / fps))
    if name == "a.wav":
        make.wav(tmp_path / name, sound, rate)
    else:
        make.sound(tmp_path / name, sound[None], rate, {"a.mp3": "libmp3lame", "a.m4a": "aac"}[name])
    with VideoWriter(tmp_path / f"b{suffix}", fps, tmp_path / name) as writer:
        for k in range(90):
            writer.write(np.full((32, 32, 3), 255 if k == flash else 0, np.uint8))
    reader = open_video(tmp_path / f"b{suffix}")
    brightness = [frame.mean() for frame in reader]
    seen = reader.frame_times[int(np.argmax(brightness))]
    heard = make.onset(read_audio(tmp_path / f"b{suffix}").samples, 16000)
    assert seen == pytest.approx(float(flash / fps), abs=1e-3)
    assert heard == pytest.approx(seen, abs=0.004)


def test_pictures_and_sound_are_interleaved(tmp_path, make):
    """A player that streams never has to wait for one while it reads the other; the index comes first."""
    make.wav(tmp_path / "a.wav", make.tone(8.0, 16000), 16000)
    with VideoWriter(tmp_path / "a.mp4", 25, tmp_path / "a.wav") as writer:
        for frame in make.frames(200):
            writer.write(frame)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    latest = {"video": 0.0, "audio": 0.0}
    with av.open(str(tmp_path / "a.mp4")) as container:
        for packet in sorted((p for p in container.demux() if p.size), key=lambda p: p.pos):
            latest[packet.stream.type] = float(packet.dts * packet.time_base)
            assert abs(latest["video"] - latest["audio"]) < 2.0


def test_variable_rate_is_written_as_given(tmp_path, make):
    times = np.cumsum([0.5, 0.04, 0.04, 0.12, 0.033, 0.05, 0.04, 0.2, 0.04, 0.04])
    make.wav(tmp_path / "a.wav", make.tone(3.0, 16000), 16000)
    with VideoWriter(tmp_path / "a.mp4", 25, tmp_path / "a.wav", times=times) as writer:
        for frame in make.frames(10):
            writer.write(frame)
    reader = open_video(tmp_path / "a.mp4")
    assert reader.is_variable
    assert reader.frame_times == pytest.approx(times - times[0], abs=1e-3)
    assert [make.number(frame) for frame in reader] == list(range(10))
    seconds = stream_seconds(tmp_path / "a.mp4")
    assert seconds["audio"] == pytest.approx(times[-1] - times[0] + 0.04, abs=0.002)
    assert abs(seconds["audio"] - seconds["video"]) < 0.04


def test_bad_times(tmp_path, make):
    for times in ([0.0, 0.0], [1.0, 0.5], [0.0, float("nan")], []):
        with pytest.raises(TalkfaceError, match="frame times"):
            VideoWriter(tmp_path / "a.mp4", 25, times=times)
    with (
        pytest.raises(TalkfaceError, match="more frames"),
        VideoWriter(tmp_path / "a.mp4", 25, times=[0, 1]) as writer,
    ):
        for frame in make.frames(3):
            writer.write(frame)
    assert make.leftovers(tmp_path) == []


@pytest.mark.parametrize("shape", [(33, 47), (48, 47), (1, 1), (17, 100)])
def test_odd_sizes_are_padded_with_their_border(tmp_path, shape):
    frame = np.zeros((*shape, 3), np.uint8)
    frame[-1], frame[:, -1] = 200, 200
    with VideoWriter(tmp_path / "a.mp4", 25, crf=0) as writer:
        for _ in range(3):
            writer.write(frame)
    back = next(iter(open_video(tmp_path / "a.mp4")))
    assert back.shape == (shape[0] + shape[0] % 2, shape[1] + shape[1] % 2, 3)
    assert np.abs(back[-1].astype(int) - 200).max() < 20
    assert np.abs(back[:, -1].astype(int) - 200).max() < 20


def test_surround_sound_becomes_stereo(tmp_path, make):
    channels = np.stack([make.tone(1.0, 16000, 300 + 100 * k, 0.3) for k in range(7)], axis=1)
    make.wav(tmp_path / "a.wav", channels, 16000)
    with VideoWriter(tmp_path / "a.mp4", 25, tmp_path / "a.wav") as writer:
        for frame in make.frames(25):
            writer.write(frame)
    with av.open(str(tmp_path / "a.mp4")) as container:
        decoded = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    spectrum = np.abs(np.fft.rfft(decoded[:, 2000:14000]))
    level = {hertz: spectrum[:, round(hertz * 12000 / 16000)] for hertz in range(300, 1000, 100)}
    assert level[300][0] > 20 * level[300][1]
    assert level[400][1] > 20 * level[400][0]
    assert min(level[hertz].min() for hertz in (500, 600, 700, 800, 900)) > 0.2 * level[300][0]


def test_the_film_says_what_it_is(tmp_path, make):
    for suffix in (".mp4", ".mkv"):
        with VideoWriter(tmp_path / f"a{suffix}", 25, metadata={"seed": 7, "bundle": "größe"}) as writer:
            writer.write(make.frames(1)[0])
        with av.open(str(tmp_path / f"a{suffix}")) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
        assert tags["comment"] == "generated by talkface"
        assert json.loads(tags["description"]) == {"seed": 7, "bundle": "größe"}


def test_quality_option(tmp_path, make):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for crf in (10, 40):
        with VideoWriter(tmp_path / f"{crf}.mp4", 25, crf=crf) as writer:
            for shift in range(10):
                writer.write(np.roll(noise, shift, axis=0))
    assert (tmp_path / "10.mp4").stat().st_size > 3 * (tmp_path / "40.mp4").stat().st_size
    with pytest.raises(TalkfaceError, match="crf: 52"):
        VideoWriter(tmp_path / "a.mp4", 25, crf=52)


def test_the_same_frames_make_the_same_bytes(tmp_path, make):
    make.wav(tmp_path / "a.wav", make.tone(1.0, 16000), 16000)
    for name in ("1.mp4", "2.mp4"):
        with VideoWriter(tmp_path / name, 25, tmp_path / "a.wav") as writer:
            for frame in make.frames(25):
                writer.write(frame)
    assert (tmp_path / "1.mp4").read_bytes() == (tmp_path / "2.mp4").read_bytes()


def test_bad_outputs_are_refused_before_any_work(tmp_path, make):
    film = make.film(tmp_path / "film.mp4", make.frames(5))
    sound = make.wav(tmp_path / "a.wav", make.tone(1.0, 16000), 16000)
    (tmp_path / "folder.mp4").mkdir()
    cases = [
        (tmp_path / "no" / "a.mp4", {}, "does not exist"),
        (tmp_path / "folder.mp4", {}, "it is a folder"),
        (sound / "a.mp4", {}, "is not a folder"),
        (tmp_path / "a.exe", {}, "allowed are .mp4"),
        (film, {"inputs": [film]}, "also the input"),
        (film, {"audio_path": film}, "also the input"),
        (tmp_path / "a.mp4", {"fps": 0}, "frame rate"),
    ]
    for path, options, message in cases:
        with pytest.raises(TalkfaceError, match=message):
            VideoWriter(path, **{"fps": 25, **options})
    with (
        pytest.raises(TalkfaceError, match="does not exist"),
        VideoWriter(tmp_path / "a.mp4", 25, "missing.wav"),
    ):
        pass
    assert make.leftovers(tmp_path, "film.mp4", "a.wav", "folder.mp4") == []


def test_a_folder_that_refuses_files(tmp_path):
    """/proc refuses new files even to an administrator."""
    with pytest.raises(TalkfaceError, match="cannot write"), VideoWriter("/proc/a.mp4", 25):
        pass


def test_nothing_is_left_after_an_error(tmp_path, make):
    (tmp_path / "a.mp4").write_bytes(b"the film of yesterday")
    with pytest.raises(ZeroDivisionError), VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for frame in make.frames(30):
            writer.write(frame)
        raise ZeroDivisionError
    assert (tmp_path / "a.mp4").read_bytes() == b"the film of yesterday"
    with pytest.raises(TalkfaceError, match="no frame"), VideoWriter(tmp_path / "b.mp4", 25):
        pass
    with pytest.raises(OSError, match="of the caller"), VideoWriter(tmp_path / "b.mp4", 25) as writer:
        writer.write(make.frames(1)[0])
        raise OSError("an error of the caller")
    assert make.leftovers(tmp_path, "a.mp4") == []


def test_frames_of_one_size_and_kind(tmp_path, make):
    with pytest.raises(ValueError, match="the first was"), VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
        writer.write(np.zeros((16, 18, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"), VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(np.zeros((16, 16, 3), np.float32))
    assert make.leftovers(tmp_path) == []


def test_interrupt_leaves_a_playable_film(tmp_path, make):
    make.wav(tmp_path / "a.wav", make.tone(9.0, 16000), 16000)
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", 25, tmp_path / "a.wav") as writer:
        for frame in make.frames(30):
            writer.write(frame)
        raise KeyboardInterrupt
    assert [make.number(frame) for frame in open_video(tmp_path / "a.mp4")] == list(range(30))
    seconds = stream_seconds(tmp_path / "a.mp4")
    assert seconds == pytest.approx({"video": 1.2, "audio": 1.2}, abs=0.002)
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "b.mp4", 25):
        raise KeyboardInterrupt
    assert make.leftovers(tmp_path, "a.mp4", "a.wav") == []


def test_full_disk(tmp_path, make):
    """The limit on the size of files fails like a full disk, while frames are written and at the end."""
    make.wav(tmp_path / "a.wav", make.tone(1.0, 16000), 16000)
    program = textwrap.dedent(
        f"""
        import resource, numpy as np
        from talkface.errors import TalkfaceError
        from talkface.media import VideoWriter
        rng = np.random.default_rng(0)
        for limit in (0, 20_000, 400_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                with VideoWriter("{tmp_path}/b.mp4", 25, "{tmp_path}/a.wav") as writer:
                    for _ in range(20):
                        writer.write(rng.integers(0, 256, (200, 200, 3)).astype(np.uint8))
            except TalkfaceError as error:
                print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("cannot write") == done.stdout.count("disk space") == 3
    assert make.leftovers(tmp_path, "a.wav") == []


def test_memory_does_not_grow_with_length(tmp_path, make):
    """300 frames of 320 x 320 would be 92 MB."""
    make.wav(tmp_path / "a.wav", make.tone(16.0, 16000), 16000)
    frame = np.zeros((320, 320, 3), np.uint8)
    with VideoWriter(tmp_path / "a.mp4", 25, tmp_path / "a.wav", preset="ultrafast") as writer:
        for k in range(400):
            if k == 100:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            writer.write(np.roll(frame, k, axis=0))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 30_000  # KiB


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_growing_film_can_be_watched_before_it_is_complete(tmp_path, suffix):
    path = tmp_path / f"grows{suffix}"
    samples = np.zeros(3 * 16000 + 500, np.int16)
    samples[2 * 16000 : 2 * 16000 + 800] = 20000 * np.sin(np.arange(800))  # a beep at 2 s
    sound = SoundQueue(16000)
    frames = [np.full((48, 64, 3), 40 + k, np.uint8) for k in range(75)]
    with VideoWriter(path, 25, sound, growing=True) as writer:
        for k, frame in enumerate(frames):
            sound.put(samples[640 * k : 640 * (k + 1)])
            writer.write(frame)
            if k == 60:
                seen = [picture[0, 0, 0] for picture in open_video(path)]
                assert len(seen) >= 25, "more than one of the two seconds written"
                assert np.abs(np.array(seen, int) - 40 - np.arange(len(seen))).max() <= 2
    assert len(list(open_video(path))) == 75
    heard = read_audio(path).samples
    assert np.argmax(np.abs(heard) > 0.2) / 16000 == pytest.approx(2.0, abs=0.01)
    assert len(heard) / 16000 == pytest.approx(3.0, abs=0.07)


def test_what_was_written_of_a_growing_film_stays(tmp_path):
    path = tmp_path / "a.mp4"
    with pytest.raises(RuntimeError), VideoWriter(path, 25, growing=True) as writer:
        for k in range(60):
            writer.write(np.full((48, 64, 3), k, np.uint8))
        raise RuntimeError
    assert len(list(open_video(path))) >= 25


def test_sound_that_comes_with_the_frames_is_int16_or_float():
    sound = SoundQueue(16000)
    sound.put(np.array([16384], np.int16))
    sound.put(np.array([0.5], np.float32))
    assert [block.tolist() for block in sound.blocks()] == [[[0.5]], [[0.5]]]
