"""Adapters: they change nothing at first, come back from a file, are switched, and fit one network only."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("peft")

from talkface.adapters import (
    adapter_names,
    add_lora,
    load_adapter,
    network_key,
    read_adapters,
    save_adapter,
    split_adapter,
    use_adapter,
)
from talkface.checkpoint import bundle_folder, load_bundle
from talkface.conditioning.base import Conditioning
from talkface.errors import TalkfaceError
from talkface.networks.unet import UNet


def network(seed=0, **changed):
    torch.manual_seed(seed)
    sizes = {
        "in_channels": 3,
        "out_channels": 3,
        "model_channels": 16,
        "channel_mult": (1, 2),
        "num_res_blocks": 1,
    }
    sizes |= {"attention_downsamples": (2,), "num_head_channels": 8, "context_dim": 8, "image_size": 8}
    made = UNet(**(sizes | changed))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval().requires_grad_(False)


def shown(unet):
    generator = torch.Generator().manual_seed(3)
    x, context = (torch.randn(shape, generator=generator) for shape in ((2, 3, 8, 8), (2, 1, 8)))
    with torch.no_grad():
        return unet(x, torch.tensor([10, 500]), Conditioning(context=context))


def trained(unet, name, seed, **options):
    """An adapter with random branches."""
    parameters = add_lora(unet, rank=2, name=name, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator).half())
    return shown(unet)


def test_at_first_nothing_changes_and_only_the_branches_are_trained():
    unet = network()
    before, key = shown(unet), network_key(unet)
    parameters = add_lora(unet, rank=2)
    assert torch.equal(shown(unet), before) and network_key(unet) == key and not unet.training
    assert {id(p) for p in unet.parameters() if p.requires_grad} == {id(p) for p in parameters}
    # every linear layer, every 3x3 and every 1x1 convolution
    adapted = {path for path, layer in unet.named_modules() if hasattr(layer, "lora_A")}
    assert {"time_embed.0", "input_blocks.0.0", "out.2", "output_blocks.0.0.skip_connection"} <= adapted
    assert any(path.endswith("attn2.to_k") for path in adapted)


def test_training_an_adapter_leaves_the_network_alone():
    unet = network()
    before, key = shown(unet), network_key(unet)
    optimizer = torch.optim.SGD(add_lora(unet, rank=2), lr=0.5)
    for _ in range(3):
        unet(
            torch.ones(1, 3, 8, 8), torch.tensor([5]), Conditioning(context=torch.ones(1, 1, 8))
        ).square().mean().backward()
        optimizer.step()
    assert not torch.allclose(shown(unet), before, atol=1e-3) and network_key(unet) == key
    use_adapter(unet, None)
    assert torch.equal(shown(unet), before)


def test_several_in_one_file_come_back_and_are_switched(tmp_path):
    path, unet = tmp_path / "emotions.safetensors", network()
    plain, happy = shown(unet), trained(unet, "happy", 1)
    save_adapter(path, unet, {"target": "happy", "guided_by": ["abc"]}, "happy")
    sad = trained(unet, "sad", 2, targets=("to_q", "to_v", "out.2"), alpha=6)
    save_adapter(path, unet, {"target": "sad"}, "sad")
    other = network()
    assert load_adapter(other, path, "sad") == {"target": "sad"}
    torch.testing.assert_close(shown(other), sad)
    assert load_adapter(other, path, "happy")["guided_by"] == ["abc"]
    assert adapter_names(other) == ["happy", "sad"] or set(adapter_names(other)) == {"happy", "sad"}
    for name, wanted in (("sad", sad), (None, plain), ("happy", happy), ("sad", sad)):
        use_adapter(other, name)
        torch.testing.assert_close(shown(other), wanted)
        assert not any(parameter.requires_grad for parameter in other.parameters())
    assert not torch.allclose(happy, sad, atol=1e-2) and not torch.allclose(happy, plain, atol=1e-2)
    said = read_adapters(path)
    assert list(said) == ["happy", "sad"] and said["sad"]["alpha"] == 6 and said["happy"]["rank"] == 2


def test_one_of_the_same_name_takes_the_place_of_the_old_one(tmp_path):
    path, unet = tmp_path / "a.safetensors", network()
    trained(unet, "first", 1)
    second = trained(unet, "second", 2, targets=("to_q",))
    save_adapter(path, unet, {}, "first", stored_as="best")
    save_adapter(path, unet, {"epoch": 2}, "second", stored_as="best")
    other = network()
    assert load_adapter(other, path, loaded_as="mine") == {"epoch": 2}
    assert adapter_names(other) == ["mine"]
    torch.testing.assert_close(shown(other), second)


def test_switching_while_training_keeps_what_is_trained():
    unet = network()
    parameters = add_lora(unet, rank=1)
    use_adapter(unet, None)
    use_adapter(unet, "default")
    assert all(parameter.requires_grad for parameter in parameters)
    assert sum(p.requires_grad for p in unet.parameters()) == len(parameters)


def test_an_adapter_of_another_network_is_refused(tmp_path):
    path, unet = tmp_path / "a.safetensors", network()
    trained(unet, "happy", 1)
    save_adapter(path, unet, {}, "happy")
    for other in (network(seed=1), network(model_channels=8)):
        with pytest.raises(TalkfaceError, match=r"a\.safetensors:happy was made for another network"):
            load_adapter(other, path)
        assert adapter_names(other) == []
    other = network(seed=1)
    trained(other, "sad", 1)
    with pytest.raises(TalkfaceError, match="holds happy of another network"):
        save_adapter(path, other, {}, "sad")


def test_a_bundle_in_half_precision_is_the_same_network():
    half = network()
    for parameter in half.parameters():
        parameter.data = parameter.data.half().float()
    assert network_key(half) == network_key(network())


def test_mistakes_are_one_line(tmp_path):
    path, unet = tmp_path / "a.safetensors", network()
    for bad, told in (
        ({"name": "a b"}, "adapter name: 'a b'"),
        ({"rank": 0}, "rank: 0"),
        ({"targets": ("to_x",)}, "targets: to_x; allowed are names of linear"),
    ):
        with pytest.raises(TalkfaceError, match=told):
            add_lora(unet, **bad)
    with pytest.raises(TalkfaceError, match="adapter: happy; the network has none"):
        use_adapter(unet, "happy")
    with pytest.raises(TalkfaceError, match="does not exist"):
        load_adapter(unet, path)
    trained(unet, "happy", 1)
    with pytest.raises(TalkfaceError, match="happy; the network has one of that name"):
        add_lora(unet, name="happy")
    save_adapter(path, unet, {}, "happy")
    save_adapter(path, unet, {}, "happy", stored_as="sad")
    with pytest.raises(TalkfaceError, match="holds happy, sad; say which"):
        load_adapter(network(), path)
    with pytest.raises(TalkfaceError, match="holds no 'angry'; it holds happy, sad"):
        load_adapter(network(), path, "angry")


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path, unet = tmp_path / "a.safetensors", network()
    trained(unet, "happy", 1)
    save_adapter(path, unet, {}, "happy")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TalkfaceError, match="is damaged"):
        load_adapter(network(), path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(TalkfaceError, match="holds no adapters of talkface"):
        load_adapter(network(), path)
    key = network_key(network())
    said = {"happy": {"network": key, "rank": 2, "alpha": 2.0, "about": {}}}
    header = {"format": "talkface-adapters", "format_version": "1", "adapters": json.dumps(said)}
    for tensors in (
        {"happy/out.2.A": torch.zeros(2, 16, 3, 3)},
        {"happy/out.2.A": torch.zeros(2), "happy/out.2.B": torch.zeros(3)},
    ):
        save_file(tensors, path, metadata=header)
        with pytest.raises(TalkfaceError, match=r"is damaged \(out\.2\.. does not fit"):
            load_adapter(network(), path)
    save_file({"happy/nowhere.A": torch.zeros(2)}, path, metadata=header)
    with pytest.raises(TalkfaceError, match=r"is damaged \(it changes nowhere"):
        load_adapter(network(), path)
    save_file(tensors, path, metadata=header | {"format_version": "9"})
    with pytest.raises(TalkfaceError, match="format version 9"):
        load_adapter(network(), path)


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(TalkfaceError, match=r"pip install 'talkface\[finetune\]'"):
        add_lora(network())


def test_files_with_colons(tmp_path):
    assert split_adapter("a.safetensors") == (split_adapter("a.safetensors")[0], None)
    assert str(split_adapter("b/a.safetensors:happy")[0]) == "b/a.safetensors"
    assert split_adapter("b/a.safetensors:happy")[1] == "happy"
    odd = tmp_path / "a:b"
    odd.write_bytes(b"")
    assert split_adapter(str(odd)) == (odd, None)
    assert split_adapter("C:/weights/a.safetensors")[1] is None


def test_an_adapter_of_the_bundled_network_takes_less_than_5_mb(tmp_path):
    bundle_folder("emotion")
    unet = load_bundle("emotion", parts=["network"]).part("network")
    add_lora(unet, rank=8)
    path = save_adapter(tmp_path / "a.safetensors", unet, {})
    assert 100_000 < path.stat().st_size < 5_000_000
