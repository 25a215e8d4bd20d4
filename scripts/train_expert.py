"""Train a bundled expert on renders for some time; so far: emotion.

    python data_prep/synthetic_faces.py --out corpora/faces
    python scripts/train_expert.py emotion --corpus corpora/faces --out build/emotion0 --minutes 8 --seed 0

The run resumes when the same command is given again. The result is `<out>.safetensors` (half precision), `<out>.json`
(class path and arguments) and `<out>.md` (model card). Seeds 0 and 1 of the emotion classifier are in the package:
the first guides (it is part of the emotion bundle), the second judges. No photograph of a person is used.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from talkface.checkpoint import load_bundle
from talkface.data.base import EMOTIONS, Corpus
from talkface.errors import TalkfaceError
from talkface.experts.emotion import EmotionNetwork
from talkface.training.emotion import EmotionSampler, LabelledFaces, train_emotion

SPEC = {"class_path": "talkface.experts.emotion.EmotionNetwork", "init_args": {}}
CARD = """# Emotion classifier, seed {seed}

A residual network of {parameters:.2f} M parameters that says which of eight emotions a face shows ({names}).

- **Input**: (B, 3, S, S) RGB in [-1, 1], the canonical aligned crop; resized to 128 x 128.
- **Trained on**: {pictures} renders of {people} synthetic people (data_prep/synthetic_faces.py), for {minutes:g}
  minutes, from the first stages of the default bundle's landmark network (renders, too). No photograph of a person.
- **Use**: to guide and to judge edits of the emotion model, and to guess the emotion of a picture (`--from auto`).
- **Not for**: statements about real people. It knows the eight prototypes of talkface/head/emotions.py, drawn on
  synthetic heads; on photographs it errs often. See docs/results/experts.md.
- **Licence**: Apache-2.0.
"""


def read_faces(folder: Path, split: str) -> tuple[LabelledFaces, int]:
    """The pictures of a split, decoded, and how many people they show."""
    corpus = Corpus(folder, split)
    clips = list(corpus)
    truth = [corpus.read_truth(clip, ("landmarks", "actions")) for clip in clips]
    faces = LabelledFaces(
        images=[corpus.read_frame(clip, 0) for clip in clips],
        landmarks=np.stack([one["landmarks"][0] for one in truth]),
        emotion=np.array([clip.emotion for clip in clips], np.int64),
        actions=np.stack([one["actions"][0] for one in truth]).astype(np.float32),
    )
    return faces, len({clip.subject for clip in clips})


def emotion(options: argparse.Namespace) -> None:
    """The emotion classifier."""
    faces, people = read_faces(options.corpus, "train")
    torch.manual_seed(options.seed)
    network = EmotionNetwork()
    network.start_from(load_bundle(options.start_from, parts=["landmarks"]).part("landmarks"))
    network.requires_grad_(True)
    train_emotion(
        network,
        EmotionSampler(faces, seed=options.seed),
        seconds=60 * options.minutes,
        device=options.device,
        bfloat16=True,
        checkpoint=options.out.with_suffix(".state.pt"),
        log=lambda line: print(line, flush=True),
    )
    parameters = {name for name, _ in network.named_parameters()}
    weights = {
        name: (value.half() if name in parameters else value).cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    save_file(
        weights, options.out.with_suffix(".safetensors"), metadata={"format": "pt", "part": "classifier"}
    )
    options.out.with_suffix(".json").write_text(json.dumps(SPEC, indent=1) + "\n")
    card = CARD.format(
        seed=options.seed,
        parameters=sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        names=", ".join(EMOTIONS),
        pictures=len(faces.images),
        people=people,
        minutes=options.minutes,
    )
    options.out.with_suffix(".md").write_text(card)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("expert", choices=("emotion",))
    parser.add_argument("--corpus", type=Path, default=Path("corpora/faces"))
    parser.add_argument("--out", type=Path, required=True, help="path without ending of the files to write")
    parser.add_argument(
        "--minutes", type=float, default=8, help="time for training, interrupted runs included"
    )
    parser.add_argument(
        "--start-from", default="default", help="bundle whose landmark network gives the first stages"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="processor threads (0: all)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    globals()[options.expert](options)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"train_expert: error: {error}", file=sys.stderr)
        sys.exit(2)
