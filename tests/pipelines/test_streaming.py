"""Sound that is still coming: the frames of the whole sound, whatever the chunks; delay, errors, an early end."""

from __future__ import annotations

import gc
import itertools
import math
import weakref
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch

from talkface.checkpoint import load_bundle
from talkface.errors import TalkfaceError
from talkface.experts.speech import ArticulationEncoder
from talkface.experts.speech_level import RecentLevel
from talkface.media import Audio
from talkface.pipelines.sources import FoundFace
from talkface.pipelines.streaming import FrameStream, LiveSound
from talkface.pipelines.talking_face import TalkingFacePipeline

RATE = 16000
NOBODY = FoundFace(np.zeros((1, 1, 3), np.uint8), np.zeros((68, 2)), None, 1)


def syllables(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose loudness and colour change ten times a second, float32 (n,)."""
    random = np.random.default_rng(seed)
    pieces = []
    for _ in range(math.ceil(seconds * 10)):
        noise = np.convolve(random.standard_normal(1640), np.ones(random.integers(1, 40)), "same")[:1600]
        pieces.append(0.3 * noise / np.abs(noise).max() * random.random() ** 2)
    return np.concatenate(pieces).astype(np.float32)[: round(seconds * RATE)]


def cut(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Chunks of `size`, with an empty one after the first."""
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
        if start == 0:
            yield samples[:0]


@pytest.fixture(scope="module")
def picture(draw_faces) -> np.ndarray:
    return draw_faces(160, 240, [(60, 20, 128)])


@pytest.fixture(scope="module")
def alone(tiny_bundle, drawn_face_finder) -> TalkingFacePipeline:
    """A pipeline with one worker, as a stream has."""
    return TalkingFacePipeline(load_bundle(tiny_bundle), "fp32", drawn_face_finder, workers=1)


def frames(result) -> np.ndarray:
    return np.stack(list(result))


@pytest.mark.parametrize("size", [1, 37, 1600, 10**6])
def test_with_the_level_given_and_no_bound_frames_are_those_of_the_whole_sound(alone, picture, size):
    samples = syllables(0.7 if size > 1 else 0.3)
    whole = frames(alone(Audio(samples, RATE), picture, seed=3, motion="none"))
    level = alone.speech.level(torch.from_numpy(samples)[None])
    live = alone.stream(
        cut(samples, size), picture, lookahead=None, level=level, group=8, seed=3, motion="none"
    )
    assert np.array_equal(frames(live), whole)


def test_chunks_of_the_encoder_that_end_on_the_way_do_not_show(alone, picture, monkeypatch):
    """Also at the borders of the pieces in which a long sound is encoded, and without a level to wait for."""
    monkeypatch.setattr(alone.speech, "chunk_seconds", 0.3, raising=False)
    samples = syllables(1.5)
    whole = frames(alone(Audio(samples, RATE), picture, motion="none"))
    for level in (None, alone.speech.level(torch.from_numpy(samples)[None])):
        live = frames(
            alone.stream(cut(samples, 500), picture, lookahead=None, level=level, group=8, motion="none")
        )
        assert np.array_equal(live, whole)


@pytest.mark.parametrize("group", [1, 3])
def test_frames_do_not_depend_on_how_the_sound_is_cut(tiny_pipeline, picture, group):
    samples = syllables(0.52)
    options = {"lookahead": 0.1, "group": group}
    results = [
        frames(tiny_pipeline.stream(cut(samples, size), picture, **options)) for size in (100, 1777, 10**6)
    ]
    assert len(results[0]) == 13
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    assert np.abs(np.diff(results[0].astype(int), axis=0)).max() > 20, "a still mouth proves nothing"


def test_sixteen_bit_sound_is_the_same_sound(tiny_pipeline, picture):
    exact = np.round(syllables(0.4) * 32768).astype(np.int16)
    from_int, from_float = (
        frames(tiny_pipeline.stream(cut(chunk, 999), picture))
        for chunk in (exact, exact.astype(np.float32) / 32768)
    )
    assert np.array_equal(from_int, from_float)


def encoder() -> ArticulationEncoder:
    torch.manual_seed(0)
    return ArticulationEncoder(["jawOpen", "mouthSmile"], channels=16, dilations=(1, 2, 4), bands=20).eval()


def live_features(speech, samples: np.ndarray, lookahead: float, level: torch.Tensor | None) -> torch.Tensor:
    """(T, 2, D): the two features around the centre of each frame at 25 fps, as they were when it was made."""
    sound = LiveSound(
        cut(samples, 700), speech, group=4, lookahead=lookahead, level=level, device=torch.device("cpu")
    )
    rows = []
    for shot in sound.shots(NOBODY, Fraction(25), 0.0):
        rows.append(sound.features[torch.tensor([2 * shot.index, 2 * shot.index + 1])])
    return torch.stack(rows)


@pytest.mark.parametrize("size", [160, 4801])
def test_closures_at_the_borders_of_chunks_are_those_of_the_whole_sound(size):
    torch.manual_seed(0)
    names = ["jawOpen", "mouthPress", "mouthUpperUp"]
    speech = ArticulationEncoder(names, channels=16, dilations=(1, 2), bands=20).eval()
    samples = syllables(2.0)
    with torch.no_grad():
        plain = speech.encode_long(torch.from_numpy(samples))  # in one piece
        whole = speech.amplified(plain, 1.0)
    speech.chunk_seconds = 0.1
    sound = LiveSound(
        cut(samples, size), speech, group=4, lookahead=None, level=speech.level(torch.from_numpy(samples)[None]),
        device=torch.device("cpu"), amplified=lambda features: speech.amplified(features, 1.0),
    )  # fmt: skip
    for shot in sound.shots(NOBODY, Fraction(25), 0.0):
        rows = torch.tensor([2 * shot.index, 2 * shot.index + 1])
        torch.testing.assert_close(sound.features[rows], whole[rows], atol=1e-5, rtol=0)
    assert float((whole - plain).abs().max()) > 0.05, "lips close somewhere"


def test_features_come_nearer_to_those_of_the_whole_sound_the_farther_it_looks_ahead():
    speech, samples = encoder(), syllables(3.0)
    with torch.no_grad():
        whole = speech.encode_long(torch.from_numpy(samples)).view(-1, 2, 2)
    level = speech.level(torch.from_numpy(samples)[None])
    errors = [
        float((live_features(speech, samples, seconds, level) - whole).abs().mean())
        for seconds in (0.0, 0.1, 0.4)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 1e-5, "the encoder reaches no farther"


def test_the_level_is_found_within_seconds_and_noise_before_the_first_word_is_not_raised():
    speech, voice = encoder(), syllables(6.0)
    noise = (1e-3 * np.random.default_rng(1).standard_normal(RATE)).astype(np.float32)
    for gain in (0.1, 1.0, 3.0):
        true = float(speech.level(torch.from_numpy(gain * voice)[None]))
        running = speech.running_level()
        before = float(running.update(torch.from_numpy(noise)))
        for start in range(0, len(voice), 1000):
            found = float(running.update(torch.from_numpy(gain * voice[start : start + 1000])))
        assert before > float(speech.level(torch.from_numpy(noise)[None])) + 1.5, "30 dB of headroom"
        assert abs(found - true) < 0.3, gain  # 3 dB
    for _ in range(20):
        found = float(running.update(torch.from_numpy(np.tile(noise, 10))))
    assert abs(found - true) < 0.4, "a pause of minutes is not a quiet voice"


def test_the_running_level_of_any_other_encoder_is_that_of_the_last_seconds():
    speech, samples = encoder(), torch.from_numpy(syllables(2.0))
    running = RecentLevel(speech, seconds=1.0)
    running.update(samples[:20000])
    assert torch.equal(running.update(samples[20000:]), speech.level(samples[None, -RATE:]))


def test_a_frame_is_made_as_soon_as_its_sound_and_the_lookahead_are_there(tiny_pipeline, picture):
    heard = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal heard
        for chunk in itertools.cycle([syllables(0.01)]):
            heard += len(chunk)
            yield chunk

    with tiny_pipeline.stream(source(), picture, lookahead=0.2, group=2) as live:
        assert heard == 0
        for k in range(12):
            next(live)
            due = ((k // 2 * 2 + 1.5) / 25 + 0.2) * RATE
            assert due <= heard <= due + 160, k
        assert live.delay == pytest.approx(0.2 + 1.5 / 25)
        assert live.fps == 25


def test_leaving_frees_everything(tiny_pipeline, picture):
    class Source:
        def __iter__(self) -> Iterator[np.ndarray]:
            return iter([syllables(1.0)] * 1000)

    sound = LiveSound(
        Source(), tiny_pipeline.speech, group=2, lookahead=0.1, level=None, device=torch.device("cpu")
    )
    gone = weakref.ref(sound)
    live = FrameStream(tiny_pipeline(sound, picture), sound)
    del sound
    next(live)
    assert gone() is not None
    live.close()
    gc.collect()
    assert gone() is None
    with pytest.raises(StopIteration):
        next(live)


def test_memory_of_the_sound_does_not_grow(tiny_pipeline):
    sound = LiveSound(
        itertools.repeat(syllables(1.0), 300),
        tiny_pipeline.speech,
        group=8,
        lookahead=0.3,
        level=None,
        device=torch.device("cpu"),
    )
    held = [
        sum(map(len, sound._pieces)) + sound.features.rows.numel()
        for _ in sound.shots(NOBODY, Fraction(25), 0.1)
    ]
    assert len(held) == 7500
    assert max(held[50:]) < 3 * RATE


@pytest.mark.parametrize("lookahead", [None, 0.2])
@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "sound: 0.000 s is less than half a frame"),
        ([np.zeros(100, np.float32)], "sound: 0.006 s is less than half a frame"),
        (
            [np.zeros(10, np.float32), np.zeros(100)],
            "chunk 1 is of float64; allowed are numpy arrays of float32",
        ),
        ([[0.1, 0.2]], "chunk 0 is a list; allowed are numpy arrays of float32"),
        ([np.zeros((100, 2), np.int16)], r"chunk 0 has the shape \(100, 2\); allowed is \(n,\): mono"),
        ([np.full(10, np.nan, np.float32)], "chunk 0 holds values up to nan; allowed are finite values"),
        (
            [np.full(10, 20000.0, np.float32)],
            "values up to 20000; allowed are finite values in .-1, 1., or int16",
        ),
    ],
)
def test_sound_that_is_not_allowed(tiny_pipeline, picture, chunks, message, lookahead):
    with pytest.raises(TalkfaceError, match=message):
        list(tiny_pipeline.stream(chunks, picture, lookahead=lookahead))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lookahead": -0.1}, "lookahead: -0.1; allowed are 0 to 10"),
        ({"group": 0}, "group: 0; allowed are 1 to 64"),
        ({"emotion": "bored"}, "emotion: bored"),
        ({"film": "a.mp4"}, "give either image"),
    ],
)
def test_arguments_that_are_not_allowed(tiny_pipeline: TalkingFacePipeline, picture, options, message):
    with pytest.raises(TalkfaceError, match=message):
        tiny_pipeline.stream([], picture, **options)


def test_the_face_is_looked_for_before_any_sound(tiny_pipeline):
    with pytest.raises(TalkfaceError, match="no face"):
        tiny_pipeline.stream([], np.zeros((100, 100, 3), np.uint8))
