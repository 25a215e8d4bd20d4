"""Sync experts: crops, windows, offsets of clips whose answer is known, landmarks against sound."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from talkface.checkpoint import load_bundle
from talkface.errors import TalkfaceError
from talkface.experts.sync import SyncExpert, SyncNetwork, feature_windows
from talkface.experts.sync_crops import crop_frames, cut_crops
from talkface.experts.sync_offset import distances, read_curve, read_film, read_offset
from talkface.experts.sync_shape import GAP_OF_ACTIONS, ShapeSync, correlations, seen_gap
from talkface.head.model import ACTIONS, HeadModel

RATE, FPS = 16000, 25


def small(frames: int = 5) -> SyncNetwork:
    torch.manual_seed(0)
    made = SyncNetwork(frames, actions=["jawOpen"], speech_channels=16, dilations=(1, 2), width=16, dim=8)
    return made.eval().requires_grad_(False)


def opening(count: int, seed: int = 0) -> np.ndarray:
    """How far a mouth is open in each frame, 0 to 1, never still."""
    return np.random.default_rng(seed).uniform(0, 1, count)


def hum(loud: np.ndarray, late: int = 0) -> Tensor:
    """A tone as loud as `loud` says, frame by frame, `late` frames later."""
    time = np.arange(len(loud) * RATE // FPS) / RATE
    level = np.interp(time * FPS - 0.5 - late, range(len(loud)), loud)
    return torch.from_numpy((0.5 * level * np.sin(2 * np.pi * 200 * time)).astype(np.float32))


def drawn(loud: np.ndarray, points: np.ndarray, side: int = 96) -> tuple[Tensor, Tensor]:
    """A grey face whose mouth is a black ellipse as high as the sound is loud, and its landmarks."""
    frames, centre = [], points[48:68].mean(0)
    for value in loud:
        picture = np.full((side, side, 3), 180, np.uint8)
        axes = (side // 12, max(1, round(side * 0.1 * value)))
        cv2.ellipse(picture, tuple(int(v) for v in centre), axes, 0, 0, 360, (0, 0, 0), -1)
        frames.append(torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1)
    return torch.stack(frames), torch.from_numpy(points).float().expand(len(loud), -1, -1)


class DarkAgainstLoud(SyncExpert):
    """Knows one thing: how dark the mouth is, and how loud the sound."""

    name = "drawn"

    def embed_faces(self, frames: Tensor) -> Tensor:
        return (self.check_frames(frames) < -0.3).float().mean((2, 3, 4)) / 0.17

    def sound_windows(self, samples: Tensor, rate: int, times: Tensor) -> Tensor:
        hop = rate // FPS
        loud = samples[: len(samples) // hop * hop].reshape(-1, hop).square().mean(1).sqrt() / 0.36
        first = (times * FPS - self.num_frames / 2).round().long()
        return loud[(first[:, None] + torch.arange(self.num_frames)).clamp(0, len(loud) - 1)]

    def embed_sound(self, windows: Tensor) -> Tensor:
        return windows


@pytest.mark.parametrize("late", [-7, -1, 0, 1, 4, 12])
def test_a_planted_offset_is_found_exactly(late: int, draw_face_points) -> None:
    """`late` is how much later the sound comes than the lips."""
    loud = opening(80)
    frames, landmarks = drawn(loud, draw_face_points(96))
    apart = distances(DarkAgainstLoud(), frames, landmarks, hum(loud, late), RATE)
    assert apart.shape == (76, 31)
    reading = read_offset(apart)
    assert reading.offset == late
    assert reading.confidence > 0.3 * reading.curve[~reading.curve.isnan()].max()
    other = read_offset(distances(DarkAgainstLoud(), frames, landmarks, hum(opening(80, seed=1)), RATE))
    assert other.confidence < 0.5 * reading.confidence and other.distance > 1.3 * reading.distance


def test_films_of_other_rates_are_read_at_25_a_second(draw_face_points) -> None:
    loud = opening(80)
    frames, landmarks = drawn(loud, draw_face_points(96))
    # every frame of 25 a second is shown twice, at 50
    pictures = ((frames.permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy().repeat(2, axis=0)
    points = landmarks.numpy().repeat(2, axis=0)
    reading = read_film(DarkAgainstLoud(), pictures, points, hum(loud, 3).numpy(), RATE, 50.0)
    assert reading.offset == 3 and reading.gain > 0.2
    assert read_film(DarkAgainstLoud(), pictures, points, hum(loud).numpy(), RATE, 50.0).gain == 0


def test_curves_without_an_answer() -> None:
    flat = read_curve(torch.ones(31))
    assert (flat.offset, flat.confidence, flat.distance) == (0, 0.0, 1.0)
    nothing = read_curve(torch.full((31,), torch.nan))
    assert nothing.offset == 0 and nothing.confidence == 0 and np.isnan(nothing.distance)
    curve = torch.tensor([torch.nan, 3.0, 1.0, 2.0, 4.0])
    assert read_curve(curve).offset == 0 and read_curve(curve.flip(0)).offset == 0
    assert read_curve(torch.tensor([3.0, 2.0, 2.5, 2.0, 1.0])).offset == 2
    apart = torch.ones(4, 5)
    apart[:3, 0] = torch.nan  # sound for a quarter of the windows only
    apart[3, 0] = 0
    assert torch.isnan(read_offset(apart).curve[0])


def test_crops_show_what_lies_there_and_let_gradients_through(draw_face_points) -> None:
    points = torch.from_numpy(draw_face_points(128)).float()[None, None].expand(1, 6, -1, -1)
    y, x = torch.meshgrid(torch.arange(128.0) + 0.5, torch.arange(128.0) + 0.5, indexing="ij")
    frames = torch.stack([x, y, x + y])[None, None].expand(1, 6, -1, -1, -1).clone().requires_grad_()
    lips = points[0, 0, 48:68].mean(0)
    for region, size in (("mouth", (64, 64)), ("lower half", (48, 96)), ("face", (224, 224))):
        places = crop_frames(points, region)
        crops = cut_crops(frames, places, size)
        assert crops.shape == (1, 6, 3, *size)
        low, high = crops[0, 0, :2].amin((1, 2)), crops[0, 0, :2].amax((1, 2))
        assert bool((low < lips).all() and (lips < high).all())
        # equal scale in both directions, and the middle of the crop where it was said to be
        steps = crops[0, 0, 0].diff(dim=1).median(), crops[0, 0, 1].diff(dim=0).median()
        torch.testing.assert_close(steps[0], steps[1], rtol=0.02, atol=0)
        middle = crops[0, 0, :2].mean((1, 2))
        if region == "mouth":
            torch.testing.assert_close(middle, lips, rtol=0, atol=0.6)
            assert float(crops[0, 0, 1].detach().max()) <= float(points[0, 0, 8, 1]) + 8
    crops.sum().backward()
    assert float(frames.grad.abs().sum()) > 0


def test_shaking_landmarks_do_not_shake_the_crop(draw_face_points) -> None:
    rng = np.random.default_rng(0)
    shaken = draw_face_points(128)[None] + rng.normal(0, 1.0, (60, 1, 2))
    places = crop_frames(torch.from_numpy(shaken)[None].float(), "mouth")[0]
    assert float(places[5:-5, :2].std(0).mean()) < 0.5 * shaken[:, 0].std(0).mean()


@pytest.mark.parametrize("frames", [5, 16])
def test_a_film_is_the_same_as_its_windows(frames: int, draw_face_points) -> None:
    expert = small(frames)
    pictures, landmarks = drawn(opening(24), draw_face_points(96))
    seen = expert.embed_film(pictures, landmarks)
    crops = expert.crops(pictures[None], landmarks[None])[0]
    windows = crops.unfold(0, frames, 1).movedim(-1, 1)
    torch.testing.assert_close(seen, expert.embed_faces(windows), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(len(seen)))
    heard = expert.embed_sound(expert.sound_windows(hum(opening(24)), RATE, torch.tensor([0.3, 0.5])))
    assert heard.shape == (2, 8)
    similarity = expert.similarity(seen[:2], heard)
    assert similarity.shape == (2,) and float(similarity.abs().max()) <= 1 + 1e-6
    # sound of another rate is heard alike
    slow = expert.sound_windows(hum(opening(24))[::2].contiguous(), RATE // 2, torch.tensor([0.5]))
    assert slow.shape[1:] == expert.sound_windows(hum(opening(24)), RATE, torch.tensor([0.5])).shape[1:]


def test_gradients_reach_the_pixels(draw_face_points) -> None:
    expert = small(16)
    pictures, landmarks = drawn(opening(16), draw_face_points(96))
    pictures.requires_grad_()
    sound = expert.embed_sound(expert.sound_windows(hum(opening(16)), RATE, torch.tensor([0.32])))
    crops = expert.crops(pictures[None], landmarks[None])
    (1 - expert.similarity(expert.embed_faces(crops), sound)).mean().backward()
    assert bool((pictures.grad.abs().sum((1, 2, 3)) > 0).all())


def test_windows_of_features_belong_to_their_times() -> None:
    features = torch.arange(100.0)[:, None]
    # five frames of 25 a second that begin with frame 10 have features 20 ... 29 of 50 a second
    windows = feature_windows(features, 50, torch.tensor([12.5 / 25, 0.0]), 18)
    assert windows[0, :, 0].tolist() == list(range(16, 34))
    assert windows[1, :10, 0].tolist() == [0.0] * 10


def test_bad_input_is_one_line(draw_face_points) -> None:
    expert = small()
    pictures, landmarks = drawn(opening(4), draw_face_points(96))
    with pytest.raises(TalkfaceError, match=r"a clip of 4 frames .* 5 or more"):
        distances(expert, pictures, landmarks, torch.zeros(2000), RATE)
    with pytest.raises(
        TalkfaceError, match=r"frames of shape \(1, 4, 3, 96, 96\); allowed \(B, 5, 3, H, W\)"
    ):
        expert.embed_faces(pictures[None])
    with pytest.raises(TalkfaceError, match=r"landmarks: shape \(1, 4, 67, 2\)"):
        crop_frames(landmarks[None, :, :67], "mouth")
    with pytest.raises(TalkfaceError, match="not finite"):
        crop_frames(torch.full((1, 4, 68, 2), torch.nan), "mouth")
    with pytest.raises(TalkfaceError, match="num_frames: 7; allowed 5, 16"):
        SyncNetwork(7)
    with pytest.raises(TalkfaceError, match="does not tell facial actions"):
        # what is refused is what the type forbids
        ShapeSync(torch.nn.Identity())  # type: ignore[arg-type]


def test_curves_are_correlated_at_any_rate() -> None:
    curve = torch.from_numpy(np.convolve(opening(500, seed=3), np.ones(8) / 8, "same")).float()
    for fps in (23.976, 25.0, 30.0):
        for late in (-6, 0, 3):
            times = (torch.arange(int(6 * fps)) + 0.5 + late) / fps + 1  # a second of margin
            at = times * 50 - 0.5
            seen = torch.lerp(curve[at.long()], curve[at.long() + 1], at - at.long())
            found = read_curve(correlations(seen, curve[50:], fps, 50, 10))
            assert found.offset == late and found.distance < 0.01


def test_the_gap_of_actions_is_that_of_the_head() -> None:
    """The table against the head model it was measured on; and the gap of its landmarks."""
    head = HeadModel.load()

    def gap(values: dict[str, float]) -> float:
        actions = torch.zeros(1, 52)
        for name, value in values.items():
            for number, known in enumerate(ACTIONS):
                if known in (name, f"{name}Left", f"{name}Right"):
                    actions[0, number] = value
        points = head(torch.zeros(1, head.num_identity), actions)[:, head.landmarks, :2]
        return float(seen_gap(points * torch.tensor([1.0, -1.0]))[0])  # the head's y points up

    rest = gap({})
    for name, told in GAP_OF_ACTIONS.items():
        assert gap({name: 1.0}) - rest == pytest.approx(told, abs=0.012), name
    assert gap({"jawOpen": 0.5, "mouthClose": 0.5}) == pytest.approx(rest, abs=0.02)


def test_lips_of_synthesized_speech_are_found_in_step() -> None:
    """The bundle's encoder against the parametric head: nothing here was fitted to the other's output."""
    pytest.importorskip("espeakng_loader")
    from talkface.data.synthetic.motion import performance
    from talkface.data.synthetic.voices import Voice, speak

    expert = ShapeSync(load_bundle("default", parts=["speech"]).part("speech"))
    head = HeadModel.load()
    voice = Voice.list("train", families=("espeak",))[0]
    said = speak(voice, "Bob and Paula happily bought a warm apple pie for mama.")
    played = performance(said, fps=FPS, seed=4)
    vertices = head(torch.zeros(1, head.num_identity), torch.from_numpy(played.actions).float())
    landmarks = vertices[:, head.landmarks, :2] * torch.tensor([1.0, -1.0])
    samples = torch.from_numpy(said.samples)
    for late in (-5, -2, 0, 3, 5):
        hop = abs(late) * RATE // FPS
        moved = torch.cat([samples.new_zeros(hop), samples]) if late > 0 else samples[hop:]
        found = expert.read(landmarks, moved, RATE, FPS)
        assert abs(found.offset - late) <= 1, late
        assert found.confidence > 0.3
