import pytest
import torch

from talkface.conditioning.face import ActionConditioner, EmotionConditioner, LandmarkConditioner
from talkface.errors import TalkfaceError


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_paper_sizes():
    assert count(EmotionConditioner()) == 2_304
    assert count(LandmarkConditioner()) == 341_248


def test_emotion_reads_its_row_and_minus_one_is_null():
    torch.manual_seed(0)
    conditioner = EmotionConditioner(8, 4)
    made = conditioner({"emotion": torch.tensor([5, -1])}).context
    assert torch.equal(made[0, 0], conditioner.embedding.weight[5])
    assert torch.equal(made[1:], conditioner.null(1).context)
    assert torch.equal(made[1, 0], conditioner.embedding.weight[8])


def test_emotion_as_embedding():
    conditioner = EmotionConditioner(8, 4, fills="embedding")
    made = conditioner({"emotion": torch.tensor([5, 1])})
    assert made.context is None and made.embedding.shape == (2, 4)
    assert (conditioner.context_dim, conditioner.embedding_dim, conditioner.fills) == (0, 4, ("embedding",))


@pytest.mark.parametrize("label", [8, -2])
def test_unknown_emotion_is_refused(label):
    with pytest.raises(TalkfaceError, match="allowed: 0 to 7, -1 = none"):
        EmotionConditioner()({"emotion": torch.tensor([0, label])})


def test_landmarks_are_scaled_to_the_crop_and_clamped():
    conditioner = LandmarkConditioner(image_size=128)
    seen = []
    conditioner.net[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    points = torch.full((1, 48, 2), 64.0)
    points[0, 0] = torch.tensor([-50.0, 500.0])
    points[0, 1] = torch.tensor([32.0, 128.0])
    made = conditioner({"landmarks": points})
    assert seen[0][0, :6].tolist() == [-1.0, 1.0, -0.5, 1.0, 0.0, 0.0]
    assert made.context.shape == (1, 1, 128)
    assert (conditioner.null(2).context == 0).all()


def test_all_68_landmarks_are_refused():
    with pytest.raises(TalkfaceError, match=r"\(2, 68, 2\); allowed: \(B, 48, 2\)"):
        LandmarkConditioner()({"landmarks": torch.zeros(2, 68, 2)})


def test_unknown_field_is_refused():
    with pytest.raises(TalkfaceError, match="fills: 'concat'; allowed: 'context', 'embedding'"):
        EmotionConditioner(fills="concat")


def test_intensity_moves_from_neutral_to_the_emotion():
    torch.manual_seed(0)
    conditioner = EmotionConditioner(8, 4, fills="embedding", intensity=True)
    batch = {"emotion": torch.tensor([5, 5, 5, 0, -1]), "intensity": torch.tensor([0.0, 0.5, 1.0, 0.3, 0.5])}
    made, rows = conditioner(batch).embedding, conditioner.embedding.weight
    torch.testing.assert_close(made[:3], torch.stack([rows[0], (rows[0] + rows[5]) / 2, rows[5]]))
    torch.testing.assert_close(made[3], rows[0])
    torch.testing.assert_close(made[4], rows[8])  # nothing told is nothing, however intense
    del batch["intensity"]
    torch.testing.assert_close(conditioner(batch).embedding[1], rows[5])


def test_intensity_is_not_read_by_default():
    conditioner = EmotionConditioner(8, 4)
    made = conditioner({"emotion": torch.tensor([5]), "intensity": torch.tensor([0.0])}).context
    assert torch.equal(made[0, 0], conditioner.embedding.weight[5])


def test_actions_and_their_null():
    torch.manual_seed(0)
    conditioner = ActionConditioner(dim=16)
    torch.nn.init.normal_(conditioner.nothing)
    told = conditioner({"actions": torch.rand(3, 52)}).embedding
    assert told.shape == (3, 16) and not torch.equal(told[0], told[1])
    nothing = conditioner({"emotion": torch.tensor([1, 2])}).embedding
    assert torch.equal(nothing, conditioner.null(2).embedding)
    assert torch.equal(nothing[0], conditioner.nothing)
    with pytest.raises(TalkfaceError, match="allowed: \\(B, 52\\) for ActionConditioner"):
        conditioner({"actions": torch.rand(3, 51)})
