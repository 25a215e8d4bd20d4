"""A face told facial actions: what moves, what stays, and that a shown expression is taken back."""

import cv2
import numpy as np
import pytest

from talkface.data.synthetic.faces import FaceRecipe, make_faces, plan_faces
from talkface.head import ACTIONS
from talkface.head.emotions import emotion_actions
from talkface.head.expressing import UPPER, Expresser
from talkface.head.expression import as_commands, commanded
from talkface.media import to_tensor

SIZE = 128


@pytest.fixture(scope="module")
def person():
    """Neutral and surprised pictures (3, S, S) of one person with their landmarks."""
    recipe = FaceRecipe(
        identities=1, faces_per_identity=8, size=SIZE, val_people=0, test_people=0, supersample=1, seed=3,
        speaking_share=0.0,
    )  # fmt: skip
    [[plan]] = plan_faces(recipe).values()
    shown = {face.emotion: face for face in make_faces(recipe, plan)}

    def read(emotion):
        data = np.frombuffer(shown[emotion].frames[0], np.uint8)
        image = to_tensor(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))[0]
        return image, shown[emotion].truth["landmarks"][0]

    return read(0), read(3)


def told(**values):
    row = np.zeros((1, len(ACTIONS)), np.float32)
    for name, value in values.items():
        for place, action in enumerate(ACTIONS):
            if action in (name, f"{name}Left", f"{name}Right"):
                row[0, place] = value
    return row


def change(before, after, points):
    """Mean difference in boxes around brows, eyes and mouth, and in the topmost rows."""
    difference = (after - before).abs().mean(0)

    def box(rows):
        low, high = points[rows].min(0).astype(int) - 3, points[rows].max(0).astype(int) + 4
        return float(difference[max(low[1], 0) : high[1], max(low[0], 0) : high[0]].mean())

    return box(slice(17, 27)), box(slice(36, 48)), box(slice(48, 68)), float(difference[:6].mean())


def test_each_part_moves_by_its_own_actions(person):
    (image, points), _ = person
    expresser = Expresser()
    [still] = expresser(image, points, told())
    commands = np.concatenate([told(browDown=1.0), told(eyeBlink=1.0), told(jawOpen=0.8)])
    moved = expresser(image, points, commands)
    brows, eyes, mouth = (change(still, one, points) for one in moved)
    assert brows[0] > 3 * brows[2] and brows[0] > 0.02
    assert eyes[1] > 3 * eyes[2] and eyes[1] > 0.05
    assert mouth[2] > 10 * mouth[0] and mouth[2] > 0.05
    assert max(one[3] for one in (brows, eyes, mouth)) < 0.005
    assert moved.shape == (3, 3, SIZE, SIZE) and moved.abs().max() <= 1


def test_a_shown_expression_is_taken_back(person):
    """The guide from surprise to neutral is nearer to the neutral picture than the surprised one is."""
    (neutral, points), (surprised, other) = person
    [drawn] = Expresser()(surprised, other, told())
    low, high = points[48:68].min(0).astype(int), points[48:68].max(0).astype(int) + 12
    mouth = (slice(None), slice(low[1], high[1]), slice(low[0], high[0]))

    def apart(one):
        return float((one - neutral)[mouth].abs().mean())

    assert apart(drawn) < 0.7 * apart(surprised)


def test_commands_of_the_heads_own_actions():
    """`as_commands` is the inverse of what `commanded` multiplies by."""
    actions = np.stack([emotion_actions(emotion, 1.0) for emotion in range(8)])
    assert np.allclose(
        commanded(as_commands(actions), np.zeros((1, len(ACTIONS)), np.float32)), actions, atol=1e-6
    )
    assert (
        as_commands(actions)[1, ACTIONS.index("mouthSmileLeft")] < actions[1, ACTIONS.index("mouthSmileLeft")]
    )


def test_upper_actions_are_those_of_brows_lids_cheeks_and_nose():
    upper = {name for name, above in zip(ACTIONS, UPPER, strict=True) if above}
    assert {"browInnerUp", "eyeBlinkLeft", "noseSneerRight", "cheekSquintLeft"} <= upper
    assert not any(name.startswith(("mouth", "jaw", "tongue")) for name in upper)
