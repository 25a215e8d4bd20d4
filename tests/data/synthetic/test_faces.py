"""Single faces that show emotions: exact truth, people in one split, the same bytes however they are made."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from talkface.data import Corpus
from talkface.data.synthetic.faces import (
    FaceRecipe,
    draw_manner,
    express,
    level_of,
    make_faces,
    plan_faces,
    prepare_faces,
)
from talkface.errors import TalkfaceError
from talkface.head import ACTIONS
from talkface.head.emotions import EMOTIONS, emotion_actions

TINY = FaceRecipe(
    identities=3,
    faces_per_identity=2,
    size=48,
    val_people=0,
    test_people=1,
    supersample=1,
    people_per_shard=1,
)


def test_plans_keep_people_apart_and_emotions_different():
    shards = plan_faces(
        FaceRecipe(identities=50, faces_per_identity=5, val_people=5, test_people=10, people_per_shard=7)
    )
    plans = [plan for members in shards.values() for plan in members]
    assert len({plan.subject for plan in plans}) == 50
    assert [sum(plan.split == split for plan in plans) for split in ("train", "val", "test")] == [35, 5, 10]
    assert all(len(set(plan.emotions)) == 5 for plan in plans)
    seen = np.bincount([emotion for plan in plans for emotion in plan.emotions], minlength=8)
    assert seen.min() > 15  # of 250 / 8


def test_expressions_are_strong_and_neutral_is_still():
    rng = np.random.default_rng(0)
    manners = [draw_manner(rng, FaceRecipe(speaking_share=0.0)) for _ in range(40)]
    # eyes look around in any case
    brows_and_mouth = [k for k, action in enumerate(ACTIONS) if not action.startswith("eye")]
    for emotion, name in enumerate(EMOTIONS):
        actions = np.stack([express(manner, emotion, 0.6 if emotion else 0.0) for manner in manners])
        assert actions.min() >= 0 and actions.max() <= 1
        strongest = emotion_actions(emotion, 1.0)[brows_and_mouth].max()
        if name == "neutral":
            assert actions[:, brows_and_mouth].max() < 0.1
        else:
            assert actions[:, brows_and_mouth].max(axis=1).min() > 0.4 * strongest
    contempt = [express(manner, EMOTIONS.index("contempt"), 1.0) for manner in manners]
    left, right = ACTIONS.index("mouthSmileLeft"), ACTIONS.index("mouthSmileRight")
    assert {bool(actions[left] > actions[right]) for actions in contempt} == {True, False}


def test_people_differ_in_manner_and_keep_their_own():
    rng = np.random.default_rng(1)
    recipe = FaceRecipe(speaking_share=1.0)
    one, other = draw_manner(rng, recipe), draw_manner(rng, recipe)
    happy = EMOTIONS.index("happy")
    assert not np.allclose(express(one, happy, 1.0), express(other, happy, 1.0), atol=0.05)
    # two pictures of a person differ in what the emotion does, and in nothing else
    touched = emotion_actions(happy, 1.0) > 0
    changed = ~np.isclose(express(one, 0, 0.0), express(one, happy, 1.0))
    assert changed.any() and not changed[~touched].any()


def test_a_face_has_its_truth():
    plan = next(iter(plan_faces(TINY).values()))[0]
    poses = [face.truth["pose"] for face in make_faces(TINY, plan)]
    assert np.array_equal(poses[0], poses[1])
    for face, emotion in zip(make_faces(TINY, plan), plan.emotions, strict=True):
        assert face.emotion == emotion
        assert face.id == f"{plan.subject}_{EMOTIONS[emotion]}"
        assert face.truth["landmarks"].shape == (1, 68, 2)
        assert face.truth["actions"].shape == (1, 52)
        amount = float(face.truth["intensity"][0])
        assert (amount == 0) is (emotion == 0) and face.intensity == level_of(amount)
        # the face fills most of the picture and lies inside it
        points = face.truth["landmarks"][0]
        assert points.min() > -5 and points.max() < 53
        assert np.ptp(points[:, 1]) > 20


def test_a_corpus_is_resumed_to_the_same_bytes(tmp_path: Path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    lines: list[str] = []
    prepare_faces(whole, TINY, report=lines.append)
    assert "3/3 people" in lines[-1]
    prepare_faces(stopped, TINY, report=lines.append)
    for path in (stopped / "parts" / "train-00001.json", stopped / "index.parquet"):
        path.unlink()
    prepare_faces(stopped, TINY, report=lines.append)
    assert "1/1 people" in lines[-1]
    for path in sorted(whole.rglob("*.tar")):
        assert path.read_bytes() == (stopped / path.relative_to(whole)).read_bytes()
    corpus = Corpus(stopped)
    assert len(corpus) == 6
    assert {clip.split for clip in corpus} == {"train", "test"}
    assert corpus.read_frame(next(iter(corpus)), 0).shape == (48, 48, 3)
    done = len(lines)
    prepare_faces(stopped, TINY, report=lines.append)
    assert len(lines) == done
    with pytest.raises(TalkfaceError, match="other settings"):
        prepare_faces(stopped, FaceRecipe(identities=4, val_people=0, test_people=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"identities": 0}, "identities: 0; allowed 1 or more"),
        ({"faces_per_identity": 9}, "faces_per_identity: 9; allowed 1 to 8"),
        ({"least_intensity": 1.5}, "least_intensity: 1.5; allowed 0 to 1"),
        ({"identities": 240}, "identities: 240 leave none for training"),
    ],
)
def test_impossible_recipes_are_refused(settings, message):
    with pytest.raises(TalkfaceError, match=message):
        FaceRecipe(**settings)


def test_pictures_of_a_person_can_be_spread_over_scenes():
    one, many = (
        FaceRecipe(identities=4, val_people=0, test_people=1, faces_per_identity=6),
        FaceRecipe(identities=4, val_people=0, test_people=1, faces_per_identity=6, scenes=3),
    )
    single = [plan for plans in plan_faces(one).values() for plan in plans]
    several = [plan for plans in plan_faces(many).values() for plan in plans]
    assert len(single) == 4 and len(several) == 12
    for plan in single:
        own = [other for other in several if other.subject == plan.subject]
        assert {other.person_seed for other in own} == {plan.person_seed}
        assert {other.split for other in own} == {plan.split}
        assert len({other.scene_seed for other in own}) == len({other.faces_seed for other in own}) == 3
        assert sorted(e for other in own for e in other.emotions) == sorted(plan.emotions)
    # what older corpora hold of their recipe is unchanged
    assert "scenes" not in one.description() and many.description()["scenes"] == 3
    with pytest.raises(TalkfaceError, match="scenes: 7; allowed 1 to 6"):
        FaceRecipe(faces_per_identity=6, scenes=7)
