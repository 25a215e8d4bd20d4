"""LPIPS: equals the `lpips` package, is 0 for equal pictures, stays frozen and differentiable."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from talkface.errors import TalkfaceError
from talkface.experts.vision import LPIPS

lpips = pytest.importorskip("lpips")
torchvision = pytest.importorskip("torchvision")

REAL = Path(__file__).resolve().parents[3] / "shared/data/weights/alexnet_features.safetensors"


@pytest.fixture(scope="module")
def random_backbone(tmp_path_factory) -> Path:
    """A file with torchvision's layout and random weights."""
    torch.manual_seed(0)
    features = torchvision.models.alexnet(weights=None).features
    path = tmp_path_factory.mktemp("backbone") / "alexnet.safetensors"
    save_file({f"features.{k}": v.half() for k, v in features.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def distance(random_backbone) -> LPIPS:
    return LPIPS("alex", random_backbone)


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_weights_land_in_their_layers(distance, random_backbone):
    """The first slice alone must act as torchvision's first two layers with the file's weights."""
    from safetensors.torch import load_file

    state = load_file(random_backbone)
    x = pictures(1)
    expected = torch.relu(
        torch.nn.functional.conv2d(
            distance.scaling(x), state["features.0.weight"].float(), state["features.0.bias"].float(), 4, 2
        )
    )
    torch.testing.assert_close(distance.features(distance.scaling(x))[0], expected)


def test_same_number_as_the_lpips_package(distance, random_backbone):
    peer = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    peer.net.load_state_dict(distance.features.state_dict())
    a, b = pictures(1), pictures(2)
    torch.testing.assert_close(distance(a, b), peer(a, b).flatten(), rtol=1e-4, atol=1e-7)


def test_zero_for_equal_grows_with_noise(distance):
    a, noise = pictures(1), pictures(2)
    assert distance(a, a).abs().max() == 0
    near, far = distance(a, a + 0.1 * noise), distance(a, a + 0.5 * noise)
    assert (near > 0).all() and (near < far).all()


def test_frozen_and_differentiable_even_on_a_flat_picture(distance):
    flat = torch.zeros(1, 3, 64, 64, requires_grad=True)
    distance.train()
    assert not distance.training and not any(p.requires_grad for p in distance.parameters())
    distance(flat, pictures(3)[:1]).sum().backward()
    assert torch.isfinite(flat.grad).all() and flat.grad.abs().sum() > 0


def test_clear_errors(tmp_path, random_backbone):
    with pytest.raises(TalkfaceError, match="allowed 'alex', 'vgg'"):
        LPIPS("squeeze")
    with pytest.raises(TalkfaceError, match=r"cannot read .*absent\.safetensors"):
        LPIPS("alex", tmp_path / "absent.safetensors")
    with pytest.raises(TalkfaceError, match="other network"):
        LPIPS("vgg", random_backbone)


@pytest.mark.skipif(not REAL.exists(), reason="the ImageNet weights are not beside this checkout")
def test_real_weights_order_pictures_as_people_do():
    """A little blur is nearer than much blur."""
    distance = LPIPS("alex", REAL)
    coarse = pictures(4)[:1, :, :16, :16]
    sharp = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(-1, 1)
    small = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
    large = torch.nn.functional.avg_pool2d(sharp, 11, 1, 5)
    assert distance(sharp, sharp) == 0
    assert 0 < distance(sharp, small) < distance(sharp, large)


def test_embedded_pictures_are_as_far_apart_as_the_metric_says(distance):
    a, b = pictures(1), pictures(2)
    apart = (distance.embed(a) - distance.embed(b)).square().sum(dim=1)
    torch.testing.assert_close(apart, distance(a, b), rtol=1e-4, atol=1e-7)
