"""The sync expert learns which sound belongs to which lips, and its batches keep lips and sound in step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from talkface.experts.sync import SyncNetwork
from talkface.training.sync import (
    NEIGHBOUR,
    REACH,
    STORED,
    WINDOWS,
    SyncSampler,
    SyncTraining,
    TalkingMouth,
    heard_versions,
    stored_crops,
    sync_target,
    train_sync,
)

CHANNELS = 8


def network() -> SyncNetwork:
    torch.manual_seed(0)
    return SyncNetwork(5, actions=["jawOpen"], speech_channels=CHANNELS, dilations=(1,), width=16, dim=16)


def clips(count: int = 6, frames: int = 60) -> tuple[list[TalkingMouth], list[torch.Tensor]]:
    """Grey mouths as bright as the first feature of the sound says."""
    rng = np.random.default_rng(0)
    mouths, heard = [], []
    for _ in range(count):
        bright = rng.uniform(0, 1, frames)
        grey = (40 + 170 * bright).astype(np.uint8)[:, None, None, None]
        features = torch.zeros(1, 2 * frames, CHANNELS)
        features[0, :, 0] = torch.from_numpy(np.repeat(bright, 2)) * 4 - 2
        mouths.append(TalkingMouth(np.tile(grey, (1, STORED, STORED, 3)), np.zeros(frames * 640, np.float32)))
        heard.append(features)
    return mouths, heard


def test_batches_repeat_and_stay_in_step() -> None:
    mouths, heard = clips()
    first, again = (SyncSampler(mouths, heard, num_frames=5, seed=4).batch(6) for _ in range(2))
    np.testing.assert_array_equal(first.crops, again.crops)
    assert torch.equal(first.heard, again.heard)
    assert first.crops.shape == (6, WINDOWS + 4, 64, 64, 3)
    assert first.heard.shape[1] == 2 * (WINDOWS + 4 + 2 * REACH) + 8
    # brightness of the frames against the sound that should lie at their place; some are degraded
    begin = 2 * REACH + 4
    told = first.heard[:, begin : begin + 2 * (WINDOWS + 4) : 2, 0].numpy()
    shown = first.crops.mean((2, 3, 4))
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(shown, told, strict=True)]
    moved = [np.corrcoef(a[1:], b[:-1])[0, 1] for a, b in zip(shown, told, strict=True)]
    assert np.median(alike) > 0.9 and np.median(moved) < 0.6


def test_short_clips_are_left_out() -> None:
    (mouths, heard), (short, heard_short) = clips(3), clips(1, frames=10)
    assert len(SyncSampler(mouths + short, heard + heard_short, num_frames=5).mouths) == 3


def test_targets_name_the_sound_and_its_neighbours() -> None:
    target = sync_target(2, 3, 7)  # sounds -2 ... 4 of windows 0 ... 2
    assert target.shape == (6, 14)
    torch.testing.assert_close(target.sum(1), torch.ones(6))
    assert target[0].argmax() == 2 and target[5].argmax() == 7 + 4
    assert float(target[0, 1] / target[0, 2]) == pytest.approx(NEIGHBOUR)
    assert int((target[0] > 0).sum()) == 3 and float(target[:3, 7:].abs().max()) == 0


def test_stored_crops_show_the_mouth(draw_face_points) -> None:
    points = np.repeat(draw_face_points(96)[None], 4, axis=0)
    frames = np.zeros((4, 96, 96, 3), np.uint8)
    x, y = points[0, 48:68].mean(0).astype(int)
    frames[:, y - 2 : y + 3, x - 2 : x + 3] = 255
    crops = stored_crops(frames, points)
    rows, columns = np.nonzero(crops[0, :, :, 0] > 128)
    assert abs(rows.mean() + 0.5 - STORED / 2) < 2 and abs(columns.mean() + 0.5 - STORED / 2) < 2


def test_what_is_heard_is_as_long_as_the_sound() -> None:
    rng = np.random.default_rng(0)
    nothing = np.zeros((1, 1, 1, 3), np.uint8)
    mouths = [TalkingMouth(nothing, rng.normal(0, 0.1, n).astype(np.float32)) for n in (16000, 9000)]
    expert = network().eval()
    heard = heard_versions(expert, mouths, 3, torch.Generator().manual_seed(0))
    assert [tuple(one.shape) for one in heard] == [(3, 50, CHANNELS), (3, 28, CHANNELS)]
    clean = expert.speech.hidden(torch.from_numpy(mouths[0].sound)[None])[0]
    torch.testing.assert_close(heard[0][0].float(), clean, atol=2e-2, rtol=2e-2)
    assert not torch.equal(heard[0][0], heard[0][1])


def test_it_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    mouths, heard = clips()
    expert = network()
    before = {name: value.clone() for name, value in expert.state_dict().items()}
    batch = SyncSampler(mouths, heard, num_frames=5, seed=9).batch(4)

    @torch.no_grad()
    def loss() -> float:
        return sum(float(term) for term in SyncTraining(expert).eval()(batch).values())

    def run(steps: int) -> None:
        sampler, state = SyncSampler(mouths, heard, num_frames=5, seed=1), tmp_path / "state.pt"
        train_sync(expert, sampler, steps=steps, batch_size=3, learning_rate=3e-3, checkpoint=state)

    first = loss()
    run(10)
    run(25)  # from the checkpoint: 15 more
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 25
    assert loss() < first - 0.1
    stays = ("lips.0.", "lips.1.", "speech.")
    for name, value in expert.state_dict().items():
        norm = "running" in name or "num_batches" in name
        assert torch.equal(value, before[name]) or not (name.startswith(stays) or norm), name
    assert not torch.equal(expert.seen.enter.weight, before["seen.enter.weight"])
