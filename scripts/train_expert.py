"""Train an expert on renders for some time: talkface's own small networks for the roles of docs/experts.md.

    python data_prep/synthetic_faces.py --out corpora/faces
    python scripts/train_expert.py emotion --corpus corpora/faces --out build/emotion0 --minutes 8 --seed 0

The run resumes when the same command is given again. The result is `<out>.safetensors` (parameters in half precision),
`<out>.json` (class path and arguments) and `<out>.md` (model card); `talkface.experts.registry.load_expert` reads it.
No photograph of a person is used. What an expert is worth: scripts/evaluate_expert.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from expert_files import EXPERTS, description_of, module_of

from talkface.errors import TalkfaceError


def build_parser(name: str | None) -> argparse.ArgumentParser:
    """The options of one expert, or of all when `name` is none of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="expert", metavar="EXPERT", required=True)
    for known in EXPERTS:
        one = verbs.add_parser(known, help=description_of(known))
        if known != name:
            continue
        one.add_argument("--out", type=Path, required=True, help="path without ending of the files to write")
        one.add_argument("--minutes", type=float, default=8, help="time, interrupted runs included")
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
        one.add_argument("--threads", type=int, default=0, help="processor threads (0: all)")
        module_of(known).add_options(one)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    options = build_parser(next(iter(arguments), None)).parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    module_of(options.expert).train(options)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"train_expert: error: {error}", file=sys.stderr)
        sys.exit(2)
