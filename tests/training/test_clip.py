"""Training of the small CLIP: captions are true, losses know their answers, a few steps learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from talkface.data.synthetic.appearance import sample_person
from talkface.data.synthetic.clips import load_head
from talkface.experts.clip import FaceCLIP, words_of
from talkface.experts.prompts import EMOTION_PROMPTS, IMAGENET_TEMPLATES
from talkface.training.captions import (
    ATTRIBUTES,
    NAMES,
    QUESTIONS,
    SILENT,
    attributes_of,
    hair_colour,
    long_caption,
    mirrored,
    short_caption,
    truth,
)
from talkface.training.clip import (
    CaptionedFaces,
    CaptionSampler,
    all_words,
    clip_loss,
    direction_loss,
    sum_of_answers,
    train_clip,
)


def row(**values: str) -> np.ndarray:
    """Attributes by the names of their values; the rest is the first value."""
    return np.array([ATTRIBUTES[name].index(values.get(name, ATTRIBUTES[name][0])) for name in NAMES])


def test_captions_say_only_what_is_true():
    rng = np.random.default_rng(0)
    words_for = {"glasses": "glasses", "beard": "beard", "stubble": "stubble", "bald": "bald", "man": "man"}
    head = load_head("cpu")
    for seed in range(40):
        pose = np.array([0, rng.uniform(-0.4, 0.4), 0, 0, 0, 0])
        values = attributes_of(sample_person(seed, head), int(rng.integers(8)), pose)
        shown = {name: ATTRIBUTES[name][v] for name, v in zip(NAMES, values, strict=True) if v != SILENT}
        for _ in range(6):
            caption = long_caption(rng, values)
            words = words_of(caption.text)
            assert truth(values[None], caption.claims[None])[0, 0]
            for value, word in words_for.items():
                if word in words:
                    assert value in shown.values(), caption.text
            assert ("left" in words) <= (shown["turned"] == "left")
            assert ("old" in words or "elderly" in words) <= (shown["age"] == "old")
            said = {name for name, claim in zip(NAMES, caption.claims, strict=True) if claim != SILENT}
            assert ("glasses" in words) is ("glasses" in said)


def test_truth_is_that_all_claims_hold():
    happy_old = row(emotion="happy", age="old", glasses="glasses")
    sad_old = row(emotion="sad", age="old")
    claims = np.full((4, len(NAMES)), SILENT)
    claims[1, 0] = ATTRIBUTES["emotion"].index("happy")
    claims[2, NAMES.index("age")] = 2
    claims[3] = claims[1]
    claims[3, NAMES.index("glasses")] = 0
    found = truth(np.stack([happy_old, sad_old]), claims)
    assert found.tolist() == [[True, True, True, False], [True, False, True, False]]


def test_mirroring_turns_the_head_and_nothing_else():
    left, right = row(turned="left", age="old"), row(turned="right", age="old")
    assert (mirrored(left) == right).all() and (mirrored(right) == left).all()


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((18, 15, 14), "black"), ((112, 78, 48), "brown"), ((196, 164, 112), "blond"), ((140, 66, 34), "red"),
        ((206, 202, 196), "grey"), ((128, 124, 120), "grey"),
    ],
)  # fmt: skip
def test_colours_of_hair(colour, name):
    albedo = (torch.tensor(colour) / 255) ** 2.2
    assert ATTRIBUTES["hair_colour"][hair_colour(albedo)] == name


def test_every_word_is_known():
    known = set(all_words())
    rng = np.random.default_rng(0)
    for seed in range(60):
        values = np.array([int(rng.integers(len(ATTRIBUTES[name]))) for name in NAMES])
        for draw in (short_caption, long_caption):
            assert set(words_of(draw(np.random.default_rng(seed), values).text)) <= known
    for prompt in EMOTION_PROMPTS:
        assert set(words_of(prompt)) <= known
    assert set(words_of(" ".join(IMAGENET_TEMPLATES))) <= known


def test_the_contrastive_loss_of_one_to_one_pairs_is_clips():
    torch.manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(5, 7), dim=1) for _ in range(2))
    logits = 9.0 * images @ texts.t()
    target = torch.arange(5)
    expected = (
        torch.nn.functional.cross_entropy(logits, target)
        + torch.nn.functional.cross_entropy(logits.t(), target)
    ) / 2
    got = clip_loss(images, texts, torch.eye(5, dtype=torch.bool), torch.tensor(9.0))
    torch.testing.assert_close(got, expected)
    # one sentence that is true of both pictures: nothing can be better than half the probability each
    one = torch.nn.functional.normalize(torch.ones(2, 3), dim=1)
    both = clip_loss(one, one[:1], torch.ones(2, 1, dtype=torch.bool), torch.tensor(5.0))
    assert float(both) == pytest.approx(math.log(2) / 2)


def test_the_loss_of_directions():
    torch.manual_seed(0)
    prompts = torch.randn(9, 6)
    emotion = torch.tensor([1, 2, 3, 3, 4, 5, 6, 3])
    base = torch.randn(4, 6)
    along = torch.cat([base + prompts[emotion[:4]], base + prompts[emotion[4:]]])
    assert float(direction_loss(along, prompts, emotion)) == pytest.approx(0, abs=1e-5)
    against = torch.cat([base - prompts[emotion[:4]], base - prompts[emotion[4:]]])
    assert float(direction_loss(against, prompts, emotion)) == pytest.approx(2, abs=1e-5)
    # pairs of one emotion say nothing
    same = torch.full((8,), 3)
    assert float(direction_loss(along, prompts, same)) == 0
    # neutral stands for itself, or, in every second pair, for the sentence that says no emotion
    two = torch.tensor([0, 0, 1, 1])
    moved = torch.cat([torch.zeros(2, 6), torch.stack([prompts[1] - prompts[8], prompts[1] - prompts[0]])])
    assert float(direction_loss(moved, prompts, two)) == pytest.approx(0, abs=1e-5)


def test_answers_are_judged_where_there_is_one():
    images = torch.eye(3)
    sentences = torch.eye(3)[:2]
    value = np.array([0, 1, SILENT])
    got = sum_of_answers(images, [sentences], [value], torch.tensor(4.0))
    assert float(got) == pytest.approx(math.log(1 + math.exp(-4)), rel=1e-5)
    assert float(sum_of_answers(images, [sentences], [value * 0 - 1], torch.tensor(4.0))) == 0
    for name, texts in QUESTIONS.items():
        assert len(texts) == len(set(texts)) == len(ATTRIBUTES[name])


def test_a_few_steps_tell_two_colours_apart(draw_face_points):
    """Happy faces are red and angry ones blue: nearly every sentence can be found after 40 small steps."""
    rng = np.random.default_rng(0)
    images, values = [], []
    for k in range(24):
        happy = k % 2 == 0
        colour = (200, 60, 60) if happy else (60, 60, 200)
        images.append(np.clip(np.array(colour) + rng.integers(-30, 30, (64, 64, 3)), 0, 255).astype(np.uint8))
        values.append(row(emotion="happy" if happy else "angry"))
    points = np.stack([draw_face_points(64)] * 24).astype(np.float32)
    faces = CaptionedFaces(images, points, np.stack(values), np.arange(24) // 2)
    torch.manual_seed(0)
    network = FaceCLIP(
        vocabulary=all_words(), channels=(8, 8, 8, 8), blocks=(0, 0, 0, 0), dim=16, text_dim=32, text_layers=1,
        image_size=64,
    )  # fmt: skip
    sampler = CaptionSampler(faces, size=64, seed=0)
    batch = sampler.batch(8)
    assert batch.images.shape == (8, 64, 64, 3) and batch.truth.shape == (8, len(batch.texts))
    assert batch.truth.any(axis=0).all() and batch.truth.any(axis=1).all() and len(batch.prompts) == 9
    assert len(batch.questions) == 2 and all(len(value) == 8 for _, value in batch.questions)
    assert set(batch.emotion) == {1, 6} and (batch.emotion[:4] != batch.emotion[4:]).all()
    train_clip(network, sampler, steps=40, batch_size=12, learning_rate=1e-2, average_decay=0.9)
    assert not network.training
    test = torch.tensor([[0.57, -0.53, -0.53], [-0.53, -0.53, 0.57]])[:, :, None, None].expand(2, 3, 64, 64)
    with torch.no_grad():
        scores = network.encode_images(test) @ network.encode_texts(["happy face", "angry face"]).t()
    assert scores[0, 0] > scores[0, 1] + 0.1 and scores[1, 1] > scores[1, 0] + 0.1
