"""Bundles: what is saved comes back, and nothing that is damaged, newer or foreign is loaded."""

import json

import pytest
import torch

from talkface import checkpoint
from talkface.checkpoint import (
    bundle_folder,
    load_bundle,
    read_training_checkpoint,
    save_bundle,
    verify_bundle,
)
from talkface.errors import TalkfaceError
from talkface.networks.discriminator import PatchDiscriminator

PATH = "talkface.networks.discriminator.PatchDiscriminator"
META = {
    "image_size": 16,
    "schedule": {"class_path": "talkface.diffusion.schedule.NoiseSchedule", "init_args": {}},
}


def spec(**arguments):
    return {"class_path": PATH, "init_args": arguments}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PatchDiscriminator(in_channels=3, channels=4, num_layers=1).train()


@pytest.fixture
def folder(tmp_path, network):
    specs = {"judge": spec(in_channels=3, channels=4, num_layers=1)}
    return save_bundle(tmp_path / "small", {"judge": network}, specs, "# Card\n", META)


def test_a_saved_bundle_computes_what_the_original_did(folder, network):
    bundle = load_bundle(folder)
    picture = torch.randn(2, 3, 32, 32)
    halved = {name: value.half().float() for name, value in network.named_parameters()}
    expected = torch.func.functional_call(network.eval(), halved, (picture,))
    torch.testing.assert_close(bundle.part("judge")(picture), expected, rtol=0, atol=0)
    assert bundle.meta == META
    assert not bundle.part("judge").training
    assert not any(parameter.requires_grad for parameter in bundle.part("judge").parameters())
    assert bundle.build("schedule").num_train_timesteps == 1000
    assert (folder / "MODEL_CARD.md").read_text() == "# Card\n"


def test_parameters_are_stored_in_half_precision_and_buffers_as_they_are(tmp_path):
    module = PatchDiscriminator(in_channels=3, channels=4, num_layers=1)
    module.register_buffer("table", torch.tensor([1.0 + 2.0**-20]))
    with torch.no_grad():
        next(module.parameters()).fill_(1e5)
    path = save_bundle(tmp_path / "b", {"judge": module}, {"judge": spec()}, "card", {})
    from safetensors.torch import load_file

    stored = load_file(path / "judge.safetensors")
    first = next(name for name, _ in module.named_parameters())
    assert stored["table"].item() == 1.0 + 2.0**-20
    assert stored[first].dtype == torch.float32, "1e5 does not fit into half precision"
    assert {value.dtype for name, value in stored.items() if name.endswith("weight") and name != first} == {
        torch.float16
    }


def test_loading_leaves_the_global_random_state_alone(folder):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    load_bundle(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_saving_again_replaces_the_whole_bundle(folder, network):
    (folder / "stale.safetensors").write_bytes(b"old")
    specs = {"judge": spec(in_channels=3, channels=4, num_layers=1)}
    save_bundle(folder, {"judge": network}, specs, "# New", {"image_size": 32})
    assert load_bundle(folder).meta == {"image_size": 32}
    assert sorted(path.name for path in folder.iterdir()) == [
        "MODEL_CARD.md",
        "bundle.json",
        "judge.safetensors",
    ]
    assert list(folder.parent.iterdir()) == [folder], "a temporary folder was left behind"


def test_a_folder_with_other_files_is_never_replaced(tmp_path, network):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(TalkfaceError, match="holds other files"):
        save_bundle(tmp_path, {"judge": network}, {"judge": spec()}, "", {})
    assert (tmp_path / "precious.txt").exists()


def test_an_unknown_name_lists_the_known_ones_and_says_that_a_path_is_allowed(monkeypatch, tmp_path, folder):
    monkeypatch.setattr(checkpoint, "WEIGHTS_FOLDER", folder.parent)
    assert bundle_folder("small") == folder
    with pytest.raises(
        TalkfaceError, match=r"unknown bundle: smal; allowed are a name \(small\) or the path"
    ):
        bundle_folder("smal")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TalkfaceError, match=r"holds no bundle\.json"):
        bundle_folder(tmp_path / "empty")


@pytest.mark.parametrize("damage", ["truncate", "flip", "append", "remove"])
def test_damaged_weights_are_refused_in_one_line(folder, damage):
    path = folder / "judge.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(data[:-10])
    elif damage == "flip":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "append":
        path.write_bytes(bytes(data) + b"\0")
    else:
        path.unlink()
    with pytest.raises(TalkfaceError, match=r"weights are (damaged|missing).*judge\.safetensors") as error:
        load_bundle(folder)
    assert "\n" not in str(error.value)
    with pytest.raises(TalkfaceError):
        verify_bundle(folder)


def change(folder, edit):
    path = folder / "bundle.json"
    description = json.loads(path.read_text())
    edit(description)
    path.write_text(json.dumps(description))


def test_a_newer_format_asks_for_an_upgrade(folder):
    change(folder, lambda d: d.update(format_version=99))
    with pytest.raises(TalkfaceError, match=r"format version 99.*upgrade"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "talkface-bundle"}', '{"format": "other"}', "null"]
)
def test_a_damaged_description_is_one_line(folder, text):
    (folder / "bundle.json").write_text(text)
    with pytest.raises(TalkfaceError, match=r"bundle\.json is damaged"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "class_path",
    [
        "os.system",
        "torch.nn.Linear",
        "subprocess.Popen",
        "talkface.cli.os.system",
        "talkface.media.VideoWriter",
        "talkface.checkpoint.load_bundle",
        "talkface.networks.no_such_module.Network",
        "talkface.networks.unet.NoSuchNetwork",
        "talkfaces.Evil",
        "UNet",
    ],
)
def test_only_networks_of_talkface_are_built(folder, class_path):
    change(folder, lambda d: d["parts"]["judge"].update(class_path=class_path))
    with pytest.raises(TalkfaceError, match="class path"):
        load_bundle(folder)


def test_nested_class_paths_obey_the_same_rule(folder):
    foreign = {"class_path": "os.getcwd", "init_args": {}}
    change(folder, lambda d: d["parts"]["judge"]["init_args"].update(channels=foreign))
    with pytest.raises(TalkfaceError, match=r"class path: os\.getcwd"):
        load_bundle(folder)


def test_a_weights_file_outside_the_bundle_is_refused(folder):
    change(folder, lambda d: d["parts"]["judge"].update(file="../elsewhere.safetensors"))
    with pytest.raises(TalkfaceError, match="is damaged"):
        load_bundle(folder)


def test_weights_of_another_size_name_the_class(folder):
    change(folder, lambda d: d["parts"]["judge"]["init_args"].update(channels=8))
    with pytest.raises(
        TalkfaceError, match=r"do not fit talkface\.networks\.discriminator\.PatchDiscriminator"
    ):
        load_bundle(folder)


def test_arguments_that_the_class_does_not_have_are_one_line(folder):
    change(folder, lambda d: d["parts"]["judge"]["init_args"].update(colour="red"))
    with pytest.raises(TalkfaceError, match=r"refuses the arguments.*colour"):
        load_bundle(folder)


def test_parts_can_be_loaded_alone_and_missing_ones_are_named(folder):
    assert set(load_bundle(folder, parts=["judge"]).parts) == {"judge"}
    with pytest.raises(TalkfaceError, match="has no part network; it has: judge"):
        load_bundle(folder, parts=["network"])
    with pytest.raises(TalkfaceError, match="no part 'network'"):
        load_bundle(folder).part("network")
    with pytest.raises(TalkfaceError, match="'window' is missing in meta"):
        load_bundle(folder).value("window")


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_training_checkpoint_is_read_without_running_code(tmp_path, capsys):
    path = tmp_path / "run.ckpt"
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": 1}, path)
    assert read_training_checkpoint(path)["state_dict"]["a"].item() == 1
    torch.save({"state_dict": {}, "bad": Payload()}, path)
    with pytest.raises(TalkfaceError, match="cannot be read safely"):
        read_training_checkpoint(path)
    assert "code ran" not in capsys.readouterr().out
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(TalkfaceError, match="cannot be read"):
        read_training_checkpoint(path)
    with pytest.raises(TalkfaceError, match="does not exist"):
        read_training_checkpoint(tmp_path / "none.ckpt")
