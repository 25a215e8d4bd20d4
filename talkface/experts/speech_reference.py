"""Speech encoders that need another library: wav2vec 2.0 (Baevski et al. 2020) and phoneme posteriors.

Both modes of the paper are here: `Wav2Vec2Encoder(output="last")` are the transformer's hidden states, and
`output="logits"` the characters of a CTC recogniser. The networks are frozen; only the weights of
`output="mix"` learn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError, require
from talkface.experts.speech_base import SpeechEncoder

__all__ = ["PhonemePosteriorEncoder", "Wav2Vec2Encoder"]


class Wav2Vec2Encoder(SpeechEncoder):
    """wav2vec 2.0, HuBERT or WavLM through `transformers`.

    The sound is shifted by half a window so that feature i is centred at (i + 0.5) / 50 s. In `encode_long`,
    chunks
    carry 4 s of context: the transformer's reach is endless, so far-away sound changes the features a little.

    Args:
        name_or_path: folder written by `save_pretrained`, or a name on the hub, such as
            "facebook/wav2vec2-base-960h".
        output: "last" = last hidden state; "mix" = learned weighted mean of all layers (Yang et al.,
            "SUPERB", 2021); "logits" = characters before the softmax, of a model with a CTC head.
        interpolate_before: None, or a rate in features per second to which the convolutional features are
            interpolated before the transformer, as the thesis did with the film's frame rate.
        normalize: bring the sound to zero mean and unit variance, as these models were trained with.

    Raises:
        TalkfaceError: the model cannot be loaded, or `output` is unknown.
    """

    context_seconds = 4.0

    def __init__(
        self,
        name_or_path: str,
        output: str = "last",
        interpolate_before: float | None = None,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        if output not in ("last", "mix", "logits"):
            raise TalkfaceError(f"output of the speech encoder: {output!r}; allowed 'last', 'mix', 'logits'")
        transformers = require("transformers", extra="speech")
        kind = transformers.AutoModelForCTC if output == "logits" else transformers.AutoModel
        try:
            self.model = kind.from_pretrained(name_or_path)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise TalkfaceError(
                f"speech encoder: cannot load {name_or_path!r} ({reason}); give a folder that holds config.json "
                "and model.safetensors, or a hub name where the hub can be reached"
            ) from error
        config = self.model.config
        self.model.eval().requires_grad_(False)
        self.output, self.normalize, self.interpolate_before = output, normalize, interpolate_before
        self._hop = int(np.prod(config.conv_stride))
        self._window = 1 + sum(
            (kernel - 1) * int(np.prod(config.conv_stride[:i])) for i, kernel in enumerate(config.conv_kernel)
        )
        self.feature_rate = interpolate_before or self.sample_rate / self._hop
        self.feature_dim = config.vocab_size if output == "logits" else config.hidden_size
        self.mix = nn.Parameter(torch.zeros(config.num_hidden_layers + 1)) if output == "mix" else None

    def train(self, mode: bool = True) -> Wav2Vec2Encoder:
        """The network stays in evaluation mode; only the mix is trained."""
        super().train(mode)
        self.model.eval()
        return self

    def level(self, waveform: Tensor) -> Tensor:
        """(B, 2) mean and standard deviation, if the sound is to be normalised."""
        if not self.normalize:
            return torch.tensor([[0.0, 1.0]]).to(waveform).expand(len(waveform), 2)
        return torch.stack([waveform.mean(1), (waveform.var(1, unbiased=False) + 1e-7).sqrt()], dim=1)

    def forward(self, waveform: Tensor, level: Tensor | None = None) -> Tensor:
        level = self.level(waveform) if level is None else level
        count = max(1, round(waveform.shape[1] / self._hop))
        margin = (self._window - self._hop) // 2
        wanted = (count - 1) * self._hop + self._window
        sound = (waveform - level[:, :1]) / level[:, 1:]
        sound = F.pad(sound, (margin, max(0, wanted - margin - sound.shape[1])))[:, :wanted]
        if self.interpolate_before is None:
            out = self.model(sound, output_hidden_states=self.output == "mix")
            hidden = out.logits if self.output == "logits" else out.last_hidden_state
        else:
            base = self.model if self.output != "logits" else self.model.base_model
            local = base.feature_extractor(sound)
            local = F.interpolate(
                local, size=self.num_features(waveform.shape[1]), mode="linear", align_corners=True
            )
            projected = base.feature_projection(local.transpose(1, 2))
            projected = projected[0] if isinstance(projected, tuple) else projected
            out = base.encoder(projected, output_hidden_states=self.output == "mix")
            hidden = out.last_hidden_state
            if self.output == "logits":
                hidden = self.model.lm_head(hidden)
        if self.mix is not None:
            hidden = torch.einsum("l,lbtd->btd", self.mix.softmax(0), torch.stack(out.hidden_states))
        return hidden


class PhonemePosteriorEncoder(SpeechEncoder):
    """Posteriors of hama's phoneme recogniser (IPA, CTC) at 50 Hz.

    CTC names a phoneme in one or two frames and is blank in between. Here the blank's share goes to the
    phoneme named last, as long as there is sound, so that a phoneme lasts; in silence it stays on the blank.

    Args:
        model_path: another model file of hama; default the one of its package.
        gate: frames that are this many dB below the loud ones count as silence.
    """

    feature_rate = 50.0
    context_seconds = 2.0

    def __init__(self, model_path: str | None = None, gate: float = 35.0) -> None:
        super().__init__()
        hama = require("hama", extra="speech")
        self._model = hama.ASRModel(model_path=Path(model_path) if model_path else None)
        self._gate = gate
        self.feature_dim = len(self._model.decoder_tokens)

    def level(self, waveform: Tensor) -> Tensor:
        """(B, 1) root mean square of the loud frames."""
        frames = F.pad(waveform, (0, 320)).unfold(1, 320, 320).square().mean(-1)
        return torch.quantile(frames, 0.95, dim=1, keepdim=True).sqrt()

    @torch.no_grad()
    def forward(self, waveform: Tensor, level: Tensor | None = None) -> Tensor:
        level = self.level(waveform) if level is None else level
        features = [self._encode(w, float(r)) for w, r in zip(waveform.cpu().numpy(), level, strict=True)]
        return torch.from_numpy(np.stack(features)).to(waveform.device)

    def _encode(self, sound: np.ndarray, loud: float) -> np.ndarray:
        count = self.num_features(len(sound))
        names = [node.name for node in self._model.session.get_outputs()]
        inputs = [node.name for node in self._model.session.get_inputs()]
        wave = np.pad(sound, (0, max(0, 1600 - len(sound))))[None].astype(np.float32)
        feed = {n: np.array([wave.shape[1]]) if "length" in n else wave for n in inputs}
        values = dict(zip(names, self._model.session.run(names, feed), strict=True))
        share = np.exp(next(v for n, v in values.items() if "log_probs" in n)[0]).astype(np.float32)
        share = share[np.clip(np.arange(count), 0, len(share) - 1)]
        blank, last = self._model.blank_id, np.zeros(self.feature_dim, np.float32)
        last[blank] = 1.0
        for i in range(count):
            block = sound[i * 320 : (i + 1) * 320]
            audible = block.size > 0 and float(np.sqrt(np.mean(block**2))) > loud * 10 ** (-self._gate / 20)
            rest, share[i, blank] = share[i, blank], 0.0
            if audible:
                share[i] += rest * last
            else:
                share[i, blank] += rest
            last = share[i] / max(share[i].sum(), 1e-6)
        return share
