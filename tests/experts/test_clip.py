"""CLIP: parity of the reference with transformers on random weights, and the small network's words and pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from talkface.errors import TalkfaceError
from talkface.experts.clip import CLIPExpert, FaceCLIP, words_of
from talkface.experts.landmark_network import LandmarkNetwork

WORDS = ["[PAD]", "[UNK]", "<|start|>", "<|end|>", "happy", "sad", "face", "a", "photo", "of"]
SIZE = 32


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder like that of a published CLIP, 20,000 random weights."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("clip")
    rules = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    rules.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    rules.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|start|> $A <|end|>", special_tokens=[("<|start|>", 2), ("<|end|>", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=rules,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="<|start|>",
        eos_token="<|end|>",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    text = {
        "vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 8, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": SIZE, "patch_size": 8,
    }  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():  # larger than they are at the start of training, so that differences would show
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, image_std=[0.2, 0.25, 0.3]
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("shape", [(96, 96), (75, 50), (20, 20), (32, 32)])
def test_pictures_are_seen_as_transformers_sees_them(published, shape):
    import transformers

    model = transformers.CLIPModel.from_pretrained(published).eval()
    processor = transformers.CLIPImageProcessor.from_pretrained(published)
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 7, 7)))
    smooth = torch.nn.functional.interpolate(coarse, size=shape, mode="bicubic", align_corners=False)
    picture = smooth.clamp(0, 255).round().byte()[0].permute(1, 2, 0).numpy()
    expert = CLIPExpert(str(published))
    given = processor(images=picture, return_tensors="pt")["pixel_values"]
    images = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    # the processor rounds to 8 bits in between, twice where overshoots are clipped
    levels = ((expert.prepared(images) - given) * expert.std * 255).abs()
    assert float(levels.mean()) < 0.4 and float(levels.max()) < 4
    with torch.no_grad():
        seen = model.vision_model(pixel_values=given).pooler_output
        expected = torch.nn.functional.normalize(model.visual_projection(seen), dim=-1)
    assert float((expert.encode_images(images) * expected).sum()) > 0.9999


def test_sentences_are_read_as_transformers_reads_them(published):
    import transformers

    model = transformers.CLIPModel.from_pretrained(published).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(published)
    texts = ["happy face", "a photo of a sad face", "face"]
    expert = CLIPExpert(str(published))
    together = expert.encode_texts(texts)
    assert together.shape == (3, 12)
    for text, vector in zip(texts, together, strict=True):
        with torch.no_grad():
            said = model.text_model(
                **{
                    name: value
                    for name, value in tokenizer(text, return_tensors="pt").items()
                    if "token_type" not in name
                }
            ).pooler_output
            expected = torch.nn.functional.normalize(model.text_projection(said), dim=-1)[0]
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    long = expert.encode_texts(["a photo of a photo of a photo of a face"])  # cut to what the model can hold
    assert torch.isfinite(long).all()


def test_the_reference_is_frozen_and_hands_gradients_to_pictures(published):
    expert = CLIPExpert(str(published)).train()
    assert not expert.model.training and not any(p.requires_grad for p in expert.parameters())
    assert (expert.image_size, expert.dim) == (SIZE, 12)
    images = (torch.rand(2, 3, 40, 40) * 1.6 - 0.8).requires_grad_(True)
    expert.encode_images(images)[:, 0].sum().backward()
    assert float(images.grad.abs().sum()) > 0


def test_missing_weights_are_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(
        TalkfaceError, match=r"none cannot be loaded .* openai/clip-vit-base-patch16"
    ) as caught:
        CLIPExpert(str(tmp_path / "none"))
    assert "\n" not in str(caught.value)


def small(seed: int = 0) -> FaceCLIP:
    torch.manual_seed(seed)
    return FaceCLIP(
        vocabulary=["happy", "sad", "face"], channels=(8, 8, 8, 8), blocks=(0, 0, 0, 1), dim=8, text_dim=32,
        text_layers=1,
    ).eval()  # fmt: skip


def test_the_small_one_fills_the_role():
    network = small()
    images = (torch.rand(2, 3, 200, 200) * 2 - 1).requires_grad_(True)
    vectors = network.encode_images(images)
    assert vectors.shape == (2, network.dim)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    vectors[:, 0].sum().backward()
    assert float(images.grad.abs().sum()) > 0


def test_words_have_places_and_sentences_do_not_depend_on_their_neighbours():
    network = small()
    alone = network.encode_texts(["happy face"])
    beside = network.encode_texts(["happy face", "sad face with a very long rest of it"])
    torch.testing.assert_close(alone[0], beside[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.encode_texts(["Happy, FACE!"]), alone)
    assert not torch.allclose(network.encode_texts(["face happy"]), alone, atol=1e-3)
    assert network.tokenize(["happy unheard-of", ""]).tolist() == [[2, 1, 1], [1, 0, 0]]
    assert torch.isfinite(network.encode_texts([""])).all()
    assert words_of("a close-up photo") == ["a", "close", "up", "photo"]


def test_the_small_one_starts_from_the_landmark_network():
    landmarks = LandmarkNetwork(channels=(8, 8, 8, 8), blocks=(0, 0, 0, 1))
    network = small()
    network.start_from(landmarks)
    torch.testing.assert_close(network.eighth.state_dict(), landmarks.eighth.state_dict())
