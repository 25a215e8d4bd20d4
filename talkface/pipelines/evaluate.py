"""`talkface evaluate-video`: how good are the films of a bundle on the held-out clips of a corpus?

Every clip's own film is dubbed with its own sound (the network sees the upper face of each frame, as in the
thesis), and the result is compared with the film. The rows around it make the numbers readable:

    real             the film itself: what the landmark finder alone loses
    first_stage      the face through encoder and decoder: the ceiling of any latent diffusion model
    windowed, autoregressive   ours
    still            the lower face of the first frame on every frame: what moving the mouth must beat
    shuffled         windowed, with the next clip's sound: a model that listens must do worse
    silence          windowed, with no sound

and, when asked for: `warp` (the guides themselves, no network), `unguided` (the network alone).

Means over clips with 95 % bootstrap intervals. Results are kept per clip: an interrupted run continues. How
the films are made: `film_rows`; what is measured on one: `film_scores`. Words, identity and FID are not
measured here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from math import isfinite, nan
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from talkface.errors import TalkfaceError
from talkface.media import VideoWriter
from talkface.metrics.interval import bootstrap_interval
from talkface.pipelines.film_rows import GUIDE_ROWS, ROWS, choose_clips, make_row, read_clip
from talkface.pipelines.film_scores import Perceptual, RealClip, score_film, sync_scores, track_landmarks
from talkface.portrait.tracking import FaceTracker

COLUMNS = {
    "psnr": ("mouth PSNR (dB)", "{:.2f}"),
    "ssim": ("mouth SSIM", "{:.3f}"),
    "lpips": ("mouth LPIPS", "{:.3f}"),
    "correlation": ("lip-gap correlation", "{:.3f}"),
    "amplitude": ("amplitude ratio", "{:.2f}"),
    "closed": ("p, b, m closed", "{:.2f}"),
    "flicker": ("flicker (levels)", "{:.2f}"),
    "lse_d": ("LSE-D", "{:.3f}"),
    "lse_c": ("LSE-C", "{:.3f}"),
    "offset": ("sound late (frames)", "{:+.2f}"),
}
Scores = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `talkface evaluate-video`."""
    add = parser.add_argument
    add("--corpus", type=Path, required=True, metavar="FOLDER", help="a prepared corpus")
    add("--split", default="test", choices=("train", "val", "test"))
    add("--bundle", default="default", metavar="NAME|PATH")
    add("--out", type=Path, default=Path("evaluation"), metavar="FOLDER", help="default: evaluation")
    add(
        "--clips", type=int, default=20, metavar="N", help="clips drawn from the split; 0 = all (default: 20)"
    )
    add("--max-frames", type=int, default=100, metavar="N", help="frames taken of each clip (default: 100)")
    rows = [*ROWS, *GUIDE_ROWS]
    add("--rows", nargs="+", choices=rows, default=list(ROWS), metavar="ROW", help=f"of: {', '.join(rows)}")
    add("--guide", choices=("none", "warp", "refined"), help="default: the bundle's")
    add("--num-inference-steps", type=int, metavar="N", help="default: the bundle's")
    add("--guidance-scale", type=float, metavar="X", help="default: the bundle's")
    add("--emotion", action="store_true", help="tell the bundle each clip's emotion")
    add("--seed", type=int, default=0)
    add("--device", default="auto")
    add("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    add("--lpips-backbone", type=Path, metavar="FILE", help="AlexNet weights; without it torchvision's cache")
    add("--no-lpips", action="store_true", help="leave LPIPS out (needs neither the package nor weights)")
    add(
        "--sync-expert", metavar="shape|FILE",
        help="also LSE-D, LSE-C and the offset, by landmarks or by a sync network (see data_prep/films.py --sync)",
    )  # fmt: skip
    add("--allow-same-expert", action="store_true", help="even if that expert guided the bundle's training")
    add("--films", action="store_true", help="also write every film that was made")
    add("--fresh", action="store_true", help="forget results of an earlier run in --out")


def main(args: list[str]) -> int:
    """Run the command line `args`; prints the table and writes `table.md`, `results.json`, `clips.jsonl`."""
    from tqdm import tqdm

    from talkface.data.base import Corpus
    from talkface.pipelines.talking_face import TalkingFacePipeline

    parser = _Parser(prog="talkface evaluate-video", description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    options = parser.parse_args(args)
    corpus = Corpus(options.corpus, options.split)
    entries = choose_clips(corpus, options.clips, options.seed)
    perceptual: Perceptual | None = None
    if not options.no_lpips:
        from talkface.experts.vision import LPIPS

        perceptual = LPIPS("alex", options.lpips_backbone)
    judge = None
    if options.sync_expert is not None:
        from talkface.data.prepare.film_judges import load_reader, make_sync

        make_sync(options.sync_expert)  # says what is wrong with it
        judge = load_reader(options.sync_expert)
    pipeline = TalkingFacePipeline.from_pretrained(options.bundle, options.device, options.precision)
    if judge is not None and options.sync_expert != "shape":
        from talkface.experts.registry import check_judge

        check_judge(judge, pipeline.bundle.meta.get("guided_by", ()), options.allow_same_expert)
    calls = {
        "guide": options.guide,
        "num_inference_steps": options.num_inference_steps,
        "guidance_scale": options.guidance_scale,
        "seed": options.seed,
    }
    settings = describe(options, pipeline.bundle.folder, [entry.id for entry in entries])
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "clips.jsonl"
    done = open_results(log, settings, options.fresh)
    with tqdm(total=len(entries) * len(options.rows), unit="film", desc="evaluate-video") as bar:
        for k, entry in enumerate(entries):
            missing = [row for row in options.rows if (entry.id, row) not in done]
            bar.update(len(options.rows) - len(missing))
            if not missing:
                continue
            clip = read_clip(corpus, entry, options.max_frames)
            others = corpus.read_audio(entries[(k + 1) % len(entries)])
            emotion = {"emotion": clip.emotion} if options.emotion and clip.emotion >= 0 else {}
            for row in missing:
                folder = options.out if options.films else None
                scores = evaluate_row(
                    row, clip, others, pipeline, {**calls, **emotion}, perceptual, folder, judge
                )
                done[entry.id, row] = scores
                with log.open("a") as file:
                    file.write(json.dumps({"clip": entry.id, "row": row, **scores}) + "\n")
                bar.update()
    names = [entry.id for entry in entries]
    text = table({row: [done[name, row] for name in names] for row in options.rows})
    (options.out / "table.md").write_text(text + "\n")
    by_clip = {name: {row: _finite(done[name, row]) for row in options.rows} for name in names}
    (options.out / "results.json").write_text(json.dumps({"settings": settings, "clips": by_clip}, indent=1))
    print(text)
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise TalkfaceError(f"{message}; see: {self.prog} --help")


def evaluate_row(
    row: str,
    clip: RealClip,
    other_sound: np.ndarray,
    pipeline: Any,
    calls: dict[str, Any],
    perceptual: Perceptual | None,
    folder: Path | None = None,
    judge: Any = None,
) -> Scores:
    """Make and measure one film; also write it to `folder`. `judge`: a sync expert, or None.

    A film that cannot be made (no face is found) does not end the evaluation: it scores {"failed": reason}.
    """
    try:
        film = make_row(row, clip, other_sound, pipeline, calls)
        tracked = track_landmarks(film, FaceTracker(pipeline.finder))
        scores = score_film(film, clip, tracked, perceptual, pipeline.image_size)
        if judge is not None and row != "silence":
            heard = other_sound if row == "shuffled" else clip.samples
            scores |= sync_scores(judge, film, tracked, heard, clip.sample_rate, clip.fps)
    except TalkfaceError as error:
        return {"failed": str(error)}
    if folder is not None:
        with VideoWriter(folder / f"{clip.name}_{row}.mp4", clip.fps) as writer:
            for frame in film:
                writer.write(frame)
    return {**scores}


def describe(options: argparse.Namespace, bundle: Path, names: list[str]) -> dict[str, Any]:
    """What the numbers depend on; results of other settings are never mixed in."""
    ignored = {"out", "fresh", "films", "rows", "clips", "bundle"}
    settings = {key: value for key, value in vars(options).items() if key not in ignored}
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    weights = hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()
    return {**settings, "bundle_sha256": weights, "names": names}


def open_results(path: Path, settings: dict[str, Any], fresh: bool) -> dict[tuple[str, str], Scores]:
    """Scores of an earlier, interrupted run; the first line of the file holds its settings.

    Raises:
        TalkfaceError: they were made with other settings.
    """
    if path.exists() and not fresh:
        first, *lines = path.read_text().splitlines() or [""]
        if first and json.loads(first) != settings:
            raise TalkfaceError(f"{path} holds results of other settings; give another --out, or --fresh")
        whole = [line for line in lines if line.endswith("}")]  # the last may have been cut off
        if first:
            path.write_text("\n".join([first, *whole]) + "\n")
            rows = [json.loads(line) for line in whole]
            return {(row.pop("clip"), row.pop("row")): row for row in rows}
    path.write_text(json.dumps(settings) + "\n")
    return {}


def table(scores: dict[str, list[Scores]]) -> str:
    """Markdown: a line per row, mean [95 % interval] over clips; then ours against the still mouth."""
    columns = [key for key in COLUMNS if any(key in clip for row in scores.values() for clip in row)]
    lines = [
        "| film | " + " | ".join(COLUMNS[key][0] for key in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row, clips in scores.items():
        cells = [_cell([clip.get(key, nan) for clip in clips], COLUMNS[key][1]) for key in columns]
        lines.append(f"| {row.replace('_', ' ')} | " + " | ".join(cells) + " |")
    for ours in ("windowed", "autoregressive", *GUIDE_ROWS):
        if ours in scores and "still" in scores:
            pairs = zip(scores[ours], scores["still"], strict=True)
            gains = [a.get("psnr", nan) - b.get("psnr", nan) for a, b in pairs]
            lines += ["", f"Mouth PSNR of {ours} over the still mouth: {_cell(gains, '{:+.2f}')} dB."]
    failed = [(row, clip["failed"]) for row, clips in scores.items() for clip in clips if "failed" in clip]
    if failed:
        lines += ["", f"{len(failed)} films could not be made, the first ({failed[0][0]}): {failed[0][1]}"]
    return "\n".join(lines)


def _finite(scores: Scores) -> Scores:
    """JSON knows neither infinity nor nan: they become null."""
    return {key: None if isinstance(x, float) and not isfinite(x) else x for key, x in scores.items()}


def _cell(values: list[float], form: str) -> str:
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return "–"
    mean = float(np.mean(known))
    if not np.isfinite(mean):
        return "∞"
    low, high = bootstrap_interval(known)
    return f"{form.format(mean)} [{form.format(low)}, {form.format(high)}]"
