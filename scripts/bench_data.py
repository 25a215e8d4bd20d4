"""How fast corpora are read and made: against films and folders of JPEG files, and what feeds a training step.

    python scripts/bench_data.py --films FOLDER                 # everything
    python scripts/bench_data.py --films FOLDER --only reading

Times are processor time of one thread in one process, and the ways of reading take turns, so that other work on the
machine falls on all of them; files are in the page cache. For reading, every film is stored four times: as an H.264 mp4
of its own size and of 1920 x 1080 (as MEAD's), as a folder of JPEG files, and as a corpus with the same JPEG bytes. A
film is read as loaders without a preparation do: seek to the keyframe before, decode up to the frame, cut the
square, reduce it.

Preparation runs the real sources in this process under a profiler that counts processor time; a step is what its
functions take together, whatever calls them.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from talkface.checkpoint import instantiate
from talkface.data import Clip, Corpus, CorpusWriter
from talkface.data.features import FeatureStore, compute_features
from talkface.data.labelled import LabelledPictures
from talkface.data.prepare.run import FinderChoice, Preparation, plan_shards
from talkface.data.prepare.source import Source
from talkface.data.talking import TalkingDataset
from talkface.data.writer import encode_jpeg
from talkface.experts.speech import LogMelEncoder
from talkface.media import VideoReader, VideoWriter, read_audio

ROOT = Path(__file__).resolve().parents[1]
SIZE = 128
SEQUENCE = 16
PARTS = ("reading", "preparation", "feeding")
# peak of dense bfloat16 (NVIDIA's data sheets) and the share of it that large trainings reach
DEVICES = {"A100": 312e12, "H100": 989e12}
REACHED = 0.4


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--films", required=True, type=Path, help="folder of talking films")
    parser.add_argument("--only", choices=PARTS, help="one of the parts")
    parser.add_argument("--rounds", type=int, default=5, help="the median is taken (default: 5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of every measurement (default: 0.5)")
    return parser.parse_args(argv)


def square(frame: np.ndarray) -> np.ndarray:
    """The middle square of a frame at the corpus' size."""
    side = min(frame.shape[:2])
    top, left = ((length - side) // 2 for length in frame.shape[:2])
    part = frame[top : top + side, left : left + side]
    return np.asarray(cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)


def store(films: list[Path], folder: Path) -> Corpus:
    """Each film as mp4 (twice), as JPEG files and as a clip."""
    corpus = folder / "corpus"
    writer = CorpusWriter(corpus, name="films", licence="theirs", source="bench", fps=25, image_size=SIZE)
    for name in ("own", "1080p"):
        (folder / name).mkdir()
    points = np.random.default_rng(0).uniform(0.3, 0.7, (68, 2)) * SIZE
    points[36:42], points[42:48], points[31:36] = (46, 52), (82, 52), (64, 74)
    with writer.shard("train-0") as shard:
        for number, path in enumerate(films):
            frames = list(VideoReader(path))
            for name in ("own", "1080p"):
                with VideoWriter(folder / name / f"{number}.mp4", Fraction(25)) as film:
                    for frame in frames:
                        large = name == "1080p"
                        film.write(cv2.resize(frame, (1920, 1080)) if large else frame)
            data = [encode_jpeg(square(frame), 95) for frame in frames]
            (folder / "jpegs" / str(number)).mkdir(parents=True)
            for k, jpeg in enumerate(data):
                (folder / "jpegs" / str(number) / f"{k:05d}.jpg").write_bytes(jpeg)
            sound = read_audio(path, 16000).samples[: len(frames) * 640]
            truth = {"landmarks": np.repeat(points[None], len(frames), 0).astype(np.float32)}
            shard.add(Clip(str(number), "train", str(number), data, sound, truth, emotion=number % 8))
    writer.finish(["train-0"])
    return Corpus(corpus)


def read_film(path: Path, first: int, count: int) -> list[np.ndarray]:
    """Frames [first, first + count) of an mp4, as a loader without a preparation reads them."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        assert stream.time_base is not None and stream.average_rate is not None
        step = 1 / (stream.time_base * stream.average_rate)
        file.seek(int(first * step), stream=stream)
        frames = []
        for frame in file.decode(stream):
            if frame.pts is not None and frame.pts >= int(first * step):
                frames.append(square(frame.to_ndarray(format="rgb24")))
            if len(frames) == count:
                break
        return frames


def read_jpegs(folder: Path, first: int, count: int) -> list[np.ndarray]:
    files = [folder / f"{k:05d}.jpg" for k in range(first, first + count)]
    return [cv2.cvtColor(np.asarray(cv2.imread(str(file))), cv2.COLOR_BGR2RGB) for file in files]


def rate(act: Callable[[np.random.Generator], Any], seconds: float, seed: int) -> float:
    """Calls per second of processor time, of at least 3 calls."""
    rng = np.random.default_rng(seed)
    start, calls = time.process_time(), 0
    while calls < 3 or time.process_time() - start < seconds:
        act(rng)
        calls += 1
    return calls / (time.process_time() - start)


def compare(
    ways: Mapping[str, Callable[[np.random.Generator], Any]], options: argparse.Namespace
) -> dict[str, float]:
    """Median rate of every way, taken in turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds):
        for name, act in ways.items():
            found[name].append(rate(act, options.seconds, number))
    return {name: median(rates) for name, rates in found.items()}


def bench_reading(films: list[Path], folder: Path, options: argparse.Namespace) -> None:
    corpus = store(films, folder)

    for number, clip in enumerate(corpus):
        pairs = zip(read_film(folder / "own" / f"{number}.mp4", 30, 3), range(30, 33), strict=True)
        for frame, k in pairs:  # the same frame, but for what H.264 and JPEG lose
            assert np.abs(frame.astype(float) - corpus.read_frame(clip, k)).mean() < 6

    def draw(rng: np.random.Generator, count: int) -> tuple[int, int]:
        number = int(rng.integers(len(corpus)))
        return number, int(rng.integers(corpus.clips[number].num_frames - count + 1))

    def of_corpus(number: int, first: int, count: int) -> list[np.ndarray]:
        return [corpus.read_frame(corpus.clips[number], k) for k in range(first, first + count)]

    readers: dict[str, Callable[[int, int, int], list[np.ndarray]]] = {
        "corpus": of_corpus,
        "folder of JPEG files": lambda n, k, c: read_jpegs(folder / "jpegs" / str(n), k, c),
        "mp4, own size": lambda n, k, c: read_film(folder / "own" / f"{n}.mp4", k, c),
        "mp4, 1920 x 1080": lambda n, k, c: read_film(folder / "1080p" / f"{n}.mp4", k, c),
    }
    rates: dict[int, dict[str, float]] = {}
    for count in (1, SEQUENCE):
        ways = {
            name: (lambda rng, read=read, count=count: read(*draw(rng, count), count))
            for name, read in readers.items()
        }
        rates[count] = compare(ways, options)
    print(f"| stored as | random frames / s | times the mp4 | sequences of {SEQUENCE} / s | times the mp4 |")
    print("|---|---|---|---|---|")
    for name in readers:
        columns = [
            f"{rates[c][name]:.0f} | {rates[c][name] / rates[c]['mp4, own size']:.1f}" for c in (1, SEQUENCE)
        ]
        print(f"| {name} | {' | '.join(columns)} |")


PICTURE_STEPS = {
    "reading and decoding": ("read_image",),
    "finding faces": ("all_faces", "face_in_box"),
    "cutting": ("cut_face",),
    "JPEG": ("encode_jpeg",),
    "writing": ("add", "__exit__"),
}
FILM_STEPS = {
    "decoding, twice": ("pictures",),
    "scene cuts": ("find_cuts",),
    "finding and tracking": ("find", "track"),
    "cutting": ("from_matrix",),
    "JPEG": ("encode_jpeg",),
    "sound": ("cut_sound", "read_audio"),
    "quality": ("picture_quality",),
    "writing": ("add",),
}


def profile(
    source: Source, folder: Path, steps: dict[str, tuple[str, ...]]
) -> tuple[float, int, dict[str, float]]:
    """Seconds, clips, and the share of each step."""
    finder = FinderChoice() if source.needs_finder else None
    CorpusWriter(
        folder, name="b", licence="b", source="b", fps=source.fps, image_size=source.image_size, config={}
    )
    job = Preparation(source, folder, finder)
    shards = plan_shards(source)
    name, items = next(iter(shards.items()))
    job(f"{name}-warm", items[:1], lambda count: None)  # loads networks
    profiler = cProfile.Profile(time.process_time)
    start = time.process_time()
    profiler.enable()
    for name, items in shards.items():
        job(name, items, lambda count: None)
    profiler.disable()
    seconds = time.process_time() - start
    clips = sum(len(json.loads((folder / "parts" / f"{name}.json").read_text())["clips"]) for name in shards)
    # `stats` is documented in pstats' own source alone, so the type stubs do not have it
    table: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    spent = {
        step: sum(
            row[3] for (file, _, called), row in table.items() if called in names and "talkface" in file
        )
        for step, names in steps.items()
    }
    return seconds, clips, {step: value / seconds for step, value in spent.items()}


def bench_preparation(films: list[Path], folder: Path) -> None:
    from talkface.data.prepare.celeba import CelebASource
    from talkface.data.prepare.films import Films
    from talkface.data.prepare.pictures import PicturesRecipe, PicturesSource

    raw, frames = folder / "raw", folder / "pictures"
    raw.mkdir()
    frames.mkdir()
    for number, path in enumerate(films):
        shutil.copy(path, raw / f"{number}{path.suffix}")
        for k, frame in enumerate(VideoReader(path)):
            if k % 5 == 0:
                (frames / f"{number}-{k}.jpg").write_bytes(encode_jpeg(frame, 95))
    aligned = folder / "celeba"
    (aligned / "img_align_celeba").mkdir(parents=True)
    rows = []
    for k, path in enumerate(sorted(frames.iterdir())):
        name = f"{k + 1:06d}.jpg"
        picture = cv2.resize(np.asarray(cv2.imread(str(path))), (178, 218))
        cv2.imwrite(str(aligned / "img_align_celeba" / name), picture)
        rows.append(name)
    (aligned / "list_eval_partition.txt").write_text("".join(f"{name} 0\n" for name in rows))
    (aligned / "list_attr_celeba.txt").write_text("Bald\n" + "".join(f"{name} 1\n" for name in rows))
    pictures = PicturesSource(frames, PicturesRecipe(size=SIZE, subjects="file"))
    sources: list[tuple[str, Any, dict[str, tuple[str, ...]]]] = [
        ("films (`films.py`)", Films(raw), FILM_STEPS),
        ("pictures (`pictures.py`)", pictures, PICTURE_STEPS),
        ("CelebA (`celeba.py`)", CelebASource(aligned), PICTURE_STEPS),
    ]
    for title, source, steps in sources:
        out = folder / f"out-{title.partition(' ')[0]}"
        seconds, clips, shares = profile(source, out, steps)
        if not clips:
            print(f"{title}: nothing was usable", file=sys.stderr)
            continue
        told = ", ".join(f"{step} {share:.0%}" for step, share in shares.items())
        rest = 1 - sum(shares.values())
        count = sum(clip["num_frames"] for clip in read_parts(out))
        print(
            f"| {title} | {clips} | {clips / seconds:.2f} | {count / seconds:.1f} | {told}, all else {rest:.0%} |"
        )


def read_parts(folder: Path) -> list[dict[str, Any]]:
    parts = [path for path in (folder / "parts").glob("*.json") if "-warm" not in path.name]
    return [clip for path in parts for clip in json.loads(path.read_text()).get("clips", [])]


def step_operations(config: str) -> float:
    """Floating-point operations of one training step for one item: encoding, network forwards and backwards."""
    from omegaconf import OmegaConf

    from talkface.conditioning.base import Conditioning

    told: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / config))
    arguments = told["model"]["init_args"]

    def made(part: str, side: int) -> Any:
        spec = arguments[part]
        return instantiate(spec | {"init_args": spec["init_args"] | {"image_size": side}})

    spec = arguments["network"]
    with torch.device("meta"):
        stage, network = made("first_stage", SIZE), made("network", SIZE // 4)
        channels, width = spec["init_args"]["in_channels"], spec["init_args"]["context_dim"]
        pictures = channels // 3  # the target, and what else is concatenated
        with torch.no_grad(), FlopCounterMode(display=False) as encoding:
            stage.encode(torch.zeros(1, 3, SIZE, SIZE))
        with FlopCounterMode(display=False) as forward:
            network(
                torch.zeros(1, channels, SIZE // 4, SIZE // 4),
                torch.zeros(1, dtype=torch.long),
                Conditioning(context=torch.zeros(1, 1, width)),
            )
    # backwards costs twice what forwards does
    return pictures * encoding.get_total_flops() + 3.0 * forward.get_total_flops()


def bench_feeding(films: list[Path], folder: Path, options: argparse.Namespace) -> None:
    corpus = Corpus(folder / "corpus") if (folder / "corpus").is_dir() else store(films, folder)
    features = FeatureStore(compute_features(corpus, LogMelEncoder()))
    plain: dict[str, Any] = {"image_size": SIZE, "window": 8}
    paper = TalkingDataset(
        corpus, features, alignment="none", mask_kind="thesis", reference="thesis", **plain
    )
    ours = TalkingDataset(corpus, features, alignment="canonical", jitter=1.0, photometric=1.0, **plain)
    labelled = LabelledPictures(corpus, image_size=SIZE, frames_per_clip=75)
    ways: dict[str, tuple[Any, str]] = {
        "talking pairs of the paper (`talking_mead.yaml`)": (paper, "talking_mead.yaml"),
        "talking pairs, aligned and augmented": (ours, "talking_mead.yaml"),
        "labelled pictures (`ldm_affectnet.yaml`)": (labelled, "ldm_affectnet.yaml"),
    }

    def take(data: Any, rng: np.random.Generator) -> None:
        data[int(rng.integers(10**6))]

    rates = compare({name: partial(take, data) for name, (data, _) in ways.items()}, options)
    names = " | ".join(f"{name} takes / s" for name in DEVICES)
    print(f"| items | one process / s | 8 workers / s | operations of a step | {names} |")
    print("|---|---|---|---|---|---|")
    for name, (_, config) in ways.items():
        operations = step_operations(config)
        needs = " | ".join(f"{peak * REACHED / operations:.0f}" for peak in DEVICES.values())
        print(f"| {name} | {rates[name]:.0f} | {8 * rates[name]:.0f} | {operations / 1e9:.0f} G | {needs} |")


def main(argv: list[str] | None = None) -> None:
    """Print tables for `docs/benchmarks.md`."""
    options = parse(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    films = sorted(
        p for p in options.films.iterdir() if p.suffix.lower() in (".mp4", ".mpg", ".avi", ".mov", ".mkv")
    )
    parts = PARTS if options.only is None else (options.only,)
    with tempfile.TemporaryDirectory() as folder:
        if "reading" in parts:
            bench_reading(films, Path(folder), options)
            print()
        if "preparation" in parts:
            print("| set | clips | clips / s | frames / s | processor time |\n|---|---|---|---|---|")
            bench_preparation(films, Path(folder))
            print()
        if "feeding" in parts:
            bench_feeding(films, Path(folder), options)


if __name__ == "__main__":
    main()
