"""Does noise move the mouth? The same speech clean and with noise, said by the same photographs.

Noise is added at --snr dB below the mean power of the speech: pink (equal power in each octave), and babble (the other
sounds of the folder, one over the other). Sound k is said by photograph k, each in turn until all of both were used.
Compared with the clean sound, frame by frame and without any lag: how far the sound encoder opens the jaw, and how far
MediaPipe sees jaw and lips open in the films, in which nothing else moves. Films, and a contact sheet of each
photograph, are there to be looked at.

    python scripts/evaluate_noise.py astronaut FILE... --speech FOLDER --task face_landmarker.task --out runs/noise
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluate_actions import face_tile
from long_film import RATE, write_wav
from measuring import cell, files_in, judged, markdown, mean_cell, read_face, run, save

from talkface.conditioning.audio import interpolate_features
from talkface.errors import TalkfaceError
from talkface.experts.judges import MediaPipeJudge, relative_gap
from talkface.media import Audio, VideoWriter, read_audio, write_image
from talkface.metrics.articulation import amplitude_ratio, correlation

SOUNDS = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"}
FPS = 25.0
SHOWN = 7  # frames of each film on the contact sheet
Array = np.ndarray


def pink_noise(count: int, random: np.random.Generator) -> Array:
    """float32 (count,) of unit power: power falls as 1 / frequency, from 1 / count of the rate up."""
    spectrum = np.fft.rfft(random.standard_normal(count))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, count)
    return (noise / noise.std()).astype(np.float32)


def babble(count: int, others: list[Array], random: np.random.Generator) -> Array:
    """float32 (count,) of unit power: every other speaker twice, each repeated from a random place, equally loud."""
    total = np.zeros(count)
    for voice in [*others, *others]:
        start = int(random.integers(len(voice)))
        total += np.resize(np.roll(voice, -start), count) / max(float(voice.std()), 1e-6)
    return (total / max(float(total.std()), 1e-6)).astype(np.float32)


def mix(speech: Array, noise: Array, snr: float) -> Array:
    """Speech with noise whose power is `snr` dB below the speech's mean power; scaled down if it would clip."""
    level = float(speech.std()) * 10 ** (-snr / 20) / float(noise.std())
    mixed = speech + level * noise
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def jaw_curve(pipeline: Any, sound: Audio) -> Array:
    """jawOpen (T,) that the encoder tells for each frame.

    Raises:
        TalkfaceError: it does not tell actions.
    """
    speech = pipeline.speech
    if not hasattr(speech, "to_actions"):
        raise TalkfaceError(
            f"--bundle: its sound encoder ({type(speech).__name__}) does not tell facial actions; "
            "give a bundle with an ArticulationEncoder"
        )
    times = (torch.arange(round(sound.duration * FPS), dtype=torch.float64) + 0.5) / FPS
    with torch.inference_mode():
        wanted = interpolate_features(pipeline.hear(sound), speech.feature_rate, times)
        return speech.to_actions(wanted.to(speech.mean), ["jawOpen"])[:, 0].cpu().numpy()


def make(pipeline: Any, sound: Audio, picture: Array, wav: Path, options: argparse.Namespace) -> list[Array]:
    """The film of one sound: its frames; also written beside its sound."""
    call = pipeline(
        sound, image=picture, guide=options.guide, motion=options.motion, seed=options.seed, fps=FPS
    )
    with (
        call.frames() as frames,
        VideoWriter(wav.with_suffix(".mp4"), call.fps, audio_path=wav) as writer,
    ):
        kept = []
        for frame in frames:
            writer.write(frame)
            kept.append(frame)
    return kept


COLUMNS = {
    "jaw correlation": "jaw of the encoder",
    "jaw amplitude": "its amplitude ratio",
    "film correlation": "jaw of the films",
    "film amplitude": "its amplitude ratio",
    "gap correlation": "lip gap of the films",
    "gap amplitude": "its amplitude ratio",
}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each sound and noise, then the means."""
    keys = [key for key in COLUMNS if key in rows[0]]
    lines = [
        [row["sound"], row.get("picture", "–"), row["noise"], *(cell(row[key]) for key in keys)]
        for row in rows
    ]
    for noise in dict.fromkeys(row["noise"] for row in rows):
        means = [mean_cell([row[key] for row in rows if row["noise"] == noise]) for key in keys]
        lines.append(["**mean**", "", noise, *means])
    text = markdown(["sound", "photograph", "noise", *(COLUMNS[key] for key in keys)], lines)
    missing = sum(row.get("missing", 0) for row in rows)
    return f"{text}\n\nFrames in which the judge found no face: {missing}." if "missing" in rows[0] else text


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("faces", nargs="+", help="picture files, films (their first frame), or the word astronaut")
    add("--speech", type=Path, required=True, help="folder of at least 2 sounds of clean speech")
    judged(parser)
    add("--snr", type=float, default=10.0, help="dB (default: 10)")
    add("--guide", choices=["none", "warp", "refined"], help="default: the bundle's")
    add("--motion", default="none", choices=["none", "subtle", "lively"], help="of the head (default: none)")
    add("--noise", nargs="+", default=["pink", "babble"], choices=["pink", "babble"])
    add("--seconds", type=float, default=60.0, help="longest part of each sound (default: 60)")
    add("--no-films", action="store_true", help="ask the sound encoder only, which is quick")
    add("--out", type=Path, default=Path("runs/noise"), help="sounds, films, contact sheets, table")
    return parser.parse_args(argv)


def noisy(
    voices: list[Array], number: int, kinds: list[str], snr: float, random: np.random.Generator
) -> dict[str, Array]:
    """One of the voices, clean and with each kind of noise."""
    voice, others = voices[number], voices[:number] + voices[number + 1 :]
    noises = {"pink": pink_noise(len(voice), random), "babble": babble(len(voice), others, random)}
    return {"clean": voice, **{name: mix(voice, noises[name], snr) for name in kinds}}


def compare(curves: dict[str, Array], noise: str, name: str) -> dict[str, float]:
    """How one curve of the noisy sound follows that of the clean one."""
    clean, made = curves["clean"], curves[noise]
    return {
        f"{name} correlation": correlation(clean, made, 0)[0],
        f"{name} amplitude": amplitude_ratio(clean, made),
    }


def main(argv: list[str] | None = None) -> int:
    from talkface import TalkingFacePipeline

    options = parse(argv)
    paths = files_in(options.speech, SOUNDS, "--speech", least=2)
    faces = [read_face(name) for name in options.faces]
    pipeline = TalkingFacePipeline.from_pretrained(options.bundle, options.device, options.precision)
    voices = [read_audio(path, RATE).samples[: round(options.seconds * RATE)] for path in paths]
    random = np.random.default_rng(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    sheets = []
    with MediaPipeJudge(options.task) as judge:
        for k in range(max(len(paths), len(faces))):
            path, (name, picture) = paths[k % len(paths)], faces[k % len(faces)]
            before = judge.landmarks(picture)
            if before is None:
                raise TalkfaceError(f"{name}: MediaPipe finds no face in this photograph; give another")
            gaps, films, jaws, strips = {}, {}, {}, []
            kinds = noisy(voices, k % len(paths), options.noise, options.snr, random)
            for noise, samples in kinds.items():
                jaws[noise] = jaw_curve(pipeline, Audio(samples, RATE))
                if options.no_films:
                    continue
                wav = options.out / f"{path.stem}_{name}_{noise}.wav"
                write_wav(wav, samples)
                frames = make(pipeline, Audio(samples, RATE), picture, wav, options)
                seen = [judge.face(frame) for frame in frames]
                gaps[noise] = np.array([np.nan if x is None else relative_gap(x.points) for x in seen])
                films[noise] = np.array([np.nan if x is None else x.scores["jawOpen"] for x in seen])
                chosen = np.linspace(0, len(frames) - 1, SHOWN + 2).round().astype(int)[1:-1]
                strips.append(np.hstack([face_tile(frames[n], before) for n in chosen]))
                print(f"{path.stem}: {noise}", file=sys.stderr)
            for noise in options.noise:
                row = {
                    "sound": path.stem,
                    "noise": f"{noise}, {options.snr:g} dB",
                    **compare(jaws, noise, "jaw"),
                }
                if gaps:
                    missing = int(np.isnan(gaps[noise]).sum())
                    row |= {
                        "picture": name,
                        **compare(films, noise, "film"),
                        **compare(gaps, noise, "gap"),
                        "missing": missing,
                        "curves": gaps,
                    }
                rows.append(row)
            if strips:
                sheets.append(np.vstack(strips))
                write_image(options.out / "noise.jpg", np.vstack(sheets), quality=85)
    save(options.out, "noise", table(rows), {"bundle": options.bundle, "snr": options.snr, "rows": rows})
    return 0


if __name__ == "__main__":
    run("evaluate_noise", main)
