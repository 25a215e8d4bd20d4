"""Make the strip of pictures of the README: the given picture, then frames of its talking film.

python scripts/picture_strip.py --id examples/astronaut.png --audio examples/sentence.wav --out docs/strip.jpg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from talkface import TalkfaceError, TalkingFacePipeline
from talkface.media import read_image, write_image


def strip(picture: Path, sound: Path, bundle: str, count: int, height: int) -> np.ndarray:
    """(height, (count + 1) * height, 3) uint8: the square face of the picture, then of evenly spaced frames."""
    pipeline = TalkingFacePipeline.from_pretrained(bundle)
    image = read_image(picture)
    box = pipeline.finder.find(image)[0].box
    side = 1.5 * max(box[2] - box[0], box[3] - box[1])
    left, top = (box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2
    film = pipeline(audio=sound, image=picture)
    wanted = set(np.linspace(0, film.num_frames - 1, count + 2).round().astype(int)[1:-1].tolist())
    frames = [image] + [frame for number, frame in enumerate(film) if number in wanted]
    scale = height / side
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    return np.hstack(
        [cv2.warpAffine(frame, matrix, (height, height), flags=cv2.INTER_AREA) for frame in frames]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--id", type=Path, required=True)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--count", type=int, default=6, help="frames beside the picture itself")
    parser.add_argument("--height", type=int, default=200, help="pixels")
    options = parser.parse_args()
    made = strip(options.id, options.audio, options.bundle, options.count, options.height)
    write_image(options.out, made, {"made_with": "scripts/picture_strip.py"})
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"picture_strip: error: {error}", file=sys.stderr)
        sys.exit(2)
