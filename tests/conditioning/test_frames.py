import pytest
import torch

from talkface.conditioning.frames import FramesConditioner
from talkface.errors import TalkfaceError


def test_latents_are_stacked_in_the_order_given():
    batch = {
        f"{name}_latents": torch.full((2, 3, 4, 4), value)
        for name, value in (("masked", 1.0), ("guide", 2.0))
    }
    made = FramesConditioner(3, 4, order=("guide", "masked"))(batch).concat
    assert made[:, :, 0, 0].tolist() == [[2, 2, 2, 1, 1, 1]] * 2


def test_mask_is_averaged_to_the_latents_size():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 3:] = 1.0
    conditioner = FramesConditioner(3, 4, order=("mask",))
    assert conditioner.concat_channels == 1
    assert conditioner({"mask": mask}).concat[0, 0, 0].tolist() == [0.0, 0.5, 1.0, 1.0]


def test_null_is_zeros_of_the_same_shape():
    conditioner = FramesConditioner(3, 4, order=("masked", "reference", "mask"))
    null = conditioner.null(2).concat
    assert null.shape == (2, 7, 4, 4) and not null.any()


def test_wrong_inputs_are_refused():
    with pytest.raises(TalkfaceError, match=r"\(2, 4, 4, 4\); allowed: \(B, 3, 4, 4\)"):
        FramesConditioner(3, 4, order=("masked",))({"masked_latents": torch.zeros(2, 4, 4, 4)})
    with pytest.raises(TalkfaceError, match="one or more different names"):
        FramesConditioner(order=("masked", "masked"))
