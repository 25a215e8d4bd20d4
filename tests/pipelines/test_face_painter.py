"""The engine with a network whose answer is known: it predicts half of the reference as clean data."""

import numpy as np
import pytest
import torch
from torch import nn

from talkface.conditioning.audio import AudioConditioner
from talkface.conditioning.base import ConditionerSet
from talkface.conditioning.frames import FramesConditioner
from talkface.diffusion.schedule import NoiseSchedule
from talkface.networks.vqgan import IdentityFirstStage
from talkface.pipelines.face_guide import Guides
from talkface.pipelines.face_painter import FacePainter, References, Sound, is_dark, keep_colours
from talkface.pipelines.sampling import LatentSampler
from talkface.pipelines.sources import Shot
from talkface.portrait.blend import generation_mask
from talkface.portrait.crop import AlignedCrop

SIZE = 16


class HalfTheReference(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = []
        self.masked = []

    def forward(self, x, timesteps, conditioning):
        self.rows.append(len(x))
        self.masked.append(conditioning.concat[:, :3])
        return 0.5 * conditioning.concat[:, 3:]


def shot(index, level, face=True):
    picture = np.full((40, 40, 3), level, np.uint8)
    crop = AlignedCrop.from_matrix(picture, np.array([[1.0, 0, -10], [0, 1, -10]]), SIZE) if face else None
    return Shot(index, (index + 0.5) / 25, picture, crop, np.zeros((68, 2), np.float32) if face else None)


def painter(**changes):
    sampler = LatentSampler(
        network=HalfTheReference(),
        conditioner=ConditionerSet({"frames": FramesConditioner(latent_channels=3, latent_size=SIZE)}),
        schedule=NoiseSchedule(),
        prediction_type="x0",
        num_inference_steps=2,
        scales={},
        final_alpha="one",
    )
    values = {
        "first_stage": IdentityFirstStage(),
        "sampler": sampler,
        "sound": Sound(torch.zeros(50, 4), 50.0, 1, 25.0),
        "references": References(shot(0, 255).crop),
        "image_size": SIZE,
        "mask_kind": "lower_face",
        "seed": 0,
        "independent_noise": 0.0,
        "group": 4,
        "batch_size": 4,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    }
    return FacePainter(**(values | changes))


def paint(engine, shots):
    return list(engine.paint(iter(shots), lambda: None))


def levels(painted):
    """The grey of every painted square as a fraction of white above mid-grey, None where there is none."""
    return [None if image is None else round(float(image.mean()) / 127.5 - 1, 2) for _, image in painted]


def test_every_frame_refers_to_the_first_face():
    assert levels(paint(painter(), [shot(k, 10 * k) for k in range(6)])) == [0.5] * 6


def test_autoregressive_frames_refer_to_the_frame_before():
    result = levels(paint(painter(group=1, autoregressive=True), [shot(k, 0) for k in range(5)]))
    assert result == pytest.approx([0.5, 0.25, 0.125, 0.0625, 0.03125], abs=0.01)


def test_autoregression_goes_on_after_a_frame_without_a_face():
    shots = [shot(0, 0), shot(1, 0, face=False), shot(2, 0)]
    assert levels(paint(painter(group=1, autoregressive=True), shots)) == [0.5, None, 0.25]


def test_each_window_refers_to_its_first_face_and_windows_fade_into_each_other():
    """Windows of 4 that share 2 frames: 0-3, 2-5, 4-7; references are the levels of frames 0, 2, 4."""
    grey = [0, 255, 255, 0, 128, 0, 0, 0]
    engine = painter(references=References(shot(0, 77).crop, window=4, overlap=2))
    result = levels(paint(engine, [shot(k, level) for k, level in enumerate(grey)]))
    black, white, middle = -0.5, 0.5, 0.0
    expected = [
        black,
        black,
        black * 2 / 3 + white / 3,
        black / 3 + white * 2 / 3,
        white * 2 / 3 + middle / 3,
        white / 3 + middle * 2 / 3,
    ]
    assert result[:6] == pytest.approx(expected, abs=0.01)


def test_all_shots_come_back_in_order_and_every_network_call_holds_one_group():
    shots = [shot(k, 0, face=k not in (0, 1, 4, 9)) for k in range(11)]
    engine = painter()
    result = paint(engine, shots)
    assert [item.index for item, _ in result] == list(range(11))
    assert [k for k, (_, image) in enumerate(result) if image is None] == [0, 1, 4, 9]
    assert set(engine.sampler.network.rows) == {4}


def test_a_long_stretch_without_a_face_is_passed_on_at_once():
    taken = []

    def endless():
        yield shot(0, 0)
        for k in range(1, 10_000):
            taken.append(k)
            yield shot(k, 0, face=False)

    stream = painter().paint(endless(), lambda: None)
    for _ in range(3):
        next(stream)
    assert len(taken) < 40


def test_the_network_sees_the_picture_without_its_lower_face():
    engine = painter()
    paint(engine, [shot(k, 40 * k) for k in range(4)])
    hidden = torch.from_numpy(generation_mask(SIZE)) > 0
    for k, masked in enumerate(engine.sampler.network.masked[0]):
        level = 40 * k / 127.5 - 1
        assert torch.all(masked[:, hidden] == -1)
        torch.testing.assert_close(masked[:, ~hidden], torch.full_like(masked[:, ~hidden], level))


def test_a_still_picture_is_encoded_once():
    class Counting(IdentityFirstStage):
        encoded = 0

        def encode(self, images):
            self.encoded += len(images)
            return super().encode(images)

    first_stage = Counting()
    paint(painter(first_stage=first_stage, still=True), [shot(k, 0) for k in range(12)])
    assert first_stage.encoded == 2, "once as reference, once masked"
    moving = Counting()
    paint(painter(first_stage=moving), [shot(k, 0) for k in range(12)])
    assert moving.encoded == 1 + 12


class Plaid:
    """A guide of fine stripes around mid-grey, `size` pixels wide; counts what it drew."""

    def __init__(self, size):
        self.size, self.drawn = size, []

    def draw(self, shots):
        self.drawn += [shot.index for shot in shots]
        stripes = 0.2 * torch.tensor([1.0, -1.0]).repeat(self.size // 2)
        pictures = stripes.expand(len(shots), 3, self.size, self.size).clone()
        share = torch.ones(len(shots), 1, self.size, self.size)
        share[:, :, :, self.size // 2 :] = 0.0
        return Guides(pictures, pictures, share, torch.zeros_like(share))


def large_shot(index, level):
    picture = np.full((80, 80, 3), level, np.uint8)
    crop = AlignedCrop.from_matrix(picture, np.array([[1.0, 0, -20], [0, 1, -20]]), 2 * SIZE)
    return Shot(index, (index + 0.5) / 25, picture, crop, np.zeros((68, 2), np.float32))


def test_what_the_network_changed_is_laid_over_the_large_guide():
    """The network paints 0.5 where the shrunk guide is 0: the stripes, too fine for it, stay on top of that."""
    guide = Plaid(2 * SIZE)
    engine = painter(guide=guide, references=References(large_shot(0, 255).crop))
    shots = [large_shot(k, 0) for k in range(6)]
    pictures = [image for _, image in paint(engine, shots)]
    assert {image.shape for image in pictures} == {(2 * SIZE, 2 * SIZE, 3)}
    columns = pictures[5][20:30, :, 0].mean(axis=0) / 127.5 - 1.0
    assert columns[10:12] == pytest.approx([0.7, 0.3], abs=0.01)
    assert columns[20:22] == pytest.approx([0.2, -0.2], abs=0.01)  # where none of the change is to be taken
    assert guide.drawn == list(range(6))


def test_a_change_decoder_takes_the_place_of_the_first_stage_s():
    """Here one that sees every change the other way round."""
    shots = [large_shot(k, 0) for k in range(4)]
    references = References(large_shot(0, 255).crop)
    plain, inverted, guide = (
        paint(painter(guide=Plaid(2 * SIZE), references=references, **options), shots)[3][1] / 127.5 - 1.0
        for options in ({}, {"change_decoder": lambda made, before: before - made}, {"refined": False})
    )
    assert np.abs(plain - guide).max() > 0.3
    assert inverted - guide == pytest.approx(guide - plain, abs=0.02)


def test_an_unrefined_guide_is_the_result_and_no_network_is_asked():
    engine = painter(guide=Plaid(SIZE), refined=False)
    pictures = [image for _, image in paint(engine, [shot(k, 0) for k in range(3)])]
    columns = pictures[2][:, :, 0].mean(axis=0) / 127.5 - 1.0
    assert columns[:2] == pytest.approx([0.2, -0.2], abs=0.01)
    assert engine.sampler.network.rows == []


def test_hues_change_freely_only_around_the_inside_of_the_mouth():
    change = torch.tensor([0.3, 0.0, -0.3]).view(1, 3, 1, 1).expand(2, 3, 4, 4) + 0.1
    free = torch.zeros(2, 1, 4, 4)
    free[:, :, :, 2:] = 1.0
    kept = keep_colours(change, free)
    assert torch.allclose(kept[..., 2:], change[..., 2:])
    assert kept.mean(1).allclose(change.mean(1)), "light and shade are the network's"
    spread = kept.amax(1) - kept.amin(1)
    assert float(spread[..., :2].max()) < 0.5 * float(spread[..., 2:].min())


def test_teeth_are_no_part_of_a_mouths_dark():
    teeth, tongue = torch.tensor([0.7, 0.6, 0.5]), torch.tensor([-0.3, -0.8, -0.8])
    row = torch.stack([teeth, 0.5 * (teeth + tongue), tongue], dim=1)[None, :, None]
    dark = is_dark(row).flatten()
    assert float(dark[0]) == 0.0 and 0.0 < float(dark[1]) < 1.0 and float(dark[2]) == 1.0


def test_the_network_hears_the_columns_that_it_knows():
    """What follows them is for the guide."""
    features, heard = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), []
    for sound in (Sound(features[:, :4], 50.0, 1, 25.0), Sound(features, 50.0, 1, 25.0, columns=4)):
        engine = painter(sound=sound)
        listening = AudioConditioner(feature_dim=4, window=1, mode="tokens")
        listening.register_forward_hook(lambda module, inputs, output: heard.append(inputs[0]["audio"]))
        engine.sampler.conditioner.conditioners["audio"] = listening
        paint(engine, [shot(0, 100), shot(1, 100)])
    assert len(heard) == 2 and torch.equal(heard[0], heard[1]) and heard[0].abs().sum() > 0
