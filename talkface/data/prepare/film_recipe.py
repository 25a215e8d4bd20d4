"""How a film becomes clips: every choice of the preparation in one place, each step can be switched off."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from talkface.errors import TalkfaceError

Box = Literal["fixed", "tracked"]
VERSION = 1
"""Raise when the same films and settings give another corpus."""


@dataclass(frozen=True)
class FilmRecipe:
    """The steps from a film to clips, in their order.

    Args:
        size: side of the stored pictures, pixels.
        fps: frames per second of the clips; None keeps the film's own (the average one of a variable rate).
        box: `fixed` = one square around the face of a clip's first frame (the paper); `tracked` = the canonical
            crop that follows the face, smoothed within the clip.
        margin: `fixed`: what is added on each side of the landmarks' box, in widths of that box; "thesis" = 10
            pixels of a picture scaled to a height of 216, as the thesis does with MEAD. `tracked`: what is added on
            each side of the canonical crop, in widths of it, room for the random shifts of training.
        quality: of the JPEG files, 1 to 100.
        need_sound: films without sound, or silent ones, are left out.
        most_difference: seconds by which sound and pictures may differ in length, cut or filled with silence; None =
            any.
        scenes: look for cuts (needs the extra `films`); no clip reaches across one.
        scene_threshold: of PySceneDetect's adaptive detector; lower finds more cuts.
        least_seconds, most_seconds: length of a clip. Longer scenes are divided evenly; `most_seconds` None makes the
            whole film one clip, or none.
        longest_film: seconds; longer films are left out.
        one_face: films in which a second face is at least half as large as the first are left out; False takes the
            largest.
        most_missing: frames in a row without a face whose landmarks are interpolated.
        least_face: pixels; smaller faces (brows to chin) are left out.
        least_quality: 0 to 1, see `picture_quality`; 0 keeps all.
        most_offset: frames by which the sound may be shifted to fit the lips, where a sync expert is given.
        least_confidence: of the sync expert.
        duplicates: leave out files that repeat another one byte by byte.
        items_per_shard: films that form a shard, the unit of resuming.
    """

    size: int = 128
    fps: float | None = 25.0
    box: Box = "tracked"
    margin: float | Literal["thesis"] = 0.15
    quality: int = 95
    need_sound: bool = True
    most_difference: float | None = 1.0
    scenes: bool = False
    scene_threshold: float = 3.0
    least_seconds: float = 0.5
    most_seconds: float | None = None
    longest_film: float = 7200.0
    one_face: bool = True
    most_missing: int = 5
    least_face: float = 48.0
    least_quality: float = 0.0
    most_offset: float = 6.0
    least_confidence: float = 0.0
    duplicates: bool = True
    items_per_shard: int = 100

    def __post_init__(self) -> None:
        checks: dict[str, tuple[bool, str]] = {
            "size": (32 <= self.size <= 1024, "32 to 1024"),
            "fps": (self.fps is None or 1 <= self.fps <= 120, "1 to 120, or None for the film's own"),
            "box": (self.box in ("fixed", "tracked"), "fixed, tracked"),
            "quality": (1 <= self.quality <= 100, "1 to 100"),
            "scene_threshold": (self.scene_threshold > 0, "above 0"),
            "least_seconds": (self.least_seconds > 0, "above 0"),
            "longest_film": (self.longest_film > self.least_seconds, "more than least_seconds"),
            "most_missing": (self.most_missing >= 0, "0 or more"),
            "least_quality": (0 <= self.least_quality < 1, "0 to below 1"),
            "items_per_shard": (self.items_per_shard >= 1, "1 or more"),
        }
        if self.margin == "thesis":
            checks["margin"] = (self.box == "fixed", "'thesis' with box fixed only, or a number")
        else:
            checks["margin"] = (
                not isinstance(self.margin, str) and 0 <= self.margin <= 2,
                "0 to 2, or 'thesis'",
            )
        if self.most_seconds is not None:
            # halves of a scene that is a little too long must not be too short
            enough = self.most_seconds >= 2 * self.least_seconds
            checks["most_seconds"] = (enough, "at least twice least_seconds, or None")
        for name, (fine, allowed) in checks.items():
            if not fine:
                raise TalkfaceError(f"{name}: {getattr(self, name)!r}; allowed {allowed}")

    def settings(self) -> dict[str, Any]:
        """Every choice, JSON only."""
        return asdict(self) | {"films": VERSION}
