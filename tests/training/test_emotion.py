"""The emotion classifier learns what it is shown, and its batches say what the pictures show."""

import cv2
import numpy as np
import torch

from talkface.experts.emotion import EmotionNetwork
from talkface.head.model import ACTIONS
from talkface.portrait.crop import ANCHORS
from talkface.training.emotion import EmotionSampler, LabelledFaces, train_emotion

SIZE = 64


def drawn_faces(count: int = 24) -> LabelledFaces:
    """Mouths that are open (1) or a line (2), with one raised brow on the picture's right."""
    rng = np.random.default_rng(0)
    images, labels = [], np.arange(count) % 2 + 1
    points = np.zeros((68, 2), np.float32)
    points[36:42], points[42:48], points[31:36] = ANCHORS * SIZE
    actions = np.zeros((count, 52), np.float32)
    actions[:, ACTIONS.index("browOuterUpLeft")] = 1
    for label in labels:
        picture = np.full((SIZE, SIZE, 3), rng.integers(120, 220, 3), np.uint8)
        cv2.ellipse(picture, (32, 46), (12, 8 if label == 1 else 1), 0, 0, 360, (20, 0, 0), -1)
        cv2.line(picture, (38, 14), (48, 12), (0, 0, 0), 2)
        images.append(picture)
    return LabelledFaces(images, np.repeat(points[None], count, 0), labels.astype(np.int64), actions)


def test_batches_repeat_and_mirrored_faces_have_mirrored_actions():
    faces = drawn_faces()
    batch, again = (EmotionSampler(faces, SIZE, seed=3).batch(24) for _ in range(2))
    np.testing.assert_array_equal(batch.images, again.images)
    left, right = (batch.actions[:, ACTIONS.index(f"browOuterUp{side}")] for side in ("Left", "Right"))
    np.testing.assert_array_equal(left + right, 1)
    assert 4 < left.sum() < 20
    assert set(batch.emotion) == {1, 2}


def test_it_learns():
    torch.manual_seed(0)
    network = EmotionNetwork(channels=(8, 8, 12, 16), blocks=(0, 0, 0, 0), features=16, image_size=SIZE)
    faces = drawn_faces()
    train_emotion(
        network, EmotionSampler(faces, SIZE), steps=240, batch_size=8, learning_rate=6e-3, average_decay=0.9
    )
    chances = network(torch.from_numpy(np.stack(faces.images)).permute(0, 3, 1, 2) / 127.5 - 1)
    assert not network.training
    assert (chances.argmax(1).numpy() == faces.emotion).mean() > 0.9
