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
    TalkingMouth,
    heard_versions,
    seen_versions,
    stored_crops,
    sync_target,
    train_sync,
    view,
)

CHANNELS, SEEN = 8, 384


def network() -> SyncNetwork:
    torch.manual_seed(0)
    return SyncNetwork(5, actions=["jawOpen"], speech_channels=CHANNELS, dilations=(1,), width=16, dim=16)


def clips(count: int = 6, frames: int = 60, seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What is seen and heard of some clips: one number per frame, in one feature of many on either side."""
    rng = np.random.default_rng(seed)
    seen, heard = [], []
    for _ in range(count):
        told = torch.from_numpy(rng.uniform(-1, 1, frames)).float()
        looks, sounds = torch.zeros(2, frames, SEEN), torch.zeros(1, 2 * frames, CHANNELS)
        looks[:, :, 3], looks[:, :, 4] = told, -told
        sounds[:, :, 0], sounds[:, :, 1] = told.repeat_interleave(2), -told.repeat_interleave(2)
        seen.append(looks.half())
        heard.append(sounds.half())
    return seen, heard


def test_batches_repeat_and_stay_in_step() -> None:
    seen, heard = clips()
    first, again = (SyncSampler(seen, heard, num_frames=5, seed=4).batch(6) for _ in range(2))
    assert torch.equal(first.seen, again.seen) and torch.equal(first.heard, again.heard)
    assert first.seen.shape == (6, WINDOWS + 4, SEEN)
    assert first.heard.shape[1] == 2 * (WINDOWS + 4 + 2 * REACH) + 8
    begin = 2 * REACH + 4  # where the sound of the first frame lies
    torch.testing.assert_close(first.heard[:, begin : begin + 2 * (WINDOWS + 4) : 2, 0], first.seen[:, :, 3])
    assert len({float(row) for row in first.seen[:, 0, 3]}) == 6  # as many clips as there are, none twice


def test_short_clips_are_left_out() -> None:
    (seen, heard), (short, heard_short) = clips(3), clips(1, frames=10)
    assert len(SyncSampler(seen + short, heard + heard_short, num_frames=5).seen) == 3


def test_a_view_is_one_camera() -> None:
    """All frames are framed, lit and coded alike; another draw is another camera."""
    crops = np.zeros((4, STORED, STORED, 3), np.uint8)
    crops[:, 40:60, 20:70] = (200, 60, 60)
    for seed in range(6):
        made, again = (view(np.random.default_rng(seed), crops, 64) for _ in range(2))
        np.testing.assert_array_equal(made, again)
        assert made.shape == (4, 64, 64, 3)
        apart = np.abs(made[1:].astype(float) - made[0]).mean()
        other = np.abs(view(np.random.default_rng(seed + 50), crops, 64).astype(float) - made).mean()
        assert apart < other


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


def test_what_is_seen_and_heard_is_as_long_as_the_clip() -> None:
    rng = np.random.default_rng(0)
    mouths = [
        TalkingMouth(
            rng.integers(0, 255, (frames, STORED, STORED, 3), np.uint8),
            rng.normal(0, 0.1, n).astype(np.float32),
        )
        for frames, n in ((4, 16000), (3, 9000))
    ]
    expert = network().eval().requires_grad_(False)
    seen = seen_versions(expert, mouths, 2, seed=0)
    assert [tuple(one.shape) for one in seen] == [(2, 4, SEEN), (2, 3, SEEN)]
    assert torch.equal(seen[0], seen_versions(expert, mouths, 2, seed=0)[0])
    heard = heard_versions(expert, mouths, 3, torch.Generator().manual_seed(0))
    assert [tuple(one.shape) for one in heard] == [(3, 50, CHANNELS), (3, 28, CHANNELS)]
    clean = expert.speech.hidden(torch.from_numpy(mouths[0].sound)[None])[0]
    # the sounds of a batch are as long as the longest, so the end of a shorter one is followed by silence
    torch.testing.assert_close(heard[0][0].float(), clean, atol=2e-2, rtol=2e-2)
    assert not torch.equal(heard[0][0], heard[0][1])


def test_it_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    seen, heard = clips(24)
    expert = network()
    eyes = {name: value.clone() for name, value in expert.lips.state_dict().items()}
    lines: list[str] = []

    def run(steps: int) -> None:
        sampler, state = SyncSampler(seen, heard, num_frames=5, seed=1), tmp_path / "state.pt"
        expert.seen.requires_grad_(True)
        expert.heard.requires_grad_(True)
        train_sync(
            expert, sampler, steps=steps, batch_size=4, learning_rate=5e-3, checkpoint=state, log=lines.append
        )

    before = right_share(expert.eval())
    run(100)
    run(200)  # from the checkpoint: 100 more
    assert [line.split()[1] for line in lines] == ["100", "200"]
    after = right_share(expert)
    assert before < 0.2 and after > 0.45
    for name, value in expert.lips.state_dict().items():
        assert torch.equal(value, eyes[name])


@torch.no_grad()
def right_share(expert: SyncNetwork) -> float:
    """Share of windows of a clip not trained on whose nearest sound among 38 is the right one within a frame."""
    (seen,), (heard,) = clips(1, seed=9)
    faces = expert.seen(seen[0].float().unfold(0, 5, 1).transpose(1, 2)[4:44])
    sounds = expert.heard(heard[0].float().unfold(0, 18, 2).transpose(1, 2))  # these begin two frames later
    nearest = torch.cdist(faces, sounds).argmin(1) + 2
    return float(((nearest - torch.arange(4, 44)).abs() <= 1).float().mean())
