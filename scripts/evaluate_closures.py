"""Do the lips close for p, b, m? Lip gaps at the times of phones, judged by MediaPipe.

Phone times: forced alignment of the sentence that the name of a GRID film tells (or that a file NAME.txt beside the
film holds), and the exact ones of sentences spoken by the synthetic voice that no training heard. Rows: the real films;
the films dubbed with their own sound; the first frame of each as a still picture with the same sound; the same pictures
with the synthetic sentences. The ratio is the mean gap of open vowels (largest within the phone, one frame more on each
side) over that of p, b, m (smallest).

    python scripts/evaluate_closures.py --films FOLDER --task face_landmarker.task --out runs/closures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from forced_alignment import Phone, align, grid_sentence
from measuring import FILMS, cell, files_in, judged, markdown, positive, run, save

from talkface.experts.judges import MediaPipeJudge
from talkface.media import Audio, open_video, read_audio
from talkface.metrics.articulation import closure_ratio, phone_gaps

Array = np.ndarray


@dataclass
class Gaps:
    """What one row of the table holds: gaps of all clips, and of each."""

    closed: list[float] = field(default_factory=list)
    opened: list[float] = field(default_factory=list)
    clips: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, curve: Array, phones: Sequence[Phone], fps: float) -> None:
        closed, opened = phone_gaps(curve, phones, fps)
        self.closed += closed
        self.opened += opened
        self.clips[name] = {"closed": closed, "opened": opened, "curve": curve, "phones": phones}


def spoken(film: Path) -> str:
    """The sentence of a film: NAME.txt beside it, or GRID's by its name."""
    beside = film.with_suffix(".txt")
    return beside.read_text().strip() if beside.is_file() else grid_sentence(film.stem)


def synthetic_speech(count: int, seed: int) -> list[tuple[str, Audio, list[Phone]]]:
    """(name, sound, exact phones) of sentences of the test split in its voice."""
    from talkface.data.synthetic.sentences import sentence
    from talkface.data.synthetic.voices import Voice, speak

    voices = Voice.list("test")
    result = []
    for k in range(count):
        said = speak(voices[k % len(voices)], sentence(seed + k, "test"))
        result.append((f"synthetic {k + 1}: {said.text}", Audio(said.samples, 16000), said.phonemes))
    return result


def table(rows: dict[str, Gaps]) -> str:
    """Markdown; gaps in thousandths of the face's height."""
    lines = []
    for name, gaps in rows.items():
        closed, opened = (
            cell(1000 * float(np.mean(x)) if x else None, "{:.1f}") for x in (gaps.closed, gaps.opened)
        )
        ratio = cell(closure_ratio(gaps.closed, gaps.opened), "{:.2f}")
        lines.append([name, str(len(gaps.closed)), closed, str(len(gaps.opened)), opened, ratio])
    return markdown(["film", "p, b, m", "gap (‰ of the face)", "open vowels", "gap (‰)", "ratio"], lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add(
        "--films",
        type=Path,
        required=True,
        help="folder of GRID films, or of films with NAME.txt beside each",
    )
    judged(parser)
    add(
        "--guide",
        nargs="+",
        choices=["none", "warp", "refined"],
        help="levels to be judged (default: the bundle's)",
    )
    add("--clips", type=positive, metavar="N", help="only the first N films")
    add("--sentences", type=int, default=6, metavar="N", help="synthetic ones; 0 for none (default: 6)")
    add("--out", type=Path, default=Path("runs/closures"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    from talkface import TalkingFacePipeline

    options = parse(argv)
    paths = files_in(options.films, FILMS, "--films")[: options.clips]
    sounds = [read_audio(path) for path in paths]
    phones = [align(sound, spoken(path)) for path, sound in zip(paths, sounds, strict=True)]
    synthetic = synthetic_speech(options.sentences, options.seed) if options.sentences else []
    pipeline = TalkingFacePipeline.from_pretrained(options.bundle, options.device, options.precision)
    levels = options.guide or [pipeline.bundle.meta.get("guide", "none")]
    rows = {"real": Gaps()}
    with MediaPipeJudge(options.task) as judge:

        def judged(row: str, name: str, phones: Sequence[Phone], sound: Audio, **call: Any) -> None:
            film = pipeline(sound, seed=options.seed, **call)
            with film.frames() as frames:
                rows.setdefault(row, Gaps()).add(name, judge.curve(frames).gap, phones, float(film.fps))
            print(f"{row}: {name}", file=sys.stderr)

        faces = []
        for path, sound, said in zip(paths, sounds, phones, strict=True):
            reader = open_video(path)
            frames = list(reader)
            faces.append(frames[0])
            rows["real"].add(path.stem, judge.curve(frames).gap, said, reader.fps)
            for level in levels:
                still = {"image": frames[0], "fps": reader.fps}
                judged(f"picture, {level}", path.stem, said, sound, guide=level, **still)
                judged(f"dubbed, {level}", path.stem, said, sound, guide=level, film=path)
        for level in levels:
            for k, (name, sound, said) in enumerate(synthetic):
                face = faces[k % len(faces)]
                judged(f"picture, synthetic voice, {level}", name, said, sound, guide=level, image=face)
    results = {"bundle": options.bundle, "seed": options.seed, "rows": {k: vars(v) for k, v in rows.items()}}
    save(options.out, "closures", table(rows), results)
    return 0


if __name__ == "__main__":
    run("evaluate_closures", main)
