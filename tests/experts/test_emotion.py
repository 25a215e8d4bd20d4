"""Emotion classifiers: the bundled network's interface; HSEmotion's classes in our order, from a graph made here."""

import pytest
import torch

from talkface.errors import TalkfaceError
from talkface.experts.emotion import EmotionNetwork, HSEmotionClassifier
from talkface.experts.landmark_network import LandmarkNetwork


def test_the_network_takes_any_size_and_gives_probabilities():
    torch.manual_seed(0)
    network = EmotionNetwork(channels=(8, 8, 8, 8), blocks=(0, 0, 0, 1), features=16).eval()
    images = torch.rand(2, 3, 200, 200) * 2 - 1
    chances = network(images)
    assert chances.shape == (2, 8)
    torch.testing.assert_close(chances.sum(1), torch.ones(2))
    torch.testing.assert_close(chances, network(network.resized(images)))
    reading = network.read(images)
    assert reading.actions.shape == (2, 52) and reading.features.shape == (2, 16)


def test_the_bundled_size_fits_its_limit():
    with torch.device("meta"):
        network = EmotionNetwork()
    assert 2 * sum(parameter.numel() for parameter in network.parameters()) < 1.5e6


def test_it_starts_from_the_landmark_network():
    torch.manual_seed(0)
    widths = {"channels": (8, 8, 8, 8), "blocks": (0, 0, 0, 1)}
    landmarks, network = LandmarkNetwork(**widths), EmotionNetwork(**widths, features=16)
    before = network.sixteenth.state_dict()["0.0.weight"].clone()
    network.start_from(landmarks)
    torch.testing.assert_close(network.eighth.state_dict(), landmarks.eighth.state_dict())
    assert torch.equal(network.sixteenth.state_dict()["0.0.weight"], before)


@pytest.mark.parametrize(
    ("classes", "place", "ours"),
    [(8, 4, 1), (8, 1, 7), (8, 5, 0), (7, 3, 1), (7, 4, 0), (10, 7, 3), (9, 1, 5)],
)
def test_classes_of_hsemotion_come_in_our_order(channel_model, tmp_path, classes, place, ours):
    pytest.importorskip("onnxruntime")
    bias = torch.zeros(classes)
    bias[place] = 20.0
    if classes > 8:
        bias[-2:] = 50.0  # valence and arousal are no classes
    model = HSEmotionClassifier(channel_model(tmp_path / "m.onnx", torch.zeros(3, classes), bias))
    chances = model(torch.zeros(3, 3, 40, 40))
    assert model.image_size == 16
    assert chances.shape == (3, 8)
    assert chances[:, ours].min() > 0.999
    assert (float(chances[0, 7]) == 0.0) is (classes in (7, 9))


def test_pictures_reach_hsemotion_normalised(channel_model, tmp_path):
    pytest.importorskip("onnxruntime")
    weight = torch.zeros(3, 8)
    weight[0, 0] = 1.0  # the logit of anger is the mean red as ImageNet networks see it
    model = HSEmotionClassifier(channel_model(tmp_path / "m.onnx", weight, torch.zeros(8)))
    red = (torch.tensor(0.75) - 0.485) / 0.229
    picture = torch.zeros(1, 3, 16, 16)
    picture[:, 0] = 0.5
    expected = red.exp() / (red.exp() + 7)
    torch.testing.assert_close(model(picture)[0, 6], expected, atol=1e-5, rtol=1e-5)


def test_missing_and_wrong_files_are_named(channel_model, tmp_path):
    with pytest.raises(TalkfaceError, match=r"none.onnx does not exist; give the path of an .onnx file"):
        HSEmotionClassifier(tmp_path / "none.onnx")
    pytest.importorskip("onnxruntime")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(TalkfaceError, match="cannot be read as ONNX"):
        HSEmotionClassifier(broken)
    with pytest.raises(TalkfaceError, match="answers 5 numbers; allowed are 7 or 8 classes"):
        HSEmotionClassifier(channel_model(tmp_path / "five.onnx", torch.zeros(3, 5), torch.zeros(5)))
