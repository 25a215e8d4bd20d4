"""The verbs `talkface data check | cache | show`: prepared corpora, on this machine or behind a URL."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkface.arguments import whole
from talkface.errors import TalkfaceError

if TYPE_CHECKING:
    from torch import nn

ENCODERS = ("articulation", "logmel", "wav2vec2", "phonemes")
WAV2VEC2 = "facebook/wav2vec2-base-960h"


def add_data(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs to the command line."""
    parser = verbs.add_parser(
        "data",
        help="look after prepared corpora: check, cache, show",
        description="Look after prepared corpora (a folder, or the URL of one).",
    )
    kinds = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    check = kinds.add_parser("check", help="is the corpus whole and right? exit code 1 if not")
    check.add_argument("corpus", metavar="CORPUS")
    check.add_argument("--sample", type=whole(1), metavar="N", help="read only N clips, evenly spread")
    check.add_argument("--debug", action="store_true", help="show tracebacks")
    check.set_defaults(run=_check)
    show = kinds.add_parser(
        "show", help="what one clip is: a table, and a picture of frames, landmarks, sound"
    )
    show.add_argument("corpus", metavar="CORPUS")
    show.add_argument("id", metavar="ID", help="of the clip")
    show.add_argument("--out", type=Path, metavar="PICTURE", help="default: ID.png in this folder")
    show.add_argument(
        "--frames", type=whole(1, 64), default=8, metavar="N", help="in the picture (default: 8)"
    )
    show.add_argument("--debug", action="store_true", help="show tracebacks")
    show.set_defaults(run=_show)
    _add_cache(kinds)


def _add_cache(kinds: argparse._SubParsersAction) -> None:
    parser = kinds.add_parser(
        "cache",
        help="compute latents and sound features once, so that training reads them",
        description="Compute latents and sound features once, beside the corpus. What is there is kept; an interrupted "
        "run goes on.",
    )
    add = parser.add_argument
    add("corpus", metavar="CORPUS")
    add("--latents", choices=("first_stage",), help="encode pictures with this part of the bundle")
    add(
        "--features",
        metavar="ENCODER|YAML",
        help=f"{', '.join(ENCODERS)}; or the encoder of a training configuration, with its settings",
    )
    add("--bundle", default="default", metavar="NAME|PATH", help="whose parts (default: default)")
    add("--weights", metavar="NAME|PATH", help=f"of wav2vec2 (default: {WAV2VEC2})")
    add("--image-size", type=whole(8, 4096), metavar="N", help="of latents (default: the first stage's)")
    add(
        "--alignment",
        choices=("none", "canonical"),
        default="none",
        help="of latents: frames whole, or faces by their landmarks (default: none)",
    )
    add("--mirror", action="store_true", help="also latents of mirrored pictures")
    add("--frames-per-clip", type=whole(1), default=1, metavar="N", help="of latents (default: 1)")
    add("--batch-size", type=whole(1, 4096), default=32, metavar="N", help="default: 32")
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps", help="default: auto")
    add("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=_cache)


def _check(options: argparse.Namespace) -> int:
    from talkface.data.checking import check_corpus

    corpus, rows = check_corpus(options.corpus, options.sample, progress=_bar("clips"))
    splits = [(name, sum(clip.split == name for clip in corpus)) for name in ("train", "val", "test")]
    subjects = len({clip.subject for clip in corpus})
    rates = ", ".join(f"{rate:.6g}" for rate in sorted({clip.fps for clip in corpus}))
    print(
        f"{options.corpus}: {corpus.info['name']}, {len(corpus)} clips of {subjects} subjects "
        f"({', '.join(f'{name} {count}' for name, count in splits if count)}), {corpus.image_size} pixels, {rates} fps"
    )
    print(f"{'check':<10}{'clips':>9}{'wrong':>8}  first")
    for row in rows:
        first = ": ".join(row.wrong[0]) if row.wrong else ("" if row.clips else "nothing to look at")
        print(f"{row.check:<10}{row.clips:>9}{len(row.wrong):>8}  {first}".rstrip())
    return int(any(row.wrong for row in rows))


def _show(options: argparse.Namespace) -> int:
    from talkface.data.base import Corpus
    from talkface.data.showing import describe_clip, draw_clip, find_clip
    from talkface.media import write_image

    corpus = Corpus(options.corpus, reading="ranges")
    clip = find_clip(corpus, options.id)
    out = options.out or Path(f"{clip.id}.png")
    rows = describe_clip(corpus, clip)
    write_image(
        out, draw_clip(corpus, clip, options.frames), {"corpus": corpus.info["name"], "clip": clip.id}
    )
    width = max(len(name) for name, _ in rows) + 2
    for name, value in [*rows, ("picture", str(out))]:
        print(f"{name:<{width}}{value}")
    return 0


def _cache(options: argparse.Namespace) -> int:
    if options.latents is None and options.features is None:
        raise TalkfaceError("data cache: nothing to do; give --latents first_stage, --features NAME, or both")
    if options.weights is not None and options.features != "wav2vec2":
        raise TalkfaceError(f"--weights: {options.weights}; allowed with --features wav2vec2")
    from talkface.data.base import Corpus
    from talkface.pipelines.device import choose_device

    corpus, device = Corpus(options.corpus), choose_device(options.device)
    if options.features is not None:
        from talkface.data.features import compute_features

        if not any(clip.has_audio for clip in corpus):
            raise TalkfaceError(f"--features: no clip of {options.corpus} has sound; leave it out")
        encoder = make_encoder(options.features, options.bundle, options.weights)
        print(f"features: {compute_features(corpus, encoder, device, _bar('clips'))}")
    if options.latents is not None:
        for folder in _encode(corpus, options, device):
            print(f"latents: {folder}")
    return 0


def _encode(corpus: Any, options: argparse.Namespace, device: Any) -> list[Path]:
    """Latents of the pictures that `EmotionDataModule(cache_latents=True)` would ask for, under the same key."""
    from functools import partial

    from talkface.checkpoint import load_bundle
    from talkface.data.labelled import LabelledPictures
    from talkface.data.latents import compute_latents

    first_stage = load_bundle(options.bundle, device, parts=["first_stage"]).part("first_stage")
    size = options.image_size or int(first_stage.image_size)
    data = LabelledPictures(
        corpus, image_size=size, alignment=options.alignment, frames_per_clip=options.frames_per_clip
    )
    folders = []
    for flipped in (False, True) if options.mirror else (False,):
        variant = f"{size}-{options.alignment}{'-mirrored' if flipped else ''}"
        read = partial(data.read, flipped=flipped)
        folders.append(
            compute_latents(
                corpus,
                data.pictures,
                read,
                first_stage,
                variant,
                device,
                options.batch_size,
                _bar("pictures"),
            )
        )
    return folders


def make_encoder(name: str, bundle: str = "default", weights: str | None = None) -> nn.Module:
    """A sound encoder by name, or the one that a YAML gives its data.

    Raises:
        TalkfaceError: unknown name, no such file, or a file without an encoder.
    """
    from talkface.checkpoint import instantiate, load_bundle
    from talkface.experts import speech

    if name.endswith((".yaml", ".yml")):
        from omegaconf import OmegaConf

        if not Path(name).is_file():
            raise TalkfaceError(f"--features: {name} does not exist; give a configuration that does")
        config: Any = OmegaConf.to_container(OmegaConf.load(name))
        data = config.get("data", {}) if isinstance(config, dict) else {}
        spec = (data.get("init_args") or {}).get("encoder") if isinstance(data, dict) else None
        if not spec:
            raise TalkfaceError(f"--features: {name} names no encoder (data.init_args.encoder); give another")
        return instantiate(spec)
    if name == "articulation":
        return load_bundle(bundle, parts=["speech"]).part("speech")
    if name == "logmel":
        return speech.LogMelEncoder()
    if name == "wav2vec2":
        return speech.Wav2Vec2Encoder(weights or WAV2VEC2)
    if name == "phonemes":
        return speech.PhonemePosteriorEncoder()
    raise TalkfaceError(f"--features: {name!r}; allowed {', '.join(ENCODERS)}, or a YAML with an encoder")


def _bar(what: str) -> Any:
    """A callback (done, total) that draws on a terminal and is silent elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        print(f"{done}/{total} {what}", end="\n" if done >= total else "\r", file=sys.stderr, flush=True)

    return show
