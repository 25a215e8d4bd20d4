"""Each set of films, laid out as distributed, with planted faults: every fault is found, everything else is there."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from talkface.data.prepare.crema_d import CremaD
from talkface.data.prepare.film_recipe import FilmRecipe
from talkface.data.prepare.films import Films
from talkface.data.prepare.grid import Grid
from talkface.data.prepare.mead import Mead
from talkface.data.prepare.ravdess import Ravdess
from talkface.errors import TalkfaceError

Prepared = Callable[..., SimpleNamespace]
NTSC = Fraction(30000, 1001)


def check_clips(found: SimpleNamespace, names: set[str]) -> None:
    """The clips are these, with a face in every frame and sound of exactly the length of the pictures."""
    assert set(found.clips) == names
    for clip in found.corpus:
        truth = found.corpus.read_truth(clip)
        assert truth["landmarks"].shape == (clip.num_frames, 68, 2)
        inside = (truth["landmarks"][:, 17:] > 0) & (truth["landmarks"][:, 17:] < found.corpus.image_size)
        assert inside.all() and truth["seen"].mean() > 0.5
        sound = found.corpus.read_audio(clip)
        assert len(sound) == round(clip.num_frames / clip.fps * 16000) and np.abs(sound).max() > 0.05
        assert found.corpus.read_frame(clip, clip.num_frames - 1).std() > 20


def check_rejected(found: SimpleNamespace, expected: dict[str, tuple[str, str]]) -> None:
    """Exactly these files are left out, each at its step and with its reason."""
    assert set(found.rejected) == set(expected)
    for file, (step, words) in expected.items():
        assert found.rejected[file][0] == step and words in found.rejected[file][1], (
            file,
            found.rejected[file],
        )


def test_mead(
    raw_films: SimpleNamespace, prepared: Prepared, short_recipe: FilmRecipe, tmp_path: Path
) -> None:
    raw = tmp_path / "MEAD"
    recipe = replace(short_recipe, fps=None, box="fixed", margin="thesis")

    def take(
        subject: str, rest: str, maker: Callable[..., Any] | None = None, seconds: float = 1 / 3
    ) -> None:
        film = raw / subject / "video" / "front" / f"{rest}.mp4"
        if maker is None:
            raw_films.talking(film, fps=30, seed=zlib.crc32(f"{subject}{rest}".encode()), sound=None)
        else:
            maker(film)
        sound = raw / subject / "audio" / f"{rest}.m4a"
        raw_films.write(sound, [], sound=raw_films.speech(seconds, 48000), rate=48000)

    take("M003", "angry/level_2/001")
    take("M042", "contempt/level_3/007")
    take("W011", "neutral/level_1/012")
    take("W011", "fear/level_1/001", raw_films.damaged)
    take("W011", "fear/level_1/002", raw_films.faceless)
    take("W011", "fear/level_1/003", raw_films.two_faces)
    take("W011", "fear/level_1/004", raw_films.late_face)
    take("W011", "fear/level_1/005", raw_films.empty)
    take("W011", "fear/level_1/006", seconds=2.5)
    take("W011", "scared/level_1/001")
    take("W011", "sad/level_4/001")
    raw_films.talking(raw / "W011/video/front/sad/level_1/001.mp4", sound=None)
    raw_films.silent(raw / "W011/video/front/sad/level_1/002.mp4")
    twice = raw / "W011/video/front/neutral/level_1/013.mp4"
    twice.write_bytes((raw / "W011/video/front/neutral/level_1/012.mp4").read_bytes())
    raw_films.talking(raw / "W017/video/down/sad/level_1/001.mp4")  # another view
    (raw / "W011/video/front/sad/level_1/._003.mp4").write_bytes(b"what macOS adds")
    (raw / "list_full_mead_annotated.txt").write_text(
        "M003_level_2_angry_001 SHE HAD YOUR DARK SUIT\nW011_level_1_neutral_012 DON'T ASK ME\n"
    )
    found = prepared(Mead(raw, recipe), tmp_path / "corpus")
    check_clips(found, {"M003_level_2_angry_001", "M042_level_3_contempt_007", "W011_level_1_neutral_012"})
    front = "W011/video/front/"
    check_rejected(
        found,
        {
            front + "fear/level_1/001.mp4": ("read", "damaged or of an unknown type"),
            front + "fear/level_1/002.mp4": ("landmarks", "no face is found in frames 0 to 9"),
            front + "fear/level_1/003.mp4": ("faces", "2 faces"),
            front + "fear/level_1/004.mp4": ("landmarks", "no face is found in frames 0 to 7"),
            front + "fear/level_1/005.mp4": ("read", "empty"),
            front + "fear/level_1/006.mp4": ("sound", "the sound lasts 2.5"),
            front + "scared/level_1/001.mp4": ("label", "'scared'"),
            front + "sad/level_4/001.mp4": ("name", "level_<k>"),
            front + "sad/level_1/001.mp4": ("sound", "no sound track"),
            front + "sad/level_1/002.mp4": ("sound", "silent"),
            front + "neutral/level_1/013.mp4": ("duplicate", "012.mp4"),
        },
    )
    clip = found.clips["M003_level_2_angry_001"]
    assert (clip.split, clip.subject, clip.emotion, clip.intensity) == ("test", "M003", 6, 2)
    assert clip.transcript == "SHE HAD YOUR DARK SUIT" and clip.fps == 30
    assert found.clips["M042_level_3_contempt_007"].split == "val"
    assert found.corpus.fps == 30 and found.corpus.info["name"] == "MEAD"
    boxes = found.corpus.read_truth(clip)["crop_matrix"]
    assert np.ptp(boxes, axis=0).max() == 0  # one square for the clip
    resampled = prepared(Mead(raw, replace(recipe, fps=25.0)), tmp_path / "slower")
    assert set(resampled.clips) == set(found.clips) and set(resampled.rejected) == set(found.rejected)
    assert {clip.num_frames for clip in resampled.corpus} == {8}


def test_grid(
    raw_films: SimpleNamespace, prepared: Prepared, short_recipe: FilmRecipe, tmp_path: Path
) -> None:
    raw = tmp_path / "grid"
    words = (
        "0 1000 sil\n1000 3000 {}\n3000 4000 blue\n4000 5000 at\n5000 6000 f\n6000 7500 two\n7500 9000 now\n"
    )
    raw_films.talking(raw / "s1" / "bbaf2n.mpg", seed=1)
    raw_films.talking(raw / "s3" / "video" / "mpg_6000" / "swiz3n.mpg", seed=2)
    raw_films.talking(raw / "s31.mpg_vcd" / "s31" / "pgbyzs.mpg", seed=3)
    raw_films.talking(raw / "s3" / "lbbf2n.mpg", seed=4)
    raw_films.talking(raw / "s3" / "nonsense.mpg", seed=5)
    raw_films.talking(raw / "s3" / "bbaw2n.mpg", seed=6)  # there is no W
    raw_films.talking(raw / "others" / "bbaf2n.mpg", seed=7)
    raw_films.talking(raw / "s3" / "again" / "swiz3n.mpg", seed=8)
    raw_films.silent(raw / "s4" / "bbaf3n.mpg")
    raw_films.damaged(raw / "s4" / "bbaf4n.mpg")
    (raw / "alignments" / "s1").mkdir(parents=True)
    (raw / "alignments" / "s1" / "bbaf2n.align").write_text(words.format("bin"))
    (raw / "s3" / "align").mkdir()
    (raw / "s3" / "align" / "lbbf2n.align").write_text(words.format("set"))
    found = prepared(Grid(raw, short_recipe), tmp_path / "corpus")
    check_clips(found, {"s1_bbaf2n", "s3_swiz3n", "s31_pgbyzs"})
    check_rejected(
        found,
        {
            "s3/lbbf2n.mpg": ("label", "'SET BLUE AT F TWO NOW', its name 'LAY BLUE BY F TWO NOW'"),
            "s3/nonsense.mpg": ("name", "no sentence"),
            "s3/bbaw2n.mpg": ("name", "no sentence"),
            "others/bbaf2n.mpg": ("name", "s1 to s34"),
            "s3/video/mpg_6000/swiz3n.mpg": ("duplicate", "s3/again/swiz3n.mpg"),
            "s4/bbaf3n.mpg": ("sound", "silent"),
            "s4/bbaf4n.mpg": ("read", ""),
        },
    )
    clip = found.clips["s1_bbaf2n"]
    assert (clip.split, clip.subject, clip.emotion) == ("test", "s1", -1)
    assert clip.transcript == "BIN BLUE AT F TWO NOW"
    assert found.clips["s31_pgbyzs"].transcript == "PLACE GREEN BY Y ZERO SOON"
    assert found.clips["s31_pgbyzs"].split == "val" and found.clips["s3_swiz3n"].split == "train"
    meta = found.corpus.read_meta(clip)
    assert meta["words"][0] == {"word": "BIN", "start": 0.04, "end": 0.12} and len(meta["words"]) == 6


def test_ravdess(
    raw_films: SimpleNamespace, prepared: Prepared, short_recipe: FilmRecipe, tmp_path: Path
) -> None:
    raw = tmp_path / "RAVDESS"
    good = {
        "Actor_01/01-01-03-02-01-01-01.mp4": 1,
        "Video_Speech_Actor_22/Actor_22/01-01-06-01-02-02-22.mp4": 2,
        "Actor_19/01-01-02-01-01-01-19.mp4": 3,
    }
    bad = {
        "Actor_01/02-01-03-02-01-01-01.mp4": ("modality", "without sound"),
        "Actor_01/01-02-03-02-01-01-01.mp4": ("modality", "song"),
        "Actor_01/01-01-09-02-01-01-01.mp4": ("label", "emotion 09"),
        "Actor_01/01-01-01-02-01-01-01.mp4": ("label", "intensity 02"),
        "Actor_02/01-01-03-02-01-01-01 (1).mp4": ("name", "seven numbers"),
        "Actor_02/01-01-03-01-01-01-03.mp4": ("label", "actor 03 is not of RAVDESS in the folder Actor_02"),
    }
    for number, file in enumerate([*good, *bad]):
        raw_films.talking(raw / file, frames=12, fps=NTSC, seed=number)
    faults = {
        "Actor_05/01-01-04-01-01-01-05.mp4": (raw_films.damaged, "read", "damaged"),
        "Actor_05/01-01-04-01-01-02-05.mp4": (raw_films.faceless, "landmarks", "no face"),
        "Actor_05/01-01-04-01-02-01-05.mp4": (raw_films.soundless, "sound", "no sound track"),
    }
    for file, (maker, *_) in faults.items():
        maker(raw / file)
    found = prepared(Ravdess(raw, short_recipe), tmp_path / "corpus")
    check_clips(found, {Path(file).stem for file in good})
    check_rejected(found, bad | {file: (step, words) for file, (_, step, words) in faults.items()})
    happy = found.clips["01-01-03-02-01-01-01"]
    assert (happy.split, happy.subject, happy.emotion, happy.intensity) == ("train", "actor_01", 1, 3)
    assert happy.transcript == "KIDS ARE TALKING BY THE DOOR" and happy.fps == 25 and happy.num_frames == 10
    fear = found.clips["01-01-06-01-02-02-22"]
    assert (fear.split, fear.emotion, fear.intensity) == ("test", 4, 2) and fear.transcript.startswith("DOGS")
    calm = found.clips["01-01-02-01-01-01-19"]
    assert (calm.split, calm.emotion, found.corpus.read_meta(calm)["label"]) == ("val", -1, "calm")


def test_crema_d(
    raw_films: SimpleNamespace, prepared: Prepared, short_recipe: FilmRecipe, tmp_path: Path
) -> None:
    raw = tmp_path / "CREMA-D"
    flash = raw / "VideoFlash"
    raw_films.talking(flash / "1001_DFA_ANG_XX.flv", seed=1, fps=30)
    raw_films.talking(flash / "1005_IEO_SAD_HI.flv", seed=2, fps=30)
    raw_films.talking(flash / "1013_ITH_HAP_X.mp4", seed=3)
    raw_films.talking(flash / "1064_IEO_DIS_MD.flv", seed=4)
    raw_films.talking(flash / "1001_ABC_ANG_XX.flv", seed=5)
    raw_films.talking(flash / "1001_DFA_JOY_XX.flv", seed=6)
    raw_films.talking(flash / "1099_DFA_HAP_XX.flv", seed=7)
    raw_films.talking(flash / "notes.flv", seed=8)
    raw_films.talking(raw / "VideoMP4" / "1001_DFA_ANG_XX.mp4", seed=9)
    raw_films.soundless(flash / "1076_MTI_NEU_XX.flv")
    raw_films.faceless(flash / "1076_MTI_SAD_XX.flv")
    raw_films.damaged(flash / "1076_MTI_HAP_XX.flv")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (flash / "1002_DFA_ANG_XX.flv").write_bytes(pointer)
    (flash / "1064_TIE_SAD_XX.flv").touch()
    found = prepared(CremaD(raw, short_recipe), tmp_path / "corpus")
    check_clips(found, {"1001_DFA_ANG_XX", "1005_IEO_SAD_HI", "1013_ITH_HAP_X"})
    check_rejected(
        found,
        {
            "VideoFlash/1064_IEO_DIS_MD.flv": ("label", "several emotions"),
            "VideoFlash/1001_ABC_ANG_XX.flv": ("label", "sentence ABC"),
            "VideoFlash/1001_DFA_JOY_XX.flv": ("label", "emotion JOY"),
            "VideoFlash/1099_DFA_HAP_XX.flv": ("label", "actor 1099"),
            "VideoFlash/notes.flv": ("name", "'notes'"),
            "VideoMP4/1001_DFA_ANG_XX.mp4": ("duplicate", "VideoFlash/1001_DFA_ANG_XX.flv"),
            "VideoFlash/1076_MTI_NEU_XX.flv": ("sound", "no sound track"),
            "VideoFlash/1076_MTI_SAD_XX.flv": ("landmarks", "no face"),
            "VideoFlash/1076_MTI_HAP_XX.flv": ("read", "damaged"),
            "VideoFlash/1002_DFA_ANG_XX.flv": ("read", "Git LFS"),
            "VideoFlash/1064_TIE_SAD_XX.flv": ("read", "empty"),
        },
    )
    angry = found.clips["1001_DFA_ANG_XX"]
    assert (angry.split, angry.emotion, angry.intensity) == ("train", 6, -1)
    assert angry.transcript == "DON'T FORGET A JACKET"
    assert [found.clips[name].split for name in ("1005_IEO_SAD_HI", "1013_ITH_HAP_X")] == ["test", "val"]
    assert found.clips["1005_IEO_SAD_HI"].intensity == 3


def test_any_folder(
    raw_films: SimpleNamespace, prepared: Prepared, short_recipe: FilmRecipe, tmp_path: Path
) -> None:
    """Names with spaces and letters of other alphabets, texts beside the films, people by folder."""
    raw = tmp_path / "Filme von Jörg"
    raw_films.talking(raw / "Jörg Müller" / "erster Film.mp4", seed=1)
    raw_films.talking(raw / "Jörg Müller" / "zweiter Film.mp4", seed=2)
    raw_films.talking(raw / "李雷" / "一.mp4", seed=3)
    raw_films.talking(raw / "plain.mp4", seed=4)
    raw_films.talking(raw / "plain.mpg", seed=5)
    raw_films.late_face(raw / "late.mp4")
    raw_films.damaged(raw / "broken film.mp4")
    raw_films.long_sound(raw / "long sound.mp4")
    (raw / "Jörg Müller" / "erster Film.txt").write_text("Guten  Morgen,\nwelt")
    (raw / "copy of plain.mp4").write_bytes((raw / "plain.mp4").read_bytes())
    (raw / "readme.md").write_text("no film")
    recipe = replace(short_recipe, most_seconds=0.4)
    found = prepared(Films(raw, recipe), tmp_path / "corpus")
    texts = {found.corpus.read_meta(clip)["file"]: clip for clip in found.corpus}
    assert set(texts) == {
        "Jörg Müller/erster Film.mp4",
        "Jörg Müller/zweiter Film.mp4",
        "李雷/一.mp4",
        "copy of plain.mp4",
        "plain.mpg",
        "late.mp4",
    }
    check_clips(found, set(found.clips))
    check_rejected(
        found,
        {
            "broken film.mp4": ("read", "damaged"),
            "long sound.mp4": ("sound", "the sound lasts 2.0"),
            "plain.mp4": ("duplicate", "copy of plain.mp4"),
            "late.mp4": ("landmarks", "no face is found in frames 0 to 7, 0.00-0.32 s"),
        },
    )
    first = texts["Jörg Müller/erster Film.mp4"]
    assert first.transcript == "Guten Morgen, welt" and first.subject == "Jörg Müller"
    assert first.split == texts["Jörg Müller/zweiter Film.mp4"].split
    late = texts["late.mp4"]
    assert late.num_frames == 6 and found.corpus.read_meta(late)["start"] == pytest.approx(0.32)


# a film of each set whose sound is in step, and one whose sound is late
IN_AND_OUT_OF_STEP = {
    Mead: ("M003/video/front/angry/level_2/001.mp4", "M003/video/front/angry/level_2/002.mp4"),
    Grid: ("s3/swiz3n.mpg", "s3/bbaf2n.mpg"),
    Ravdess: ("Actor_01/01-01-03-02-01-01-01.mp4", "Actor_01/01-01-04-01-01-01-01.mp4"),
    CremaD: ("VideoFlash/1001_DFA_ANG_XX.flv", "VideoFlash/1001_IEO_SAD_HI.flv"),
    Films: ("somebody/one.mp4", "somebody/two.mp4"),
}


@pytest.mark.parametrize("kind", IN_AND_OUT_OF_STEP)
def test_sound_out_of_step_is_found_in_every_set(
    kind: type,
    raw_films: SimpleNamespace,
    prepared: Prepared,
    sync_expert,
    short_recipe: FilmRecipe,
    tmp_path: Path,
) -> None:
    """With an expert handed in: what may not be shifted is left out, with the offset as its score."""
    raw = tmp_path / "raw"
    for file, late in zip(IN_AND_OUT_OF_STEP[kind], (0, 5), strict=True):
        beside = raw / file.replace("video/front", "audio").replace(".mp4", ".m4a") if kind is Mead else None
        raw_films.late(raw / file, late, beside)
    recipe = replace(short_recipe, size=96, most_offset=2.0)
    found = prepared(kind(raw, recipe, sync=sync_expert), tmp_path / "corpus")
    good, bad = IN_AND_OUT_OF_STEP[kind]
    check_rejected(found, {bad: ("sync", "frames late")})
    [clip] = found.corpus
    meta = found.corpus.read_meta(clip)
    assert meta["file"] == good and abs(meta["sync"]["offset"]) <= 1


def test_a_table_of_transcripts(
    raw_films: SimpleNamespace, prepared: Prepared, short_recipe: FilmRecipe, tmp_path: Path
) -> None:
    raw_films.talking(tmp_path / "raw" / "a film.mp4")
    table = tmp_path / "texts.tsv"
    table.write_text("a film.mp4\tHELLO THERE\n")
    found = prepared(Films(tmp_path / "raw", short_recipe, transcripts=table), tmp_path / "corpus")
    assert [clip.transcript for clip in found.corpus] == ["HELLO THERE"]
    table.write_text("a film.mp4 HELLO\n")
    with pytest.raises(TalkfaceError, match=r"line 1 of .* has no tab"):
        Films(tmp_path / "raw", short_recipe, transcripts=table).items()


@pytest.mark.parametrize("kind", [Mead, Grid, Ravdess, CremaD, Films])
def test_a_wrong_folder_is_named(kind: type, tmp_path: Path) -> None:
    with pytest.raises(TalkfaceError, match="is no folder"):
        kind(tmp_path / "nowhere").items()
    (tmp_path / "notes.txt").write_text("other things")
    with pytest.raises(TalkfaceError, match="looked for") as error:
        kind(tmp_path, FilmRecipe()).items()
    assert kind.about.looks_for[0] in str(error.value) and "1 other files" in str(error.value)


@pytest.mark.parametrize("kind", [Mead, Grid, Ravdess, CremaD, Films])
def test_settings_tell_recipes_apart(kind: type, tmp_path: Path) -> None:
    plain = kind(tmp_path).settings()
    other = kind(tmp_path, replace(kind.usual, quality=90)).settings()
    assert plain != other and plain["set"] == kind.__name__ and plain["sync"] is None
