"""What an expert is worth: held-out figures against the trivial baseline, a section of docs/results/experts.md.

    python scripts/evaluate_expert.py emotion --corpus corpora/faces --experts build/emotion0.safetensors \
        build/emotion1.safetensors --films grid/*.mpg --pictures paintings/*.png --out docs/results/experts.md

Only the section of that expert is replaced; what stands under "In words" in it is kept. `evaluate_expert.py NAME
--help` lists the options of each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from expert_files import EXPERTS, description_of, module_of, with_section

from talkface.errors import TalkfaceError


def build_parser(name: str | None) -> argparse.ArgumentParser:
    """The options of one expert, or of all when `name` is none of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="expert", metavar="EXPERT", required=True)
    for known in EXPERTS:
        one = verbs.add_parser(known, help=description_of(known))
        if known != name:
            continue
        one.add_argument("--out", type=Path, default=Path("docs/results/experts.md"), help="the page")
        one.add_argument("--threads", type=int, default=0, help="processor threads (0: all)")
        module_of(known).add_evaluation_options(one)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    options = build_parser(next(iter(arguments), None)).parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    section = module_of(options.expert).evaluate(options)
    page = options.out.read_text() if options.out.is_file() else ""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(with_section(page, options.expert, section))
    print(f"{options.out}: section {options.expert} written")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"evaluate_expert: error: {error}", file=sys.stderr)
        sys.exit(2)
