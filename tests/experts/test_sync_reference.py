"""The public sync networks: the layout of their files, what goes in, and spectra against formulas written out here."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from talkface.errors import TalkfaceError
from talkface.experts.sync_reference import SyncNet, Wav2LipSync, load_sync
from talkface.experts.sync_sound import mfcc, wav2lip_mel

# names and shapes as the published files have them, some of every part
SYNCNET = {
    "netcnnaud.0.weight": (64, 1, 3, 3), "netcnnaud.4.weight": (192, 64, 3, 3), "netcnnaud.5.running_var": (192,),
    "netcnnaud.8.weight": (384, 192, 3, 3), "netcnnaud.11.weight": (256, 384, 3, 3),
    "netcnnaud.14.bias": (256,), "netcnnaud.18.weight": (512, 256, 5, 4), "netcnnaud.19.bias": (512,),
    "netfcaud.0.weight": (512, 512), "netfcaud.1.running_mean": (512,), "netfcaud.3.weight": (1024, 512),
    "netfclip.0.weight": (512, 512), "netfclip.3.bias": (1024,),
    "netcnnlip.0.weight": (96, 3, 5, 7, 7), "netcnnlip.4.weight": (256, 96, 1, 5, 5),
    "netcnnlip.8.weight": (256, 256, 1, 3, 3), "netcnnlip.11.weight": (256, 256, 1, 3, 3),
    "netcnnlip.14.weight": (256, 256, 1, 3, 3), "netcnnlip.18.weight": (512, 256, 1, 6, 6),
    "netcnnlip.19.weight": (512,),
}  # fmt: skip
WAV2LIP = {
    "face_encoder.0.conv_block.0.weight": (32, 15, 7, 7), "face_encoder.0.conv_block.1.running_mean": (32,),
    "face_encoder.1.conv_block.0.weight": (64, 32, 5, 5), "face_encoder.4.conv_block.0.weight": (128, 64, 3, 3),
    "face_encoder.8.conv_block.0.weight": (256, 128, 3, 3), "face_encoder.11.conv_block.0.weight": (512, 256, 3, 3),
    "face_encoder.14.conv_block.0.weight": (512, 512, 3, 3), "face_encoder.16.conv_block.0.weight": (512, 512, 1, 1),
    "audio_encoder.0.conv_block.0.weight": (32, 1, 3, 3), "audio_encoder.3.conv_block.0.weight": (64, 32, 3, 3),
    "audio_encoder.6.conv_block.0.weight": (128, 64, 3, 3), "audio_encoder.9.conv_block.0.weight": (256, 128, 3, 3),
    "audio_encoder.12.conv_block.0.weight": (512, 256, 3, 3), "audio_encoder.13.conv_block.0.bias": (512,),
}  # fmt: skip


@pytest.fixture(scope="module", params=[SyncNet, Wav2LipSync])
def network(request):
    torch.manual_seed(0)
    made = request.param().eval()
    for module in made.modules():  # so that a norm that was not read would show
        if hasattr(module, "running_mean"):
            module.running_mean.normal_(0, 0.02)
            module.running_var.uniform_(0.8, 1.2)
    return made.requires_grad_(False)


def test_the_layout_is_the_published_one(network) -> None:
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    wanted = SYNCNET if isinstance(network, SyncNet) else WAV2LIP
    assert {name: own.get(name) for name in wanted} == wanted
    heads = {name.split(".")[0] for name in own}
    assert heads == {name.split(".")[0] for name in wanted}
    assert len(own) == (102 if isinstance(network, SyncNet) else 31 * 7)


def test_files_are_read_and_give_the_same(network, tmp_path: Path) -> None:
    state = network.state_dict()
    if isinstance(network, SyncNet):  # published before there were counters, as a bare state dict
        file = tmp_path / "syncnet_v2.model"
        torch.save({name: value for name, value in state.items() if "num_batches" not in name}, file)
    else:
        file = tmp_path / "lipsync_expert.pth"
        torch.save({"state_dict": state, "optimizer": None, "global_step": 7, "global_epoch": 1}, file)
    read = load_sync(file)
    assert type(read) is type(network) and not read.training
    frames = torch.rand(2, 5, 3, *read.crop_size) * 2 - 1
    windows = read.sound_windows(torch.randn(16000) * 0.1, 16000, torch.tensor([0.1, 0.62]))
    for method, given in (("embed_faces", frames), ("embed_sound", windows)):
        torch.testing.assert_close(getattr(read, method)(given), getattr(network, method)(given))
    lacking = {name: value for name, value in state.items() if name != next(iter(state))}
    torch.save(lacking, tmp_path / "lacking.pth")
    with pytest.raises(TalkfaceError, match=f"{next(iter(state))} is missing .*give .*github.com"):
        load_sync(tmp_path / "lacking.pth")


def test_what_goes_into_syncnet() -> None:
    """BGR, 0 to 255, frames in the third place; frames k to k + 4 belong to MFCCs 4 k to 4 k + 19."""
    torch.manual_seed(0)
    network = SyncNet().eval()
    frames = torch.rand(1, 5, 3, 224, 224) * 2 - 1
    levels = ((frames + 1) * 127.5)[:, :, [2, 1, 0]].transpose(1, 2)
    by_hand = network.netfclip(network.netcnnlip(levels).flatten(1))
    torch.testing.assert_close(network.embed_faces(frames), by_hand)
    sound = torch.randn(32000) * 0.1
    windows = network.sound_windows(sound, 16000, torch.tensor([(7 + 2.5) / 25]))
    torch.testing.assert_close(windows[0, 0], mfcc(sound)[28:48].T)


def test_what_goes_into_wav2lip() -> None:
    """BGR, 0 to 1, frames one after the other in the channels; frame k's spectra begin at int(80 k / 25)."""
    torch.manual_seed(0)
    network = Wav2LipSync().eval()
    frames = torch.rand(1, 5, 3, 48, 96) * 2 - 1
    stacked = torch.cat([(frames[:, k, [2, 1, 0]] + 1) / 2 for k in range(5)], dim=1)
    by_hand = torch.nn.functional.normalize(network.face_encoder(stacked).flatten(1))
    torch.testing.assert_close(network.embed_faces(frames), by_hand)
    sound = torch.randn(32000) * 0.1
    for k in (0, 7, 10, 11):
        windows = network.sound_windows(sound, 16000, torch.tensor([(k + 2.5) / 25]))
        begin = int(80.0 * (k / 25.0))
        torch.testing.assert_close(windows[0, 0], wav2lip_mel(sound)[begin : begin + 16].T)


def test_mfcc_is_that_of_python_speech_features() -> None:
    """Its defaults, step by step: 25 ms windows without a taper, 26 filters, lifter 22, energy for the first."""
    rng = np.random.default_rng(0)
    samples = (rng.normal(0, 0.1, 5003) * 32768).astype(np.int16)
    signal = samples.astype(float)
    signal = np.append(signal[0], signal[1:] - 0.97 * signal[:-1])
    count = 1 + math.ceil((len(signal) - 400) / 160)
    signal = np.append(signal, np.zeros((count - 1) * 160 + 400 - len(signal)))
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 28) / 2595) - 1)
    corners = np.floor(513 * edges / 16000)
    bank = np.zeros((26, 257))
    for j in range(26):
        for i in range(int(corners[j]), int(corners[j + 1])):
            bank[j, i] = (i - corners[j]) / (corners[j + 1] - corners[j])
        for i in range(int(corners[j + 1]), int(corners[j + 2])):
            bank[j, i] = (corners[j + 2] - i) / (corners[j + 2] - corners[j + 1])
    rows = []
    for k in range(count):
        power = np.abs(np.fft.rfft(signal[160 * k : 160 * k + 400], 512)) ** 2 / 512
        logs = np.log(bank @ power)
        cepstrum = [
            sum(logs[n] * math.cos(math.pi * q * (2 * n + 1) / 52) for n in range(26))
            * math.sqrt((1 if q == 0 else 2) / 26)
            for q in range(13)
        ]
        lifted = [value * (1 + 11 * math.sin(math.pi * q / 22)) for q, value in enumerate(cepstrum)]
        lifted[0] = math.log(power.sum())
        rows.append(lifted)
    told = mfcc(torch.from_numpy(samples.astype(np.float32) / 32768))
    np.testing.assert_allclose(told.numpy(), np.array(rows), atol=1e-3, rtol=1e-4)
    assert torch.isfinite(mfcc(torch.zeros(1000))).all()


def slaney_bank() -> np.ndarray:
    """librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600), from its definition."""

    def to_mel(hertz: float) -> float:
        return hertz / (200 / 3) if hertz < 1000 else 15 + math.log(hertz / 1000) / (math.log(6.4) / 27)

    def to_hertz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)

    edges = [to_hertz(mel) for mel in np.linspace(to_mel(55), to_mel(7600), 82)]
    frequencies = np.linspace(0, 8000, 401)
    bank = np.zeros((80, 401))
    for j in range(80):
        low, middle, high = edges[j : j + 3]
        shape = np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle))
        bank[j] = np.maximum(shape, 0) * 2 / (high - low)
    return bank


def test_mel_is_that_of_wav2lip() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 6007).astype(np.float32)
    signal = samples.astype(float)
    signal[1:] -= 0.97 * samples[:-1].astype(float)
    padded = np.pad(signal, 400, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 800)
    bank, rows = slaney_bank(), []
    for k in range(1 + len(signal) // 200):
        magnitude = np.abs(np.fft.rfft(padded[200 * k : 200 * k + 800] * window))
        level = 20 * np.log10(np.maximum(1e-5, bank @ magnitude)) - 20
        rows.append(np.clip(8 * (level + 100) / 100 - 4, -4, 4))
    np.testing.assert_allclose(wav2lip_mel(torch.from_numpy(samples)).numpy(), np.array(rows), atol=2e-3)
    assert wav2lip_mel(torch.zeros(50)).min() == -4


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TalkfaceError, match=r"does not exist; .*syncnet_v2.model"):
        load_sync(tmp_path / "absent.model")
    (tmp_path / "noise.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(TalkfaceError, match="cannot be read as a checkpoint"):
        load_sync(tmp_path / "noise.pth")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(TalkfaceError, match=r"holds conv\.\.\.; allowed are netcnnlip"):
        load_sync(tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(TalkfaceError, match="holds no tensors by name"):
        load_sync(tmp_path / "list.pth")
