"""Which experts there are, where their weights come from, and who is who: the table that `talkface doctor` prints.

An expert is a frozen network with a role (CLIP, identity, emotion, ...). The reference of a role is a public network
whose weights are the user's; the built one is trained by `scripts/train_expert.py` on renders. What a script wrote is
`<name>.safetensors` and `<name>.json` (class path and arguments): `load_expert` reads both.

An expert that guided a training must not judge its result: `fingerprint` names an expert by its weights, finetuned
bundles and adapters store the names of those that guided them, `check_judge` compares.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from talkface.errors import TalkfaceError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Expert:
    """One line of the table.

    Args:
        role: what it is asked for.
        name: what people call it.
        class_path: the class that loads it.
        modules: packages beyond the base installation that it needs.
        extra: the pip extra that brings them; "" when none are needed.
        where: where the weights are: "package" (with talkface or with one of `modules`), "bundle" (`weights` is
            bundle/part), "hub" (a repository of the Hugging Face hub), "torch" (torchvision's cache) or "file" (yours,
            in `experts_folder()` or anywhere, given by path).
        weights: bundle and part, repository, or file name.
        source: where a file is published, or the command that makes it.
    """

    role: str
    name: str
    class_path: str
    modules: tuple[str, ...] = ()
    extra: str = ""
    where: Literal["package", "bundle", "hub", "torch", "file"] = "package"
    weights: str = ""
    source: str = ""


def _built(role: str, name: str, class_path: str, weights: str) -> Expert:
    """One that scripts/train_expert.py makes."""
    source = f"scripts/train_expert.py {name} --out {{folder}}/{weights.removesuffix('.safetensors')}"
    return Expert(role, "small", class_path, where="file", weights=weights, source=source)


_X = "talkface.experts."
_CLIP = "openai/clip-vit-base-patch16"
EXPERTS: tuple[Expert, ...] = (
    Expert("CLIP", "CLIP ViT-B/16", _X + "clip.CLIPExpert", ("transformers",), "finetune", "hub", _CLIP),
    _built("CLIP", "clip", _X + "clip.FaceCLIP", "clip0.safetensors"),
    Expert(
        "identity", "ArcFace IR-SE50", _X + "recognition.ArcFaceRecogniser", where="file", weights="model_ir_se50.pth",
        source="linked by the repository TreB1eN/InsightFace_Pytorch",
    ),
    Expert(
        "identity", "insightface buffalo_l", _X + "recognition.ONNXRecogniser", ("onnxruntime",), "faces", "file",
        "w600k_r50.onnx", "in buffalo_l.zip, a release of deepinsight/insightface",
    ),
    Expert(
        "identity", "CosFace r100", _X + "recognition.ONNXRecogniser", ("onnxruntime",), "faces", "file",
        "glint360k_cosface_r100_fp16_0.1.onnx", "in the model zoo of deepinsight/insightface; r50 as well",
    ),
    _built("identity", "identity", _X + "recognition.FaceEmbedder", "identity0.safetensors"),
    Expert("identity", "dlib", _X + "identity.DlibRecogniser", ("dlib", "face_recognition_models"), "identity"),
    Expert("emotion", "bundled", _X + "emotion.EmotionNetwork", where="bundle", weights="emotion/classifier"),
    _built("emotion", "emotion", _X + "emotion.EmotionNetwork", "emotion0.safetensors"),
    Expert(
        "emotion", "HSEmotion", _X + "emotion.HSEmotionClassifier", ("onnxruntime",), "faces", "file",
        "enet_b0_8_best_vgaf.onnx", "in the repository av-savchenko/face-emotion-recognition; enet_b2_7.onnx as well",
    ),
    Expert(
        "lip reader", "auto-avsr", _X + "lipreading.LipReader", where="file", weights="vsr_trlrs3_base.pth",
        source="linked by the repository mpc001/auto_avsr; then talkface import-checkpoint --kind auto-avsr",
    ),
    _built("lip reader", "lipreading", _X + "lipreading.LipReader", "reader0.safetensors"),
    Expert(
        "sync", "SyncNet", _X + "sync_reference.SyncNet", where="file", weights="syncnet_v2.model",
        source="linked by the repository joonson/syncnet_python",
    ),
    Expert(
        "sync", "Wav2Lip's expert", _X + "sync_reference.Wav2LipSync", where="file", weights="lipsync_expert.pth",
        source="linked by the repository Rudrabha/Wav2Lip",
    ),
    Expert("sync", "shape", _X + "sync_shape.ShapeSync", where="bundle", weights="default/speech"),
    _built("sync", "sync", _X + "sync.SyncNetwork", "sync5.safetensors"),
    Expert(
        "sound", "bundled", _X + "speech_articulation.ArticulationEncoder", where="bundle", weights="default/speech"
    ),
    Expert(
        "sound", "wav2vec 2.0", _X + "speech_reference.Wav2Vec2Encoder", ("transformers",), "speech", "hub",
        "facebook/wav2vec2-base-960h",
    ),
    Expert("sound", "hama", _X + "speech_reference.PhonemePosteriorEncoder", ("hama",), "speech"),
    Expert("landmarks", "bundled", _X + "faces.NetworkFaceFinder", where="bundle", weights="default/landmarks"),
    Expert(
        "landmarks", "MediaPipe", _X + "face_backends.MediaPipeFaceFinder", ("mediapipe",), "faces", "file",
        "face_landmarker.task", "on Google's MediaPipe model page",
    ),
    Expert("landmarks", "FAN", _X + "face_backends.FaceAlignmentFinder", ("face_alignment",), "faces"),
    Expert("likeness", "LPIPS AlexNet", _X + "vision.LPIPS", ("lpips",), "eval", "torch", "alexnet-"),
    Expert("likeness", "LPIPS VGG-16", _X + "vision.LPIPS", ("lpips",), "eval", "torch", "vgg16-"),
)  # fmt: skip


def experts_folder() -> Path:
    """Where experts' weights are looked for by name: `$TALKFACE_CACHE/experts`, or `~/.cache/talkface/experts`."""
    return Path(os.environ.get("TALKFACE_CACHE") or Path.home() / ".cache" / "talkface") / "experts"


def find_weights(path: str | os.PathLike[str]) -> Path:
    """`path` itself, or, when there is no such file, the file of that name in `experts_folder()` if it is there."""
    kept = experts_folder() / Path(path).name
    return kept if not Path(path).exists() and kept.is_file() else Path(path)


class Status(NamedTuple):
    """ready; text: what is there or missing; fix: what to do, "" when it is ready."""

    ready: bool
    text: str
    fix: str = ""


def status(expert: Expert) -> Status:
    """Whether an expert can be loaded here, found out without importing or opening anything."""
    absent = [module for module in expert.modules if importlib.util.find_spec(module) is None]
    if absent:
        return Status(False, f"no {', '.join(absent)}", f"pip install 'talkface[{expert.extra}]'")
    if expert.where == "bundle":
        bundle, part = expert.weights.split("/")
        file = Path(__file__).parents[1] / "weights" / bundle / f"{part}.safetensors"
        return Status(True, f"in the bundle {bundle}") if file.is_file() else Status(
            False, f"no {part} in the bundle {bundle}", "reinstall talkface"
        )  # fmt: skip
    if expert.where == "hub":
        folder = _hub_cache() / ("models--" + expert.weights.replace("/", "--"))
        if folder.is_dir():
            return Status(True, f"{expert.weights}, downloaded")
        return Status(
            False,
            f"{expert.weights} is not here",
            "is downloaded on first use; or give a folder with it by path",
        )
    if expert.where == "torch":
        home = os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch"
        if any((Path(home) / "hub" / "checkpoints").glob(f"{expert.weights}*.pth")):
            return Status(True, "backbone in torchvision's cache")
        return Status(
            False, "no backbone in torchvision's cache", "is downloaded on first use; or give its file"
        )
    if expert.where == "file":
        file = experts_folder() / expert.weights
        if file.is_file():
            return Status(True, str(file))
        if expert.source.startswith("scripts/"):
            return Status(False, f"no {expert.weights}", expert.source.format(folder=experts_folder()))
        return Status(
            False, f"no {expert.weights}", f"{expert.source}; give its path or put it into {experts_folder()}"
        )
    return Status(True, "with its package")


def _hub_cache() -> Path:
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def fingerprint(module: nn.Module) -> str:
    """Content hash (16 hexadecimal digits) of an expert's weights: names, shapes and values, read as float32.

    The same for an expert in a bundle and in a file of its own, and on any device. An expert whose weights torch does
    not hold (ONNX) is named by its file, which it keeps as `weights_path`.

    Raises:
        TalkfaceError: it has neither weights nor a file.
    """
    import torch

    digest = hashlib.sha256()
    state = module.state_dict()
    for name in sorted(state):
        value = state[name].detach().cpu()
        value = value.float() if value.is_floating_point() else value.to(torch.int64)
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    if not state:
        path = getattr(module, "weights_path", None)
        if path is None:
            raise TalkfaceError(f"{type(module).__name__} has no weights that could name it")
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]


def check_judge(judge: nn.Module, guided_by: Iterable[str], allow_same_expert: bool = False) -> str:
    """The fingerprint of `judge`, when it may judge a model that was guided by the experts `guided_by`.

    Raises:
        TalkfaceError: it is one of them, and `allow_same_expert` is not set.
    """
    own = fingerprint(judge)
    if own in set(guided_by) and not allow_same_expert:
        raise TalkfaceError(
            f"the judge ({type(judge).__name__}, {own}) also guided the training of this model, so it would judge "
            "itself; give another judge, or --allow-same-expert to measure it all the same"
        )
    return own


def load_expert(path: str | os.PathLike[str], device: str = "cpu") -> Any:
    """What `scripts/train_expert.py` wrote, frozen and in evaluation mode: a Module of the class that it names.

    Args:
        path: the `.safetensors` file, its `.json` beside it; or the name of one in `experts_folder()`.

    Raises:
        TalkfaceError: a file is missing, damaged, or does not fit the class that the `.json` names; the class is not
            one of `talkface.experts`.
    """
    base = str(path).removesuffix(".safetensors")
    weights = find_weights(f"{base}.safetensors")
    spec = weights.with_name(weights.name.removesuffix(".safetensors") + ".json")
    for file in (weights, spec):
        if not file.is_file():
            raise TalkfaceError(
                f"expert: {file} does not exist; give the .safetensors that scripts/train_expert.py wrote, with its "
                ".json beside it"
            )
    from safetensors.torch import load_file

    try:
        read = json.loads(spec.read_text())
        module_name, _, class_name = read["class_path"].rpartition(".")
        if not module_name.startswith("talkface.experts."):
            raise ValueError(f"{read['class_path']} is no class of talkface.experts")
        network = getattr(importlib.import_module(module_name), class_name)(**read.get("init_args", {}))
        network.load_state_dict(load_file(weights))
    except TalkfaceError:
        raise
    except (
        Exception
    ) as error:  # json, safetensors and torch have classes of their own for every kind of damage
        reason = " ".join(str(error).split())[:160]
        raise TalkfaceError(f"expert {weights} cannot be loaded as its .json says: {reason}") from error
    frozen: nn.Module = network.to(device).eval().requires_grad_(False)
    return frozen
