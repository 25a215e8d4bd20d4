"""What a finetuning keeps: for each target the epoch in which the judge finds it best.

One epoch is seldom best for all: in the thesis disgust fell from .676 to .450 while the others rose (table 4.4).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from talkface.adapters import save_adapter
from talkface.training.finetune import ClipFinetuneModule

PREFIX = "val/accuracy_"


class KeepBestPerTarget(Callback):
    """After each validation, saves the model for every target whose accuracy has not been higher before, and as `all`
    for their mean.

    An adapter goes into `<dirpath>/adapters.safetensors` under the target's name, and the newest one as `last`; all
    weights into `<dirpath>/<target>.ckpt`. `<dirpath>/best.json` says which epoch was kept for which target, with the
    accuracies of all epochs.

    Args:
        dirpath: folder of checkpoints.
    """

    def __init__(self, dirpath: str) -> None:
        self.folder = Path(dirpath)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, dict[str, float]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.best = state_dict["history"], state_dict["best"]

    # Lightning allows every module here; this callback is for one kind
    def on_validation_end(self, trainer: pl.Trainer, pl_module: ClipFinetuneModule) -> None:  # type: ignore[override]
        if trainer.sanity_checking:
            return
        found = {
            name.removeprefix(PREFIX): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(PREFIX)
        }
        if len(found) > 1:
            found["all"] = sum(found.values()) / len(found)
        self.history.append({"epoch": trainer.current_epoch, "step": trainer.global_step} | found)
        for target, accuracy in found.items():
            if target not in self.best or accuracy > self.best[target]["accuracy"]:
                self.best[target] = {"epoch": trainer.current_epoch, "accuracy": accuracy}
                self._save(trainer, pl_module, target)
        if pl_module.lora_rank is not None:
            self._save(trainer, pl_module, "last")
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            told = {"best": self.best, "history": self.history}
            (self.folder / "best.json").write_text(json.dumps(told, indent=1) + "\n")

    def _save(self, trainer: pl.Trainer, module: ClipFinetuneModule, target: str) -> None:
        if module.lora_rank is None:
            trainer.save_checkpoint(self.folder / f"{target}.ckpt", weights_only=True)
        elif trainer.is_global_zero:
            about = module.about() | {"target": target}
            save_adapter(self.folder / "adapters.safetensors", module.network, about, stored_as=target)
