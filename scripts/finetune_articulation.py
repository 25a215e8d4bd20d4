"""Teach the default bundle's speech encoder with a reader of actions: what it tells is to be read as the truth is.

    python scripts/train_speech.py --cache DIR --real FOLDER... --out speech.safetensors --time-budget 900
    python scripts/finetune_articulation.py --cache DIR --work runs/articulation
    python scripts/evaluate_lips.py --corpus corpora/synth --judge reader1.safetensors \
        --bundle default runs/articulation/bundle

Stages, each skipped when what it writes is there: `words` (every word of the training sentences, spoken once, for its
phonemes), `readers` (two of different seed and build: the first guides, the second only judges), `sounds` (what the
encoder's lower blocks make of the windows that train_speech.py prepared, clean and noisy), `tune` (its last blocks),
`pack` (a bundle). `judge` reads what both encoders tell of a corpus's clips.

An emotion branch listens to the blocks that are taught here: train it anew afterwards (train_speech_emotion.py).
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from expert_files import save_expert
from expert_lipreading import as_said, error_rates
from measuring import markdown, positive, run, save
from safetensors.torch import load_file, save_file
from speech_windows import OUTPUTS, Windows
from torch import Tensor, nn
from train_speech import label
from training_stages import run_stages

from talkface.checkpoint import load_bundle, save_bundle
from talkface.data.base import Corpus
from talkface.data.synthetic.sentences import loose_words, sentence
from talkface.data.synthetic.visemes import VISEMES, SpeakingStyle, frame_labels, speech_actions, viseme_of
from talkface.data.synthetic.voices import Voice, speak
from talkface.errors import TalkfaceError
from talkface.experts.action_reader import ActionReader
from talkface.experts.lipreading import BLANK
from talkface.experts.registry import fingerprint, load_expert
from talkface.experts.speech import ArticulationEncoder
from talkface.head.model import ACTIONS
from talkface.training.articulation_reading import LastBlocks, ReadBatch, heard_below, reading_losses
from talkface.training.averaged import train_averaged
from talkface.training.lipreading import CHARACTERS, to_characters
from talkface.training.speech import ArticulationBatch, TeacherHead, augment_sound, stretch

READERS: tuple[dict[str, Any], ...] = ({}, {"channels": 96, "dilations": (1, 3, 9, 1, 3, 9), "kernel": 3})
PIECE, CROP = 500, 200  # features: a window of 30 s is heard in three pieces; a step sees 4 s
CARD = "# Reader of actions {number}\n\nTrained for {seconds:g} s on synthesized speech.\n"
Lexicon = dict[str, list[tuple[str, float]]]


def both_sides(actions: np.ndarray) -> np.ndarray:
    """Actions (T, 52) -> those that the encoder tells, (T, A): both sides of an action are one."""
    places = [
        [
            k
            for k, name in enumerate(ACTIONS)
            if own in (name, name.removesuffix("Left").removesuffix("Right"))
        ]
        for own in OUTPUTS
    ]
    return np.stack([actions[:, k].mean(1) for k in places], axis=1)


def words(options: argparse.Namespace) -> None:
    """`words.json`: phonemes and seconds of every word that training sentences have."""
    path = options.work / "words.json"
    if path.is_file():
        return
    said = [loose_words(k) for k in range(options.sentences)] + [
        sentence(k) for k in range(options.sentences)
    ]
    voice = Voice.list("train", ("flite",))[0]
    lexicon = {}
    for word in sorted(set(re.sub("[^a-z' ]", "", " ".join(said).lower()).split())):
        lexicon[word] = [(name, end - start) for name, start, end in speak(voice, word).phonemes]
    path.write_text(json.dumps(lexicon))


class Speaker:
    """Says words in random order, fast or slow, in many styles: sequences for readers."""

    def __init__(self, lexicon: Lexicon, scale: Tensor, seed: int) -> None:
        self.words, self.scale, self.rng = lexicon, scale, np.random.default_rng(seed)

    def batch(self, size: int) -> ReadBatch:
        """`size` sequences of three to six words."""
        drawn = [self._sequence() for _ in range(size)]
        actions, texts, visemes, frames = (list(parts) for parts in zip(*drawn, strict=True))
        pad = nn.utils.rnn.pad_sequence
        return ReadBatch(
            actions=pad(actions, batch_first=True),
            lengths=torch.tensor([len(one) // 2 for one in actions]),
            characters=torch.tensor([unit for text in texts for unit in text]),
            character_counts=torch.tensor([len(text) for text in texts]),
            visemes=torch.tensor([unit for one in visemes for unit in one]),
            viseme_counts=torch.tensor([len(one) for one in visemes]),
            frame_visemes=pad(frames, batch_first=True, padding_value=-100),
        )

    def _sequence(self) -> tuple[Tensor, list[int], list[int], Tensor]:
        rng = self.rng
        names = sorted(self.words)
        chosen = [names[k] for k in rng.integers(len(names), size=rng.integers(3, 7))]
        # 1. Words after each other; each phoneme longer or shorter, now and then a pause.
        tempo, clock, phonemes = math.exp(rng.normal(0, 0.18)), float(rng.uniform(0.1, 0.5)), []
        for word in chosen:
            spoken = [one for one in self.words[word] if one[0] != "SIL"]
            for name, seconds in spoken:
                lasts = max(0.03, 0.75 * seconds * tempo * math.exp(rng.normal(0, 0.25)))
                phonemes.append((name, clock, clock + lasts))
                clock += lasts
            clock += float(rng.uniform(0.05, 0.3)) if rng.random() < 0.1 else 0.0
        count = int((clock + rng.uniform(0.1, 0.5)) * 50) // 2 * 2
        # 2. What the mouth does, as one speaker or another, a little wrong: a reader must not live on exactness.
        style = None if rng.random() < 0.5 else SpeakingStyle.sample(int(rng.integers(1 << 30)))
        exact = both_sides(speech_actions(phonemes, (np.arange(count) + 0.5) / 50, style))
        noise = torch.from_numpy(rng.normal(size=exact.shape)).float() * float(rng.uniform(0, 0.12))
        actions = torch.from_numpy(exact).float() + noise * self.scale
        # 3. What it says.
        classes = [VISEMES.index(viseme_of(name)) for name, _, _ in phonemes]
        changes = [one for k, one in enumerate(classes) if k == 0 or classes[k - 1] != one]
        shown = frame_labels(phonemes, (np.arange(count // 2) + 0.5) / 25)[1]
        frames = torch.tensor([VISEMES.index(name) for name in shown])
        return actions, to_characters(" ".join(chosen)), changes, frames


def readers(options: argparse.Namespace) -> None:
    """`reader0` and `reader1`."""
    windows = Windows(options.cache, ("synthetic",))
    mean, scale = windows.action_statistics()
    lexicon = json.loads((options.work / "words.json").read_text())
    for number, build in enumerate(READERS):
        out = options.work / f"reader{number}"
        if Path(f"{out}.safetensors").is_file():
            continue
        torch.manual_seed(number)
        arguments = {"actions": OUTPUTS, "vocabulary": CHARACTERS, "visemes": (BLANK, *VISEMES[1:]), **build}
        reader = ActionReader(**arguments)
        reader.mean.copy_(mean)
        reader.scale.copy_(scale)
        speaker = Speaker(lexicon, scale, number)

        def losses(reader: ActionReader = reader, speaker: Speaker = speaker) -> dict[str, Tensor]:
            return reading_losses(reader, speaker.batch(16))

        train_averaged(
            reader, losses, seconds=options.reader_seconds, learning_rate=2.5e-3, average_decay=0.99,
            clip=[(reader.parameters(), 2.0)], log=lambda line: print(line, flush=True),
        )  # fmt: skip
        card = CARD.format(number=number, seconds=options.reader_seconds)
        save_expert(reader, out, "talkface.experts.action_reader.ActionReader", arguments, card)


def speech_of(options: argparse.Namespace) -> ArticulationEncoder:
    """The bundle's encoder, checked."""
    speech = load_bundle(options.bundle).part("speech")
    if not isinstance(speech, ArticulationEncoder) or list(speech.actions) != list(OUTPUTS):
        raise TalkfaceError(
            f"--bundle: the sound encoder of {options.bundle} ({type(speech).__name__}) does not tell the actions that "
            "train_speech.py teaches; give one with an ArticulationEncoder"
        )
    return speech.eval()


def sounds(options: argparse.Namespace) -> None:
    """`sounds.safetensors`: of each window, clean and through rooms, microphones and noise."""
    path = options.work / "sounds.safetensors"
    if path.is_file():
        return
    speech, windows = speech_of(options), Windows(options.cache, ("synthetic", "real"))
    head = TeacherHead(384, len(OUTPUTS)).eval()
    head.load_state_dict(load_file(options.cache / "head.safetensors"))
    label(windows, head)
    rows = np.flatnonzero(windows.exact).tolist() + np.flatnonzero(~windows.exact)[:: options.every].tolist()
    below: dict[str, list[Tensor]] = {"clean": [], "noisy": []}
    told: dict[str, list[Tensor]] = {"clean": [], "noisy": []}
    for number, row in enumerate(rows):
        sound = torch.from_numpy(windows.sound[row].astype(np.float32) / 32767).view(3, -1)
        actions = torch.from_numpy(windows.actions[row]).view(3, PIECE, -1)
        plain = ArticulationBatch(sound, actions, torch.zeros(3, PIECE, 1))
        rng, generator = np.random.default_rng([5, row]), torch.Generator().manual_seed(row)
        other = stretch(plain, float(rng.uniform(0.86, 1.0)), PIECE)
        heard, silent = augment_sound(other.sound, generator, hard_noise=True)
        while silent.any():  # what is silent teaches no reading
            heard, silent = augment_sound(other.sound, generator, hard_noise=True)
        for name, samples, batch in (("clean", sound, plain), ("noisy", heard, other)):
            with torch.autocast("cpu", torch.bfloat16):
                below[name].append(heard_below(speech, samples, options.cut).half())
            told[name].append(batch.actions.half())
        if number % 50 == 0:
            print(f"sounds {number}/{len(rows)}", flush=True)
    exact = torch.from_numpy(windows.exact[rows])
    kept = {f"below_{name}": torch.cat(parts) for name, parts in below.items()}
    kept |= {f"actions_{name}": torch.cat(parts) for name, parts in told.items()}
    save_file(kept | {"exact": exact.repeat_interleave(3)}, path)


def drawn(
    kept: dict[str, Tensor], top: LastBlocks, margin: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """16 crops, half of them of exact articulation: what is heard (16, CROP + 2 reach, C), actions (16, CROP, A)."""
    exact = kept["exact"].numpy()
    sides = [np.flatnonzero(exact), np.flatnonzero(~exact)]
    rows = np.concatenate([rng.choice(side if len(side) else sides[0], 8) for side in sides])
    heard, actions = [], []
    for row in rows.tolist():
        name, start = ("clean", "noisy")[rng.integers(2)], int(rng.integers(PIECE - CROP))
        first = margin + start - top.reach
        heard.append(kept[f"below_{name}"][row, first : first + CROP + 2 * top.reach])
        actions.append(kept[f"actions_{name}"][row, start : start + CROP])
    return torch.stack(heard).float(), torch.stack(actions).float()


def tune(options: argparse.Namespace) -> None:
    """`speech.safetensors`: the encoder with its last blocks taught."""
    out = options.work / "speech.safetensors"
    if out.is_file():
        return
    speech, kept = speech_of(options), load_file(options.work / "sounds.safetensors")
    reader = load_expert(options.work / "reader0.safetensors")
    mean, scale = reader.mean.clone(), reader.scale.clone()
    torch.manual_seed(options.seed)
    before = LastBlocks(speech, options.cut, mean, scale).eval().requires_grad_(False)
    top = LastBlocks(speech, options.cut, mean, scale)
    rng = np.random.default_rng(options.seed)

    def losses() -> dict[str, Tensor]:
        below, actions = drawn(kept, top, speech.reach, rng)
        return top.losses(
            below, actions, before, reader if options.reading else None, options.reading, options.keep
        )

    train_averaged(
        top, losses, seconds=options.seconds, learning_rate=options.learning_rate, average_decay=0.98,
        clip=[(top.parameters(), 1.0)], log=lambda line: print(line, flush=True),
    )  # fmt: skip
    top.put_into(speech)
    save_file({name: value.half().contiguous() for name, value in speech.state_dict().items()}, out)


def pack(options: argparse.Namespace) -> None:
    """The bundle with the taught encoder; its meta names the reader that guided it."""
    bundle = load_bundle(options.bundle)
    parts, guides = dict(bundle.parts), list(bundle.meta.get("guided_by", []))
    parts["speech"].load_state_dict(load_file(options.work / "speech.safetensors"))
    if options.reading:
        guides.append(fingerprint(load_expert(options.work / "reader0.safetensors")))
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    save_bundle(options.work / "bundle", parts, bundle.specs, card, bundle.meta | {"guided_by": guides})


def judge(options: argparse.Namespace) -> None:
    """`articulation.md`: what both readers read of exact actions and of what encoders tell, raw and as it is shown."""
    if options.corpus is None:
        raise TalkfaceError("--corpus: none; allowed: a synthetic corpus whose sounds are to be read")
    corpus = Corpus(options.corpus, options.split)
    both = [load_expert(options.work / f"reader{number}.safetensors") for number in range(len(READERS))]
    said = [as_said(corpus, clip) for clip in corpus]
    rows: dict[str, list[Tensor]] = {"exact": []}
    for clip in corpus:
        meta, count = corpus.read_meta(clip), round(clip.duration * 50)
        style = SpeakingStyle.sample(meta["plan"]["person_seed"])
        exact = speech_actions(meta["phonemes"], (np.arange(count) + 0.5) / 50, style)
        rows["exact"].append(torch.from_numpy(both_sides(exact)))
    for name in (options.bundle, options.work / "bundle"):
        bundle = load_bundle(name)
        speech, gain = bundle.part("speech"), float(bundle.meta.get("articulation_gain", 1.0))
        heard = [speech.encode_long(torch.from_numpy(corpus.read_audio(clip))) for clip in corpus]
        shown = [speech.amplified(one, gain) for one in heard]
        for what, features in (("", heard), (", shown", shown)):
            rows[f"{Path(name).name}{what}"] = [speech.to_actions(one, OUTPUTS) for one in features]
    cells = []
    for name, sequences in rows.items():
        rates = [error_rates([reader.read(one) for one in sequences], said) for reader in both]
        cells.append([name, *(f"{rate:.3f}" for pair in rates for rate in pair)])
    headings = ["actions", "CER (guide)", "viseme error (guide)", "CER (judge)", "viseme error (judge)"]
    save(options.work, "articulation", markdown(headings, cells), {"clips": len(said)})


STAGES = {"words": words, "readers": readers, "sounds": sounds, "tune": tune, "pack": pack, "judge": judge}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--cache", type=Path, required=True, help="folder that train_speech.py prepared")
    add("--work", type=Path, required=True, help="folder of everything in between; the bundle is WORK/bundle")
    add("--stage", choices=tuple(STAGES), nargs="*", default=[name for name in STAGES if name != "judge"])
    add("--bundle", default="default", help="what is taught")
    add("--corpus", type=Path, help="synthetic corpus, for `judge`")
    add("--split", default="val", choices=("val", "test"))
    add("--sentences", type=positive, default=3000, help="of each kind, whose words are learnt")
    add("--reader-seconds", type=float, default=130, help="training of a reader")
    add("--every", type=positive, default=3, help="one of so many windows of recordings")
    add("--cut", type=int, default=8, help="first block that is trained")
    add("--seconds", type=float, default=90, help="training of the encoder")
    add("--reading", type=float, default=2.0, help="weight of the reader; 0: a control without it")
    add("--keep", type=float, default=0.3, help="weight of staying near what was told before")
    add("--learning-rate", type=float, default=4e-4)
    add("--seed", type=int, default=3)
    add("--threads", type=int, default=0, help="of the processor; 0: all")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    run_stages(options, STAGES)
    return 0


if __name__ == "__main__":
    run("finetune_articulation", main)
