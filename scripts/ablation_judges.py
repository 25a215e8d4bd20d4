"""What the rows of an ablation are judged by: rendered people and real films that none of them was trained on.

Sequences of held-out rendered people are painted in one step, with the guide and without; half of them are told what
the pipeline hears, half the exact articulation. The mouth is compared with the true picture (PSNR, LPIPS); a sync
expert that guided no row tells how much nearer the film is to its own sound than to that of the other sequences. Real
films (a few frames of each, in the middle) are dubbed with their own sound, with and without a guide (mouth PSNR,
LPIPS), and their first frame is made to speak from sound alone, the paper's way; MediaPipe reads the lips of that film.
Numbers are kept for each clip, so that rows are compared in pairs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle_data import masked_window
from dubbed_films import Film, dub, read_film
from lip_data import Sequences
from measuring import FILMS, files_in, markdown, mean_cell, tidy
from torch import Tensor

from talkface import TalkingFacePipeline
from talkface.checkpoint import Bundle, load_bundle
from talkface.experts.judges import LipCurve, MediaPipeJudge
from talkface.experts.registry import check_judge, load_expert
from talkface.experts.vision import LPIPS
from talkface.media import Audio, to_uint8, write_image
from talkface.media.output import replacing
from talkface.metrics.articulation import amplitude_ratio, correlation
from talkface.pipelines.film_scores import mouth_scores, mouth_squares
from talkface.portrait.sheet import sheet
from talkface.training.sequences import in_range, per_frame
from talkface.training.window import Window

# frames of real films: a second and a half of speech, and a part of it
SPOKEN, DUBBED = slice(12, 52), slice(28, 40)
GUIDES = {"alone": "inpainting", "guided": "refined"}
Array = np.ndarray
Numbers = dict[str, list[float]]

COLUMNS = {
    "films": {
        "alone correlation": ("sound alone: lip-gap correlation", "{:.3f}"),
        "alone other": ("of another sentence", "{:.3f}"),
        "alone amplitude": ("amplitude", "{:.2f}"),
        "alone psnr": ("mouth PSNR", "{:.2f}"),
        "alone lpips": ("LPIPS", "{:.4f}"),
        "guided psnr": ("guided: mouth PSNR", "{:.2f}"),
        "guided lpips": ("LPIPS", "{:.4f}"),
    },
    "sequences": {
        "alone psnr": ("sound alone: mouth PSNR", "{:.2f}"),
        "alone lpips": ("LPIPS", "{:.4f}"),
        "alone sync": ("sync", "{:.3f}"),
        "guided psnr": ("guided: mouth PSNR", "{:.2f}"),
        "guided lpips": ("LPIPS", "{:.4f}"),
        "guided sync": ("sync", "{:.3f}"),
    },
}


def judge_rows(
    path: Path, folders: Mapping[str, str], kept: str, measure: Callable[[Bundle, str], Numbers]
) -> None:
    """Measure the rows that `path` does not hold yet, or holds of other weights or of other data (`kept`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for name, folder in folders.items():
        bundle = load_bundle(folder)
        parts = json.loads((bundle.folder / "bundle.json").read_text())["parts"]
        of = f"{kept} {parts['network']['sha256'][:12]} {parts['conditioner']['sha256'][:12]}"
        if rows.get(name, {}).get("of") == of:
            continue
        rows[name] = {"of": of, "numbers": tidy(measure(bundle, name))}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(rows))
        print(f"judged {path.stem}: {name}", flush=True)


def judge_sequences(work: Path, folders: Mapping[str, str], judge: Path, perceptual: LPIPS | None) -> None:
    """Held-out rendered people; numbers in WORK/judged/sequences.json, mouths in WORK/judged/<row>.png."""
    expert = load_expert(judge)
    data = Sequences(work / "sequences" / "test", load_bundle("default").part("first_stage"))
    items = [data[number] for number in range(len(data))]

    def measure(bundle: Bundle, name: str) -> Numbers:
        check_judge(expert, bundle.meta.get("guided_by", []), False)
        films = {how: [paint(bundle, item, how == "guided") for item in items] for how in GUIDES}
        numbers: Numbers = {}
        for how, made in films.items():
            for film, item in zip(made, items, strict=True):
                pictures, true = (to_uint8(x) for x in (film, item["target"]))
                squares = mouth_squares(item["points"].numpy(), *true.shape[1:3])
                for score, value in mouth_scores(pictures, true, squares, perceptual).items():
                    numbers.setdefault(f"{how} {score}", []).append(value)
            numbers[f"{how} sync"] = belonging(expert, made, items)
        numbers["real sync"] = belonging(expert, [item["target"] for item in items], items)
        write_image(work / "judged" / f"{name}.png", mouths(items, films))
        return numbers

    judge_rows(work / "judged" / "sequences.json", folders, f"{len(items)} {judge.name}", measure)


@torch.no_grad()
def paint(bundle: Bundle, item: dict[str, Tensor], guided: bool) -> Tensor:
    """The film (T, 3, S, S) of a sequence as the sampler of one step makes it, in [-1, 1]."""
    batch = per_frame({name: value[None] for name, value in item.items()})
    count = len(batch["target"])
    dropped = {} if guided else {"guide": torch.ones(count, dtype=torch.bool)}
    network, schedule = bundle.part("network"), bundle.build("schedule")
    window = Window(bundle.part("first_stage"), masked_window())
    told = bundle.part("conditioner")(batch, dropped)
    noise = torch.randn(1, *batch["target_latents"].shape[1:], generator=torch.Generator().manual_seed(0))
    noise, times = noise.expand(count, -1, -1, -1), torch.full((count,), schedule.num_train_timesteps - 1)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(noise, times, told).float()
        shown = window.decode(schedule.to_x0(output, noise, times, str(bundle.value("prediction_type"))))
        if guided:
            shown = window.cut(batch["guide"]) + shown - window.decode(batch["guide_latents"])
    return window.paste(in_range(shown.float()), batch["target"])


@torch.no_grad()
def belonging(expert: Any, films: list[Tensor], items: list[dict[str, Tensor]]) -> list[float]:
    """For each film, how much nearer (cosine) it is to its own sound than to that of the other films."""
    seen = torch.stack(
        [expert.embed_film(film, item["points"]) for film, item in zip(films, items, strict=True)]
    )
    places = torch.arange(seen.shape[1]) + expert.num_frames / 2 - len(films[0]) / 2
    heard = []
    for item in items:
        times = item["sound"].shape[-1] / 2 / expert.sample_rate + places / expert.fps
        heard.append(expert.embed_sound(expert.sound_windows(item["sound"], expert.sample_rate, times)))
    near = torch.einsum("ikd,jkd->ij", seen, torch.stack(heard)) / seen.shape[1]
    count = len(films)
    others = (near.sum(1) - near.diagonal()) / max(1, count - 1)
    return (near.diagonal() - others).tolist()


def mouths(items: list[dict[str, Tensor]], films: dict[str, list[Tensor]], count: int = 8) -> Array:
    """Mouths of two sequences: true, reference's guide, painted alone and guided; evenly spaced frames."""
    drawn, names = [], []
    for number in (0, len(items) // 2):
        item = items[number]
        squares = mouth_squares(item["points"].numpy(), *item["target"].shape[2:])
        chosen = np.linspace(0, len(squares) - 1, count).round().astype(int)
        shown = {
            "true": item["target"],
            "guide": item["guide"],
            **{how: x[number] for how, x in films.items()},
        }
        for name, film in shown.items():
            pictures = to_uint8(film)
            parts = [
                pictures[k, top:bottom, left:right]
                for k, (left, top, right, bottom) in zip(chosen, squares[chosen], strict=True)
            ]
            drawn.append([np.repeat(np.repeat(part, 3, 0), 3, 1) for part in parts])
            names.append(name)
    return sheet(drawn, names, cell=128)


def part(film: Film, chosen: slice) -> Film:
    """Some consecutive frames of a film, with their sound."""
    rate = film.sound.sample_rate
    edges = [round(frame / film.fps * rate) for frame in (chosen.start, chosen.stop)]
    return replace(
        film,
        frames=film.frames[chosen],
        sound=Audio(film.sound.samples[slice(*edges)], rate),
        curve=LipCurve(film.curve.gap[chosen], []),
        squares=film.squares[chosen],
        crops=film.crops[chosen],
        weights=film.weights[chosen],
    )


def judge_films(
    work: Path, folders: Mapping[str, str], films: Path, task: Path, perceptual: LPIPS | None
) -> None:
    """Real films; numbers in WORK/judged/films.json."""
    paths = files_in(films, FILMS, "--films", least=2)
    with MediaPipeJudge(task) as judge:
        finder = TalkingFacePipeline.from_pretrained("default", "cpu")
        real = [read_film(path, judge, finder, SPOKEN.stop) for path in paths]

        def measure(bundle: Bundle, name: str) -> Numbers:
            pipeline = TalkingFacePipeline(bundle)
            numbers: Numbers = {}
            curves = []
            for film in real:
                said = part(film, SPOKEN).sound
                options = {
                    "image": film.frames[0],
                    "guide": "none",
                    "motion": "none",
                    "fps": film.fps,
                    "seed": 0,
                }
                with pipeline(said, **options).frames() as frames:
                    curves.append(judge.curve(frames).gap)
                for how, row in GUIDES.items():
                    short = part(film, DUBBED)
                    made = dub(row, short, pipeline, 0)
                    for score, value in mouth_scores(made, short.frames, short.squares, perceptual).items():
                        numbers.setdefault(f"{how} {score}", []).append(value)
            gaps = [film.curve.gap[SPOKEN] for film in real]
            table = [[correlation(gap, made)[0] for gap in gaps] for made in curves]
            for number, made in enumerate(curves):
                others = [value for k, value in enumerate(table[number]) if k != number]
                numbers.setdefault("alone correlation", []).append(table[number][number])
                numbers.setdefault("alone other", []).append(float(np.mean(others)))
                numbers.setdefault("alone amplitude", []).append(amplitude_ratio(gaps[number], made))
            return numbers

        judge_rows(work / "judged" / "films.json", folders, f"{len(paths)} films", measure)


def tables(
    work: Path, names: list[str], says: Mapping[str, str], controls: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    """Means of every row, then the difference of each from its control with its interval over clips, in pairs."""
    lines, results = [], {}
    for kind, columns in COLUMNS.items():
        path = work / "judged" / f"{kind}.json"
        if not path.is_file():
            continue
        rows = {name: row["numbers"] for name, row in json.loads(path.read_text()).items()}
        results[kind] = rows
        kept = {key: column for key, column in columns.items() if key in next(iter(rows.values()))}
        headings = [kind, *(heading for heading, _ in kept.values())]
        means = [
            [
                says[name],
                *(form.format(np.nanmean(values(rows[name][key]))) for key, (_, form) in kept.items()),
            ]
            for name in names
            if name in rows
        ]
        if "real sync" in next(iter(rows.values())):
            real = np.nanmean(values(next(iter(rows.values()))["real sync"]))
            lines += [f"The judge's sync of the true pictures: {real:.3f}.", ""]
        pairs = [(name, controls[name]) for name in names if name in controls]
        less = [
            [f"{says[name]} – {says[control]}"]
            + [
                mean_cell(list(values(rows[name][key]) - values(rows[control][key])), form.replace(":", ":+"))
                for key, (_, form) in kept.items()
            ]
            for name, control in pairs
            if name in rows and control in rows
        ]
        lines += [markdown(headings, means), "", markdown(headings, less), ""]
    return "\n".join(lines), results


def values(numbers: list[float | None]) -> Array:
    """Numbers of a file, nan where there is none."""
    return np.array([np.nan if x is None else x for x in numbers], float)
