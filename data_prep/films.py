"""Prepare any folder of talking films for training: cut into scenes and clips, a face in every frame.

    python data_prep/films.py --raw my_films --out corpora/mine
    python data_prep/films.py --raw my_films --out corpora/mine --transcripts texts.tsv --subjects film

A folder below `--raw` is a person (`--subjects folder`), or every film is. Cuts need `pip install 'talkface[films]'`;
`--no-scenes` goes without. An interrupted run goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys

from talkface.data.prepare.film_judges import make_sync
from talkface.data.prepare.film_options import add_film_options
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.films import SUBJECTS, Films
from talkface.data.prepare.script import recipe_from, run_script


def add_options(parser: argparse.ArgumentParser) -> None:
    """The recipe, who is who, and what is said."""
    add_film_options(Films, parser)
    add = parser.add_argument
    add("--subjects", default="folder", choices=SUBJECTS, help="a folder is a person, or every film is")
    add("--val-share", type=float, default=0.05, metavar="N", help="of the people (default: 0.05)")
    add("--test-share", type=float, default=0.05, metavar="N", help="of the people (default: 0.05)")
    add("--transcripts", metavar="FILE", help="lines: path, tab, text (default: film.txt beside film.mp4)")


def make_source(options: argparse.Namespace) -> Films:
    """The source of these options."""
    return Films(
        options.raw,
        recipe_from(FilmRecipe, options),
        make_sync(options.sync),
        transcripts=options.transcripts,
        subjects=options.subjects,
        val_share=options.val_share,
        test_share=options.test_share,
    )


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    return run_script(Films.about, make_source, add_options, argv)


if __name__ == "__main__":
    sys.exit(main())
