"""The encoder's emotion branch: nothing without intensity, closed lips stay closed, chunks do not show."""

import pytest
import torch

from talkface.experts.speech import ArticulationEncoder
from talkface.experts.speech_emotion import EmotionalSpeech, smoothed

ACTIONS = ("jawOpen", "mouthPress", "mouthSmile")
BRANCH = {"emotions": ["happy", "surprised"], "actions": ["jawOpen", "mouthSmileLeft", "mouthFrownLeft"]}
NAMES = ["mouthFrownLeft", "browInnerUp", "jawOpen", "mouthSmileLeft", "mouthSmileRight"]


@pytest.fixture
def encoder():
    """With a branch of random weights."""
    torch.manual_seed(3)
    made = ArticulationEncoder(ACTIONS, channels=16, dilations=(1, 2), bands=20, branch=BRANCH).eval()
    for parameter in made.branch.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.requires_grad_(False)


def sound(seconds, seed=0):
    return 0.1 * torch.randn(1, round(16000 * seconds), generator=torch.Generator().manual_seed(seed))


def test_what_is_said_without_an_emotion_is_the_encoders_own_bit_by_bit(encoder):
    felt = EmotionalSpeech(encoder, "happy")
    heard, plain = felt(sound(1.0)), encoder(sound(1.0))
    assert heard.shape == (1, 50, felt.feature_dim) and felt.feature_dim == 3 + 2 * 3
    assert torch.equal(heard[..., :3], plain)
    louder = felt.amplified(heard, 1.3)
    assert torch.equal(louder[..., :3], encoder.amplified(plain, 1.3))
    assert torch.equal(louder[..., 3:], heard[..., 3:])
    assert torch.equal(felt.to_actions(heard, NAMES), encoder.to_actions(plain, NAMES))


def test_no_intensity_is_no_emotion_whatever_the_weights(encoder):
    for emotion in BRANCH["emotions"]:
        felt = EmotionalSpeech(encoder, emotion)
        heard = felt(sound(1.0))[0]
        none, all_of_it = (felt.expressive(heard, torch.full((50,), s), NAMES) for s in (0.0, 1.0))
        assert torch.equal(none, encoder.to_actions(heard[:, :3], NAMES))
        assert (all_of_it - none).abs().max() > 0.05


def test_intensity_may_change_from_frame_to_frame(encoder):
    felt = EmotionalSpeech(encoder, "surprised")
    heard = felt(sound(1.0))[0]
    rising = felt.expressive(heard, torch.linspace(0, 1, 50), NAMES)
    for row, strength in ((0, 0.0), (49, 1.0)):
        one = felt.expressive(heard[row : row + 1], torch.tensor([strength]), NAMES)
        assert torch.equal(rising[row], one[0])
    brow, other_side = NAMES.index("browInnerUp"), NAMES.index("mouthSmileRight")
    assert not rising[:, brow].any()
    spoken = felt.to_actions(heard, NAMES)
    assert torch.equal(rising[:, other_side], spoken[:, other_side]), "only the branch's actions change"


def test_emotions_differ(encoder):
    happy, surprised = (EmotionalSpeech(encoder, name)(sound(0.5))[..., 3:] for name in BRANCH["emotions"])
    assert (happy - surprised).abs().max() > 0.1


def test_an_emotion_does_not_open_lips_that_are_held_together(encoder):
    """The jaw stays, the frown, which parts nothing, comes."""
    for layer in (encoder.mouth.weight, encoder.branch.tell.weight, encoder.branch.tell.bias):
        layer.zero_()
    encoder.branch.pose.weight.copy_(torch.tensor([[0.5, 0.0, 0.5, 0.0, 0.0, 0.0]]))
    encoder._silence = torch.zeros(3)
    for press, jaw in ((0.0, 0.5), (0.3, 0.025)):
        encoder.mouth.bias.copy_(torch.tensor([0.0, press, 0.0]))
        felt = EmotionalSpeech(encoder, "surprised")
        told = felt.expressive(felt(sound(0.2)), torch.ones(1, 10), ["jawOpen", "mouthFrownLeft"])
        torch.testing.assert_close(told, torch.tensor([jaw, 0.5]).expand(1, 10, 2))


def test_what_the_branch_tells_is_smooth():
    told = torch.zeros(1, 9, 2, 1)
    told[:, 4] = 1.0
    soft = smoothed(told)
    assert soft.shape == told.shape
    assert soft[0, :, 0, 0].tolist() == [0, 0, 1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16, 0, 0]
    assert torch.equal(smoothed(torch.ones(2, 5, 2, 3)), torch.ones(2, 5, 2, 3))


def test_chunks_do_not_show(encoder):
    felt = EmotionalSpeech(encoder, "happy")
    whole = felt(sound(3.0))[0]
    felt.chunk_seconds = 0.7
    torch.testing.assert_close(felt.encode_long(sound(3.0)[0]), whole, atol=1e-4, rtol=1e-4)


def test_an_untrained_branch_changes_nothing():
    fresh = ArticulationEncoder(ACTIONS, channels=16, dilations=(1,), bands=20, branch=BRANCH).eval()
    felt = EmotionalSpeech(fresh, "happy")
    heard = felt(sound(0.5)).detach()
    assert not heard[..., 3:].any()


def test_weights_with_a_branch_serve_an_encoder_without_and_not_the_other_way(encoder, tmp_path):
    plain = ArticulationEncoder(ACTIONS, channels=16, dilations=(1, 2), bands=20).eval()
    plain.load_state_dict(encoder.state_dict())
    assert torch.equal(plain(sound(0.5)), encoder(sound(0.5)))
    with pytest.raises(RuntimeError, match="branch"):
        encoder.load_state_dict(plain.state_dict())
