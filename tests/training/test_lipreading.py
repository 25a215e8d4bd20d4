"""Lip readers learn what they are shown; batches keep mouths, words and frames together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from talkface.errors import TalkfaceError
from talkface.experts.lipreading import BLANK, LipReader
from talkface.head.model import ACTIONS
from talkface.training.lipreading import (
    CHARACTERS,
    GLANCE,
    MOUTH_ACTIONS,
    SpeechSampler,
    SpokenClip,
    margin_of,
    to_characters,
    train_lip_reader,
)

CROP, MARGIN = 32, margin_of(32)
SIDE = CROP + 2 * MARGIN


def drawn_clips(count: int, seed: int = 0) -> list[SpokenClip]:
    """Mouths that close (class 1, "b"), open (2, "a") or round (3, "o") for four frames each, after two of silence."""
    rng = np.random.default_rng(seed)
    clips = []
    for _ in range(count):
        classes = [int(rng.integers(1, 4))]
        while len(classes) < 4:
            classes += [one for one in [int(rng.integers(1, 4))] if one != classes[-1]]
        frames = np.repeat([0, *classes], [2, 4, 4, 4, 4])
        mouths = np.full((len(frames), SIDE, SIDE), 170, np.uint8)
        for mouth, shown in zip(mouths, frames, strict=True):
            axes = {0: (9, 1), 1: (9, 1), 2: (9, 7), 3: (4, 5)}[int(shown)]
            cv2.ellipse(mouth, (SIDE // 2, SIDE // 2), axes, 0, 0, 360, 30 if shown else 110, -1)
        actions = np.zeros((len(frames), 52), np.float32)
        actions[:, ACTIONS.index("jawOpen")] = frames == 2
        actions[:, ACTIONS.index("mouthSmileLeft")] = frames == 3
        text = "".join(" bao"[one] for one in classes)
        clips.append(SpokenClip(mouths, text, np.array(classes), frames.astype(np.int64), actions))
    return clips


def test_text_becomes_characters():
    assert [CHARACTERS[unit] for unit in to_characters("It's  9 A.")] == list("it's  a")
    assert to_characters("...") == []


def test_batches_repeat_and_are_whole():
    clips = drawn_clips(6)
    one, again = (SpeechSampler(clips, CROP, seed=3).batch(5) for _ in range(2))
    for name, value in vars(one).items():
        assert torch.equal(value, getattr(again, name)), name
    length = int(one.lengths.max())
    assert one.mouths.shape == (5, length, 1, CROP, CROP) and one.mouths.min() >= 0 and one.mouths.max() <= 1
    assert one.characters.shape == one.visemes.shape == (int(one.viseme_counts.sum()),)
    there = torch.arange(length)[None] < one.lengths[:, None]
    assert torch.equal(one.frame_visemes >= 0, there)
    assert set(one.lengths.tolist()) != {18}  # said faster and slower


def test_frames_keep_their_classes_whatever_the_speed():
    batch = SpeechSampler(drawn_clips(8), CROP, seed=1).batch(16)
    for row, count in enumerate(batch.viseme_counts):
        start = int(batch.viseme_counts[:row].sum())
        frames = [one for one in batch.frame_visemes[row].tolist() if one > 0]
        order = [one for place, one in enumerate(frames) if place == 0 or frames[place - 1] != one]
        assert order == batch.visemes[start : start + int(count)].tolist()


def test_glances_keep_classes_and_actions():
    """A mirrored smile is on the other side; an open jaw stays with the open mouth."""
    glances, again = (SpeechSampler(drawn_clips(8), CROP, seed=1).glances(40) for _ in range(2))
    assert torch.equal(glances.mouths, again.mouths)
    assert glances.mouths.shape == (40, GLANCE, 1, CROP, CROP)
    assert glances.actions.shape == (40, GLANCE, len(MOUTH_ACTIONS))
    names = [ACTIONS[place] for place in MOUTH_ACTIONS]
    assert torch.equal(glances.actions[..., names.index("jawOpen")] == 1, glances.frame_visemes == 2)
    left, right = (glances.actions[..., names.index(f"mouthSmile{side}")] for side in ("Left", "Right"))
    assert torch.equal((left + right) == 1, glances.frame_visemes == 3)
    assert left.sum() > 0 and right.sum() > 0


@torch.no_grad()
def surprise(reader: LipReader, clips: list[SpokenClip], shift: int = 0) -> float:
    """CTC loss of the visemes of clips, seen in the films of the clips `shift` places further."""
    films = torch.stack([torch.from_numpy(clip.mouths) for clip in clips])[:, :, None] / 255
    chances = reader.log_probabilities(
        films[..., MARGIN:-MARGIN, MARGIN:-MARGIN].roll(-shift, 0), head="visemes"
    )
    units = torch.from_numpy(np.stack([clip.visemes for clip in clips]))
    lengths = torch.full((len(clips),), chances.shape[1])
    return float(
        torch.nn.functional.ctc_loss(chances.transpose(0, 1), units, lengths, torch.full_like(lengths, 4))
    )


def test_it_learns():
    torch.manual_seed(0)
    reader = LipReader(
        CHARACTERS, visemes=(BLANK, "pp", "aa", "ow"), channels=4, blocks=(1, 1, 1, 1), encoder="convolution", dim=24,
        layers=2, kernel=3, crop_size=CROP, dropout=0.0,
    )  # fmt: skip
    new = drawn_clips(12, seed=9)
    before = surprise(reader.eval(), new)
    train_lip_reader(
        reader, SpeechSampler(drawn_clips(24), CROP), steps=120, batch_size=4, learning_rate=8e-3, average_decay=0.8,
    )  # fmt: skip
    assert not reader.training
    assert surprise(reader, new) < 0.6 * before
    assert surprise(reader, new) < 0.9 * surprise(reader, new, shift=1)


def test_what_cannot_be_drawn_from_is_named():
    with pytest.raises(TalkfaceError, match="clips: none"):
        SpeechSampler([])
    with pytest.raises(TalkfaceError, match=r"mouths: \(34, 34\) pixels; allowed 96 x 96"):
        SpeechSampler(drawn_clips(1))
