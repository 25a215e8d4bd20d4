"""Does a lip reader understand the films of a bundle? Films of held-out people dubbed with their own sound.

Every clip of a split is dubbed by each bundle, and a reader that guided none of them reads the mouths, cut by the exact
landmarks of the real film: character and viseme error, and the cosine distance of its front end's features to those of
the real film, which tells differences that a weak reader cannot spell. PSNR, SSIM and LPIPS are of the mouth. Rows
besides the bundles: the real film, the real film of the next clip (what a mouth that says something else scores),
the guide alone of the first bundle, and both it and the first bundle told the exact articulation instead of the sound:
the ceiling of all that draws and paints, which leaves what hearing costs.

    python scripts/evaluate_lips.py --corpus corpora/synth --judge reader1.safetensors --bundle default runs/lips/bundle
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from expert_lipreading import as_said, error_rates, read_all
from measuring import dictation, markdown, positive, run, save
from torch import Tensor

from talkface import TalkingFacePipeline
from talkface.data.base import ClipEntry, Corpus
from talkface.data.synthetic.visemes import SpeakingStyle, speech_actions
from talkface.errors import TalkfaceError
from talkface.experts.mouth_crop import mouth_crops
from talkface.experts.registry import check_judge, load_expert
from talkface.experts.vision import LPIPS
from talkface.media import Audio, exact_rate, to_tensor, write_image
from talkface.media.output import replacing
from talkface.pipelines.film_rows import write_lossless
from talkface.pipelines.film_scores import mouth_scores, mouth_squares
from talkface.portrait.sheet import sheet

Array = np.ndarray
REAL, OTHER, GUIDE = "real film", "next clip's mouth", "guide alone"
EXACT = ", exact articulation"
DRAWS = 2000


@dataclass
class Spoken:
    """A real film: frames uint8 (T, H, W, 3), landmarks (T, 68, 2), sound, (text, visemes) that are said, and what its
    speaker's mouth does for them, `exact` (times -> actions (N, 52))."""

    name: str
    frames: Array
    landmarks: Array
    sound: Audio
    fps: float
    said: tuple[str, str]
    exact: Callable[[Array], Array]


def read_clip(corpus: Corpus, clip: ClipEntry) -> Spoken:
    """A clip of the corpus as a film."""
    frames = np.stack([corpus.read_frame(clip, number) for number in range(clip.num_frames)])
    landmarks = corpus.read_truth(clip, ("landmarks",))["landmarks"]
    sound = Audio(corpus.read_audio(clip), corpus.sample_rate)
    meta = corpus.read_meta(clip)
    style = SpeakingStyle.sample(meta["plan"]["person_seed"])
    exact = partial(speech_actions, meta["phonemes"], style=style)
    return Spoken(clip.id, frames, landmarks, sound, clip.fps, as_said(corpus, clip), exact)


@contextmanager
def told(pipeline: Any, film: Spoken) -> Iterator[None]:
    """Inside, the pipeline is told what the speaker's mouth does, in its own encoder's features, whatever it hears."""
    rate = pipeline.speech.feature_rate
    count = pipeline.speech.num_features(len(film.sound.samples))
    features = dictation(pipeline.speech, film.exact((np.arange(count) + 0.5) / rate), rate)
    pipeline.hear = lambda sound, speech=None: features
    try:
        yield
    finally:
        del pipeline.hear


def dub(pipeline: Any, film: Spoken, guide: str | None, seed: int, exact: bool = False) -> Array:
    """The film dubbed with its own sound, or the `exact` articulation; uint8 like its frames. Frames beyond the sound
    stay as they are."""
    with tempfile.TemporaryDirectory() as folder, told(pipeline, film) if exact else nullcontext():
        path = Path(folder) / "film.mkv"
        write_lossless(path, film.frames, exact_rate(film.fps))
        with pipeline(film.sound, film=path, guide=guide, seed=seed).frames() as frames:
            made = np.stack(list(frames))[: len(film.frames)]
    return np.concatenate([made, film.frames[len(made) :]])


def fingerprint(pipeline: Any) -> str:
    """Of all weights and settings of a pipeline's bundle."""
    return hashlib.sha256((pipeline.bundle.folder / "bundle.json").read_bytes()).hexdigest()[:12]


def kept(
    folder: Path, pipeline: Any, film: Spoken, guide: str | None, seed: int, exact: bool = False
) -> Array:
    """`dub`, or what it made the last time with the same bundle."""
    names = [film.name, guide or "default", *(["exact"] if exact else []), fingerprint(pipeline), str(seed)]
    path = folder / f"{'-'.join(names)}.npy"
    if path.is_file():
        return np.load(path)
    made = dub(pipeline, film, guide, seed, exact)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, made)
    return made


def mouths(frames: Array, landmarks: Array) -> Tensor:
    """(T, 1, 88, 88) in [0, 1], cut by the exact landmarks."""
    return mouth_crops(to_tensor(frames)[None], torch.from_numpy(landmarks)[None])[0]


@torch.no_grad()
def look(judge: Any, film: Tensor) -> Tensor:
    """(T, D): what the judge's front end sees in mouths (T, 1, 88, 88)."""
    return judge.frame_features(film[None])[0]


def distance(made: Tensor, real: Tensor) -> float:
    """Mean over frames of 1 - cosine of two films' features, as long as both last."""
    count = min(len(made), len(real))
    return float((1.0 - torch.cosine_similarity(made[:count], real[:count], dim=1)).mean())


def edits(found: list[tuple[str, str]], said: list[tuple[str, str]]) -> Array:
    """(clips, 2): characters and visemes that are wrong in each clip."""
    rates = [error_rates([one], [true]) for one, true in zip(found, said, strict=True)]
    return np.array(rates) * lengths(said)


def lengths(said: list[tuple[str, str]]) -> Array:
    """(clips, 2): characters and visemes that are said in each clip."""
    return np.array([(len(text), len(visemes.split())) for text, visemes in said], float)


def change(before: Array, after: Array) -> tuple[float, float, float]:
    """Relative change of a pooled error, and its 95 % interval over clips, drawn in pairs."""
    places = np.random.default_rng(0).integers(len(before), size=(DRAWS, len(before)))
    drawn = after[places].sum(1) / np.maximum(before[places].sum(1), 1e-9) - 1
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(after.sum() / max(before.sum(), 1e-9) - 1), float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="synthetic corpus of 25 frames a second")
    add("--split", default="test", choices=("val", "test"))
    add("--clips", type=positive, default=10**6, help="of the split")
    add("--judge", type=Path, required=True, help="the lip reader that judges")
    add(
        "--bundle",
        nargs="+",
        default=["default"],
        help="names or folders; the first is compared with the others",
    )
    add("--lpips-backbone", type=Path, help="AlexNet weights; without them there is no LPIPS")
    add("--allow-same-expert", action="store_true", help="let a reader judge what it guided")
    add("--out", type=Path, default=Path("runs/lips"))
    add("--device", default="auto")
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    judge = load_expert(options.judge)
    pipelines = {}
    for name in options.bundle:
        pipeline = TalkingFacePipeline.from_pretrained(name, options.device)
        check_judge(judge, pipeline.bundle.meta.get("guided_by", []), options.allow_same_expert)
        pipelines[name] = pipeline
    corpus = Corpus(options.corpus, options.split)
    films = [read_clip(corpus, clip) for clip in list(corpus)[: options.clips]]
    if len(films) < 2:
        raise TalkfaceError(f"--clips: {len(films)}; allowed: 2 or more")
    perceptual = LPIPS("alex", options.lpips_backbone) if options.lpips_backbone else None
    said = [film.said for film in films]
    first = pipelines[options.bundle[0]]
    rows: dict[str, list[Array]] = {REAL: [film.frames for film in films]}
    folder = options.out / "films"
    rows[GUIDE] = [kept(folder, first, film, "warp", options.seed) for film in films]
    rows[GUIDE + EXACT] = [kept(folder, first, film, "warp", options.seed, exact=True) for film in films]
    for name, pipeline in pipelines.items():
        rows[name] = [kept(folder, pipeline, film, None, options.seed) for film in films]
    ceiling = options.bundle[0] + EXACT
    rows[ceiling] = [kept(folder, first, film, None, options.seed, exact=True) for film in films]
    results: dict[str, Any] = {}
    seen: list[Tensor] = []
    for name, made in rows.items():
        cut = [mouths(frames, film.landmarks) for frames, film in zip(made, films, strict=True)]
        found = read_all(judge, cut)
        looks = [look(judge, film) for film in cut]
        seen = seen or looks
        scores = [
            mouth_scores(
                frames, film.frames, mouth_squares(film.landmarks, *film.frames.shape[1:3]), perceptual
            )
            for frames, film in zip(made, films, strict=True)
        ]
        away = [distance(a, b) for a, b in zip(looks, seen, strict=True)]
        results[name] = {"edits": edits(found, said), "read": found, "scores": scores, "distance": away}
        if name == REAL:
            away = [distance(a, b) for a, b in zip(looks[1:] + looks[:1], seen, strict=True)]
            wrong = edits(found[1:] + found[:1], said)
            results[OTHER] = {"edits": wrong, "read": [], "scores": [], "distance": away}
    options.out.mkdir(parents=True, exist_ok=True)
    write_image(options.out / "lips.png", picture(films, rows, list(pipelines)))
    save(
        options.out,
        "lips",
        table(results, said, options.bundle),
        {"clips": [f.name for f in films], **results},
    )
    return 0


def table(results: dict[str, Any], said: list[tuple[str, str]], bundles: list[str]) -> str:
    """A row each, then what the other bundles change about the first."""
    total = lengths(said).sum(0)
    cells = []
    for name, result in results.items():
        rates = [f"{rate:.3f}" for rate in result["edits"].sum(0) / total]
        means = []
        for score, form in (("psnr", "{:.2f}"), ("ssim", "{:.3f}"), ("lpips", "{:.4f}")):
            values = [one[score] for one in result["scores"] if score in one and np.isfinite(one[score])]
            means.append(form.format(np.mean(values)) if values else "–")
        cells.append([name, *rates, f"{np.mean(result['distance']):.4f}", *means])
    headings = ["row", "CER", "viseme error", "distance", "PSNR", "SSIM", "LPIPS"]
    lines = [markdown(headings, cells), ""]
    before = results[bundles[0]]["edits"]
    for name in bundles[1:]:
        for column, what in enumerate(("characters", "visemes")):
            rate, low, high = change(before[:, column], results[name]["edits"][:, column])
            lines.append(
                f"Wrong {what}, {name} against {bundles[0]}: {rate:+.1%} "
                f"(95 % interval {low:+.1%} to {high:+.1%})."
            )
        away = (np.array(results[one]["distance"]) for one in (bundles[0], name))
        rate, low, high = change(*away)
        lines.append(f"Distance, {name} against {bundles[0]}: {rate:+.1%} ({low:+.1%} to {high:+.1%}).")
    return "\n".join(lines)


def picture(films: list[Spoken], rows: dict[str, list[Array]], bundles: list[str], count: int = 8) -> Array:
    """Mouths of two clips: the real film, the guide, each bundle; evenly spaced frames."""
    drawn, names = [], []
    for number in (0, len(films) // 2):
        film = films[number]
        squares = mouth_squares(film.landmarks, *film.frames.shape[1:3])
        chosen = np.linspace(2, len(film.frames) - 3, count).round().astype(int)
        for name in (REAL, GUIDE, *bundles):
            parts = [
                rows[name][number][k, top:bottom, left:right]
                for k, (left, top, right, bottom) in zip(chosen, squares[chosen], strict=True)
            ]
            drawn.append([np.repeat(np.repeat(part, 2, 0), 2, 1) for part in parts])
            names.append(Path(name).name)
    return sheet(drawn, names, cell=128)


if __name__ == "__main__":
    run("evaluate_lips", main)
