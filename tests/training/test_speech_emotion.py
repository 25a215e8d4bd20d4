"""Training of the emotion branch: the error falls, nothing else moves, targets are those of the corpus."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from talkface.data.synthetic.motion import emotional_speech
from talkface.errors import TalkfaceError
from talkface.experts.speech import ArticulationEncoder
from talkface.head.emotions import EMOTIONS
from talkface.head.model import ACTIONS
from talkface.training.speech_emotion import EmotionTraining

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import speech_windows
import train_speech_emotion

PHONEMES = [("B", 0.3, 0.4), ("AA1", 0.4, 0.6), ("M", 0.6, 0.7), ("IY0", 0.7, 0.9), ("F", 0.9, 1.0)]
BRANCH = {"emotions": ["happy", "angry"], "actions": ["jawOpen", "mouthSmileLeft"]}


def test_the_branch_learns_and_the_rest_stays():
    torch.manual_seed(0)
    encoder = ArticulationEncoder(["jawOpen", "mouthSmile"], 24, (1, 2), bands=20, branch=BRANCH)
    trunk = {
        name: value.clone() for name, value in encoder.state_dict().items() if not name.startswith("branch")
    }
    learner = EmotionTraining(encoder, torch.tensor([0.2, 0.2]))
    with torch.no_grad():
        hidden = encoder.hidden(0.1 * torch.randn(8, 16000))
        spoken = encoder.to_actions(encoder.amplified(encoder.told(hidden), 1.0), BRANCH["actions"])
    emotion, intensity = torch.tensor([0, 1] * 4), torch.linspace(0.2, 1.0, 8)
    added = torch.tensor([[0.0, 0.8], [-0.1, 0.0]])[emotion] * intensity[:, None]
    wanted = (spoken * (1.0 + 0.3 * intensity[:, None, None]) + added[:, None]).clamp(0, 1)
    optimizer = torch.optim.Adam(learner.branch.parameters(), 5e-3)
    losses = []
    for _ in range(120):
        loss = learner(hidden, emotion, intensity, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in trunk.items())
    silent = learner.predict(hidden, emotion, torch.zeros(8))
    torch.testing.assert_close(silent, spoken)


def test_an_encoder_without_a_branch_is_refused():
    with pytest.raises(TalkfaceError, match="branch"):
        EmotionTraining(ArticulationEncoder(["jawOpen"], 8, (1,), bands=8), torch.ones(1))


@pytest.mark.parametrize("emotion", EMOTIONS[1:])
def test_targets_are_the_emotional_speech_of_the_corpus(emotion):
    speech, louder = train_speech_emotion.both_efforts(PHONEMES)
    times = speech_windows.frame_times(len(speech))
    for intensity in (0.3, 1.0):
        made = train_speech_emotion.with_emotion(speech, louder, emotion, intensity)
        np.testing.assert_allclose(made, emotional_speech(PHONEMES, times, emotion, intensity), atol=2e-6)


def test_the_script_writes_the_encoder_it_was_given_with_a_branch(tmp_path, monkeypatch):
    random = np.random.default_rng(0)

    def windows(count, split, seed):
        for _ in range(count):
            yield (random.normal(size=480000) * 3000).astype(np.int16), PHONEMES

    monkeypatch.setattr(train_speech_emotion, "spoken_windows", windows)
    monkeypatch.setattr(train_speech_emotion, "untrained_encoder", lambda: (dict(small), tiny()))
    small = {"actions": ["jawOpen", "mouthPress"], "channels": 8, "dilations": [1], "bands": 8}

    def tiny():
        return ArticulationEncoder(**small)

    start, out = tmp_path / "speech.safetensors", tmp_path / "felt" / "speech.safetensors"
    save_file({name: value.half() for name, value in tiny().state_dict().items()}, start)
    train_speech_emotion.train(start, tmp_path / "cache", out, steps=4, count=1, seed=0)
    before, after = load_file(start), load_file(out)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    encoder = ArticulationEncoder(**json.loads(out.with_suffix(".json").read_text())["init_args"])
    encoder.load_state_dict(after)
    assert encoder.branch.emotions == EMOTIONS[1:] and {"jawOpen", "mouthSmileLeft"} <= set(
        encoder.branch.actions
    )
    assert set(encoder.branch.actions) <= set(ACTIONS) and any(
        value.any() for name, value in after.items() if name.startswith("branch.pose")
    )
    with pytest.raises(TalkfaceError, match="--start"):
        train_speech_emotion.train(tmp_path / "none", tmp_path / "cache", out, steps=1, count=1, seed=0)
