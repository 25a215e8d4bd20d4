"""The decoder of changes: sizes, what it adds at first, and that a part is decoded as within the whole."""

from __future__ import annotations

import pytest
import torch

from talkface.networks.change_decoder import ChangeDecoder


@pytest.mark.parametrize("factor", [2, 4])
def test_it_has_the_sizes_of_its_first_stage(factor: int) -> None:
    decoder = ChangeDecoder(5, factor, channels=8, fine_channels=4)
    latents = torch.zeros(2, 5, 8, 6)
    assert decoder(latents, latents).shape == (2, 3, 8 * factor, 6 * factor)


def test_a_part_is_decoded_as_within_the_whole() -> None:
    torch.manual_seed(0)
    decoder = ChangeDecoder(3, 4, channels=8, num_blocks=1, fine_channels=4)
    for parameter in decoder.parameters():
        parameter.data.normal_(0, 0.2)  # blocks add nothing before they are trained
    latents, before = torch.randn(2, 1, 3, 16, 16)
    whole = decoder(latents, before)
    inner = decoder(latents[..., 2:14, 2:14], before[..., 2:14, 2:14])
    torch.testing.assert_close(whole[..., 28:36, 28:36], inner[..., 20:28, 20:28])
    assert not torch.allclose(whole[..., 8:16, 8:16], inner[..., :8, :8]), "the rim sees other neighbours"
