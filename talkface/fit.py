"""`talkface fit|validate|test|predict`: training from one YAML file.

A YAML is a constructor call per object (`class_path` and `init_args`); a mistyped name stops the program
before anything is built, with one line. Values that several objects must share (size of the pictures,
window of the sound) are given once, to the data, and handed to the model here; a model that says otherwise
is refused.

Importing this costs seconds (Lightning, jsonargparse); only the verbs that train do.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from talkface.errors import TalkfaceError
from talkface.training.callbacks import SeedEveryStep

QUIET = (
    ".*LightningCLI's args parameter.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*ModelCheckpoint with manual optimization.*",
    ".*in eval mode at the start of training.*",
    ".*your dataloader is not resumable.*",
)
"""Warnings about what is done on purpose here (the order of the data resumes by itself, see `data.order`)."""
VERBS = ("fit", "validate", "test", "predict")


class Parser(LightningArgumentParser):
    """The usual parser, but a mistake is one `TalkfaceError` line instead of a page."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        raise TalkfaceError(shorten(f"{message}\n{ex or ''}")) from ex


def shorten(message: str) -> str:
    """The one line of a jsonargparse message that names the mistake.

    Its messages repeat every type that was tried at every level; the deepest complaint that is about
    content rather than about types is the useful one.
    """
    lines = [line.strip().removeprefix("- ") for line in message.splitlines() if line.strip()]
    for line in lines:
        # an object inside an object has been through here already
        if "configuration: " in line:
            return line[line.index("configuration: ") :]
    where = ""
    for position, line in enumerate(lines):
        found = re.search(r"Problem with given class_path '([^']+)'", line)
        if found:
            where = found.group(1)
        # the complaint itself follows the deepest class path
        following = next((other for other in lines[position + 1 :]), "")
        if found and "Problem with given class_path" not in following and "Expected a" not in following:
            return f"configuration: {where}: {following}; correct that name or value"
    for pattern in (
        "found duplicate key",
        "is not accepted",
        "not allowed",
        "Key .* is required",
        "Unrecognized arguments",
        "not found",
        "No such file",
        "Unable to",
        "Expected",
    ):
        for line in reversed(lines):
            if re.search(pattern, line):
                return f"configuration: {line}; correct that name or value"
    return f"configuration: {lines[0] if lines else 'unknown problem'}"


def agree(config: Namespace) -> None:
    """Copy values that must be the same from the data to the model.

    `data.image_size` -> the first stage's `image_size`, the network's (in latents) and the frame
    conditioner's; `data.window` -> the audio conditioner's `window`.

    Raises:
        TalkfaceError: the YAML gives the model another value.
    """
    data, model = config.get("data"), config.get("model")
    if not isinstance(data, Namespace) or not isinstance(model, Namespace):
        return
    given, parts = data.get("init_args", Namespace()), model.get("init_args", Namespace())
    size, window = given.get("image_size"), given.get("window")
    first_stage, network, conditioner = (
        parts.get(name) for name in ("first_stage", "network", "conditioner")
    )
    factor, channels = 1, 3
    if isinstance(first_stage, Namespace):
        arguments = first_stage.get("init_args", Namespace())
        hand_over(first_stage, "model.first_stage", image_size=size)
        factor = (arguments.get("patch_size") or 1) * 2 ** (len(arguments.get("channel_mult") or (1,)) - 1)
        channels = arguments.get("latent_channels") or channels
    latent_size = None if size is None else size // factor
    if isinstance(network, Namespace):
        hand_over(network, "model.network", image_size=latent_size)
    if isinstance(conditioner, Namespace):
        for name, one in (conditioner.get("init_args", Namespace()).get("conditioners") or {}).items():
            hand_over(
                one,
                f"model.conditioner.{name}",
                window=window,
                image_size=size,
                latent_size=latent_size,
                latent_channels=channels,
            )


def hand_over(part: Namespace, where: str, **values: Any) -> None:
    """Set those arguments of `part` that its class takes; refuse one that was given another value."""
    arguments = part.get("init_args", Namespace())
    module, _, name = part["class_path"].rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name).__init__).parameters
    for key, value in values.items():
        if value is None or key not in parameters:
            continue
        given, default = arguments.get(key), parameters[key].default
        if given is not None and given not in (value, default):
            raise TalkfaceError(
                f"configuration: {where}.{key}: {given}; the data says {value}; leave it out here"
            )
        arguments[key] = value


class FitCLI(LightningCLI):
    """LightningCLI with our parser, shared values and the callbacks without which a resume is not exact."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("dump_header", [f"pytorch_lightning=={pl.__version__}"])
        parser = Parser(**kwargs)
        parser.add_argument("-c", "--config", action="config", help="A YAML file.")
        return parser

    def _parse_ckpt_path(self) -> None:
        """Leave the YAML as it is: it describes the model, a checkpoint gives the weights."""

    def before_instantiate_classes(self) -> None:
        agree(self.config[self.config.subcommand] if "subcommand" in self.config else self.config)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[pl.Callback] = vars(trainer)["callbacks"]  # Lightning sets it without declaring it
        if not any(isinstance(callback, SeedEveryStep) for callback in callbacks):
            callbacks.append(SeedEveryStep())
        return trainer


def build(argv: Sequence[str], run: bool = True) -> FitCLI:
    """Parse `argv` (`fit --config file.yaml ...`; no verb with `run=False`), build, and with `run` train."""
    return FitCLI(
        pl.LightningModule,
        pl.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        parser_kwargs={"parser_mode": "omegaconf"},
        save_config_callback=SaveConfigCallback,
        save_config_kwargs={"overwrite": True},
        args=list(argv),
        run=run,
    )


def user_mistake(error: BaseException | None) -> BaseException | None:
    """The error to show, or None for a fault of the program.

    What a constructor refuses arrives as a ValueError of the parser, with the reason among its causes.
    """
    if isinstance(error, FileNotFoundError | MisconfigurationException):
        return error
    while error is not None and not isinstance(error, TalkfaceError):
        error = error.__cause__ or error.__context__
    return error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, or 2 after one line on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in VERBS:
        raise TalkfaceError(f"verb: {arguments[0] if arguments else 'none'}; allowed {', '.join(VERBS)}")
    os.environ.setdefault("PYTORCH_LIGHTNING_SUPPRESS_TIPS", "1")
    torch.set_float32_matmul_precision("high")
    for message in QUIET:
        warnings.filterwarnings("ignore", message=message)
    try:
        build(arguments)
    except (TalkfaceError, FileNotFoundError, MisconfigurationException, ValueError) as error:
        mistake = user_mistake(error)
        if mistake is None:
            raise
        print(f"talkface: error: {' '.join(str(mistake).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
