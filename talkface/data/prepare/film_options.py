"""The options that the scripts for films share: one for each field of `FilmRecipe`."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.film_source import FilmSource

OWN = "own"
OFF = "off"
HELP = {
    "size": "side of the pictures in pixels",
    "fps": "frames per second, or 'own' for those of the film",
    "box": "one square for the clip, from its first frame, or one that follows the face",
    "margin": "around the box; 'thesis' with --box fixed",
    "quality": "of the JPEG files",
    "need_sound": "leave out films without sound",
    "most_difference": "seconds between the lengths of sound and pictures, or 'off'",
    "scenes": "look for cuts (extra 'films')",
    "scene_threshold": "lower finds more cuts",
    "least_seconds": "shortest clip",
    "most_seconds": "longest clip, or 'off': a film is one clip",
    "longest_film": "seconds; longer films are left out",
    "one_face": "leave out films with a second face",
    "most_missing": "frames in a row without a face that are bridged",
    "least_face": "smallest face in pixels",
    "least_quality": "0 to 1; 0 keeps all",
    "most_offset": "frames of sound against lips, where an expert judges them",
    "least_confidence": "of that expert",
    "duplicates": "leave out files that are there twice",
    "items_per_shard": "the unit of resuming",
}


def number_or(word: str) -> Any:
    """A reader of an option: a number, or `word` for None."""

    def read(text: str) -> float | None:
        return None if text == word else float(text)

    read.__name__ = f"number or '{word}'"  # what argparse calls it in an error
    return read


def margin(text: str) -> float | str:
    """A number or `thesis`."""
    return text if text == "thesis" else float(text)


SPECIAL: dict[str, dict[str, Any]] = {
    "fps": {"type": number_or(OWN), "metavar": f"N|{OWN}"},
    "most_difference": {"type": number_or(OFF), "metavar": f"S|{OFF}"},
    "most_seconds": {"type": number_or(OFF), "metavar": f"S|{OFF}"},
    "margin": {"type": margin, "metavar": "N|thesis"},
    "box": {"choices": ("fixed", "tracked")},
}


def add_film_options(source: type[FilmSource], parser: argparse.ArgumentParser) -> None:
    """An option per field, with the values that fit the set as defaults."""
    for field in fields(FilmRecipe):
        default = getattr(source.usual, field.name)
        option: dict[str, Any] = {
            "default": default,
            "help": f"{HELP[field.name]} (default: {shown(field.name, default)})",
        }
        if isinstance(default, bool):
            option["action"] = argparse.BooleanOptionalAction
        else:
            option |= SPECIAL.get(field.name, {"type": type(default), "metavar": "N"})
        parser.add_argument(f"--{field.name.replace('_', '-')}", **option)
    parser.add_argument(
        "--sync",
        default=source.usual_sync,
        metavar="none|shape|FILE",
        help="what judges lips against sound: nothing, landmarks against the bundle's sound encoder, or a sync network "
        "(syncnet_v2.model, lipsync_expert.pth, a .safetensors of scripts/train_expert.py sync) "
        f"(default: {source.usual_sync})",
    )


def shown(name: str, default: Any) -> str:
    """A default as one types it."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return (OWN if name == "fps" else OFF) if default is None else str(default)
