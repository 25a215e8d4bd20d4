"""Editing: the order of things, the same bytes in every batch, guidance, interpolation, what stays untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talkface.checkpoint import Bundle, load_bundle
from talkface.data.synthetic.faces import FaceRecipe, make_faces, plan_faces
from talkface.diffusion.guidance import ClassifierFreeGuidance
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import editing_timesteps
from talkface.errors import TalkfaceError
from talkface.media import to_tensor
from talkface.metrics.paired import psnr
from talkface.pipelines.edited_face import Face
from talkface.pipelines.emotion_edit import EmotionEditPipeline
from talkface.pipelines.expression import condition, parse_expression, unconditioned
from talkface.pipelines.generate import EmotionPipeline
from talkface.pipelines.latent_editing import EditSettings, blend_expressions, slerp

FEW = EditSettings(num_inference_steps=3, guidance_scale=2.0)


class Brightness(torch.nn.Module):
    """Tells pictures apart: happy (1) when bright, sad (2) when dark."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = (images.mean(dim=(1, 2, 3)) > 0).float()
        return torch.nn.functional.one_hot((2 - bright).long(), 8).float()


@pytest.fixture(scope="module")
def bundle(tiny_editing_bundle: Path) -> Bundle:
    return load_bundle(tiny_editing_bundle)


@pytest.fixture(scope="module")
def pipeline(bundle: Bundle, drawn_face_finder) -> EmotionEditPipeline:
    return EmotionEditPipeline(bundle, "fp32", drawn_face_finder, group=2)


@pytest.fixture(scope="module")
def squares(pipeline: EmotionEditPipeline) -> list[Face]:
    """Three aligned pictures of 64 pixels: smooth, so that the resampling of the pipeline costs nothing."""
    ramps = np.linspace(30, 220, 64)[None, :, None] * np.array([1.0, 0.8, 0.6])
    pictures = [np.clip(ramps * share, 0, 255) for share in (0.3, 0.6, 1.5)]
    whole = [np.broadcast_to(p, (64, 64, 3)).astype(np.uint8).copy() for p in pictures]
    return [pipeline.cut(picture, aligned=True) for picture in whole]


def edited(pipeline: EmotionEditPipeline, faces: list[Face], to: str, source: str = "neutral", **settings):
    made = pipeline(faces, [to], source=source, settings=replace(FEW, **settings))
    return [one.image for (one,) in made]


def test_an_edit_is_the_thesis_procedure(pipeline: EmotionEditPipeline, squares: list[Face]) -> None:
    """Its grid, its inversion (noise asked at the time to which a step leads), both ways guided alike."""
    editor = pipeline.editor
    latents = pipeline.encode(pipeline.images(squares[:2]))
    told = [parse_expression(name, pipeline.emotions, True) for name in ("sad", "happy")]
    nothing = unconditioned(editor.conditioner, 2, pipeline.device)
    x = latents
    times = editing_timesteps(5, 500)
    with torch.inference_mode():
        for expression, order in zip(told, (times, times.flip(0)), strict=True):
            predict = ClassifierFreeGuidance(
                editor.network,
                editor.schedule,
                "epsilon",
                condition(editor.conditioner, [expression] * 2, pipeline.device),
                {"all": nothing},
                {"all": 3.0},
            )
            x = DDIM(editor.schedule, compat="thesis").sample(predict, x, order)
    settings = EditSettings(num_inference_steps=5)
    torch.testing.assert_close(editor.edit(latents, told[:1] * 2, told[1:] * 2, settings), x)


def test_the_same_bytes_whatever_a_picture_is_edited_with(
    pipeline: EmotionEditPipeline, squares: list[Face]
) -> None:
    together = edited(pipeline, squares, "happy", eta=0.5)  # groups of 2: the last is filled up
    for number, face in enumerate(squares):
        assert np.array_equal(edited(pipeline, [face], "happy", eta=0.5)[0], together[number])
    assert not np.array_equal(edited(pipeline, squares[:1], "happy", eta=0.5, seed=1)[0], together[0])
    assert edited(pipeline, [], "happy") == []


def test_targets_share_an_inversion_and_come_out_as_alone(
    pipeline: EmotionEditPipeline, squares: list[Face]
) -> None:
    both = list(pipeline(squares, ["happy", "fear"], source="neutral", settings=FEW))
    assert len(both) == 3 and all(len(made) == 2 for made in both)
    for number, to in enumerate(("happy", "fear")):
        for made, alone in zip(both, edited(pipeline, squares, to), strict=True):
            assert np.array_equal(made[number].image, alone)
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    list(pipeline(squares[:2], ["happy", "fear"], source="neutral", settings=FEW, keep_going=count))
    assert calls == 3 * 3  # one way up, two ways down


@pytest.mark.parametrize("solver", ["ddim", "plms", "dpm++2m"])
def test_there_and_back_is_nearly_the_picture(
    pipeline: EmotionEditPipeline, squares: list[Face], solver: str
) -> None:
    """In latents, which the codebook has not rounded: under one expression little is lost, under two much changes."""
    latents = pipeline.encode(pipeline.images(squares[:2]))
    settings = EditSettings(num_inference_steps=25, guidance_scale=1.0, solver=solver, strength=300)
    sad, happy = pipeline.expression("sad"), pipeline.expression("happy")
    noisy = pipeline.editor.invert(latents, [sad] * 2, settings)
    lost, changed = (
        float((pipeline.editor.denoise(noisy, [told] * 2, settings) - latents).square().mean().sqrt())
        for told in (sad, happy)
    )
    assert lost < 0.2 * changed


def test_guidance_zero_forgets_the_target_and_one_is_the_target_alone(
    pipeline: EmotionEditPipeline, squares: list[Face]
) -> None:
    def made(to: str, scale: float) -> np.ndarray:
        return edited(pipeline, squares[:1], to, "sad", guidance_scale=scale, inversion_guidance_scale=1.0)[0]

    assert np.array_equal(made("happy", 0.0), made("angry", 0.0))
    assert np.array_equal(made("happy", 0.0), made("none", 1.0))
    assert not np.array_equal(made("happy", 1.0), made("happy", 0.0))
    assert not np.array_equal(made("happy", 3.0), made("happy", 1.0))


def test_each_way_has_its_own_scale(pipeline: EmotionEditPipeline, squares: list[Face]) -> None:
    same = edited(pipeline, squares[:1], "happy", guidance_scale=3.0)
    told = edited(pipeline, squares[:1], "happy", guidance_scale=3.0, inversion_guidance_scale=3.0)
    other = edited(pipeline, squares[:1], "happy", guidance_scale=3.0, inversion_guidance_scale=1.0)
    assert np.array_equal(same[0], told[0]) and not np.array_equal(same[0], other[0])


@pytest.mark.parametrize(("strength", "steps"), [(1, 1), (2, 2), (1000, 4), (1000, 1)])
def test_the_whole_range_of_strength_works(
    pipeline: EmotionEditPipeline, squares: list[Face], strength: int, steps: int
) -> None:
    """1000 is where the thesis's code stops with an IndexError."""
    for solver in ("ddim", "plms", "dpm++2m"):
        image = edited(
            pipeline, squares[:1], "happy", strength=strength, num_inference_steps=steps, solver=solver
        )[0]
        assert image.shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strength": 0}, "strength: 0"),
        ({"strength": 1001}, "strength: 1001"),
        ({"strength": 20, "num_inference_steps": 21}, r"num_inference_steps: 21 with strength 20"),
        ({"num_inference_steps": 0}, "num_inference_steps: 0"),
        ({"guidance_scale": -1.0}, "guidance_scale: -1"),
        ({"inversion_guidance_scale": 51.0}, "inversion_guidance_scale: 51"),
        ({"solver": "euler"}, "ddim, plms"),
        ({"grid": "square"}, "log_snr"),
        ({"eta": 2.0}, "eta"),
        ({"eta": 0.5, "solver": "plms"}, "eta: 0.5 with solver plms"),
    ],
)
def test_settings_out_of_range(pipeline: EmotionEditPipeline, changes: dict, words: str) -> None:
    with pytest.raises(TalkfaceError, match=words):
        pipeline([], ["happy"], source="sad", settings=replace(FEW, **changes))


def test_auto_asks_the_classifier(bundle: Bundle, drawn_face_finder, squares: list[Face]) -> None:
    told = replace(bundle, parts=bundle.parts | {"classifier": Brightness()})
    pipeline = EmotionEditPipeline(told, "fp32", drawn_face_finder, group=2)
    made = [one for (one,) in pipeline(squares, ["fear"], settings=FEW)]
    assert [one.source.text for one in made] == ["sad", "sad", "happy"]
    assert [one.target.text for one in made] == ["fear"] * 3
    assert np.array_equal(made[2].image, edited(pipeline, squares[2:], "fear", source="happy")[0])


def test_auto_without_a_classifier_says_what_to_give(pipeline: EmotionEditPipeline) -> None:
    with pytest.raises(TalkfaceError, match=r"no emotion classifier.*neutral, happy"):
        pipeline([], ["happy"])


def test_a_bundle_without_emotions_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(
        TalkfaceError, match=r"edits no expressions: its network is told audio, emotion, frames"
    ):
        EmotionEditPipeline(load_bundle(tiny_bundle), "fp32")


def test_a_photograph_keeps_its_own_pixels_where_nothing_changed(
    pipeline: EmotionEditPipeline, draw_faces: Callable[..., np.ndarray]
) -> None:
    """Far from the face nothing changes; where the network changes hardly anything, the picture's noise stays."""
    picture = draw_faces(160, 240, [(60, 20, 128)])
    noise = np.random.default_rng(0).integers(-20, 20, picture.shape)
    picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    # the finder looks for the face without the noise
    face = pipeline.cut(draw_faces(160, 240, [(60, 20, 128)]))
    from talkface.portrait.crop import AlignedCrop

    face = replace(
        face, picture=picture, crop=AlignedCrop.from_matrix(picture, face.crop.matrix, face.crop.size)
    )
    assert face.faces == 1 and face.crop.size % 32 == 0 and face.crop.size > 32
    strong = next(iter(pipeline([face], ["happy"], source="sad", settings=replace(FEW, guidance_scale=9.0))))[
        0
    ]
    changed = (strong.image != picture).any(axis=2)
    assert changed.any() and strong.face.shape == (face.crop.size, face.crop.size, 3)
    assert not changed[:, :40].any() and not changed[:, 215:].any()
    weak = replace(FEW, strength=1, num_inference_steps=1, guidance_scale=1.0)
    still = next(iter(pipeline([face], ["sad"], source="sad", settings=weak)))[0]
    difference = np.abs(still.image.astype(int) - picture)
    assert difference.max() <= 3  # although first stage and small size keep nothing of the noise


def test_a_photograph_without_colours_stays_without(
    pipeline: EmotionEditPipeline, draw_faces: Callable[..., np.ndarray]
) -> None:
    face = pipeline.cut(draw_faces(160, 240, [(60, 20, 128)]))
    grey = np.repeat(face.picture.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    from talkface.portrait.crop import AlignedCrop

    face = replace(face, picture=grey, crop=AlignedCrop.from_matrix(grey, face.crop.matrix, face.crop.size))
    settings = replace(FEW, guidance_scale=9.0)
    edited = next(iter(pipeline([face], ["happy"], source="sad", settings=settings)))[0].image
    assert (edited != grey).any()
    assert (edited == edited[..., :1]).all()


def test_aligned_pictures_are_taken_as_they_are(pipeline: EmotionEditPipeline) -> None:
    rng = np.random.default_rng(1)
    for side in (32, 40, 100):
        picture = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
        face = pipeline.cut(picture, aligned=True)
        assert (face.mask == 1).all() and face.crop.size == 32 * max(1, round(side / 32))
        made = edited(pipeline, [face], "happy")[0]
        assert made.shape == picture.shape and not np.array_equal(made, picture)
    for shape in ((32, 33, 3), (16, 16, 3)):
        with pytest.raises(TalkfaceError, match="must be square"):
            pipeline.cut(np.zeros(shape, np.uint8), "a.png", aligned=True)


def test_interpolation_begins_and_ends_with_the_cycles(
    pipeline: EmotionEditPipeline, squares: list[Face]
) -> None:
    faces = pipeline.interpolate(squares[0], squares[2], 5, source="sad", settings=FEW)
    assert len(faces) == 5
    cycle = pipeline.reconstruct(pipeline.images(squares), source="sad", settings=FEW)["cycle"]
    for face, image in ((faces[0], cycle[0]), (faces[-1], cycle[2])):
        assert float(psnr(to_tensor(face), image[None])) > 45
    with pytest.raises(TalkfaceError, match="2 or more"):
        pipeline.interpolate(squares[0], squares[1], 1, source="sad")


def test_slerp_stays_on_the_sphere() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 8, 8, generator=generator)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    middle = slerp(a, b, 0.5)
    assert float(middle.norm()) == pytest.approx(float(a.norm() + b.norm()) / 2, rel=1e-5)
    # equal angles to both ends
    cosines = [float((middle * end).sum() / end.norm() / middle.norm()) for end in (a, b)]
    assert cosines[0] == pytest.approx(cosines[1], abs=1e-5)
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), 1.5 * a)


def test_expressions_between_two() -> None:
    names = ["neutral", "happy", "sad"]
    happy, sad = (parse_expression(name, names, False) for name in ("happy", "sad"))
    assert blend_expressions(happy, sad, 0.25).shares == ((1, 0.75), (2, 0.25))
    assert blend_expressions(happy, happy, 0.5).shares == ((1, 1.0),)


def test_a_network_that_is_shown_the_person(
    tiny_reference_bundle: Path, squares: list[Face], drawn_face_finder
) -> None:
    """It sees picture and guide both ways, the same in every batch, and makes faces without either, too."""
    shown = EmotionEditPipeline(load_bundle(tiny_reference_bundle), "fp32", drawn_face_finder, group=2)
    editor, told = shown.editor, [parse_expression("happy", shown.emotions, True)] * 3
    latents = shown.encode(shown.images(squares))
    with_it = editor.edit(latents, told, told, FEW, shown=shown.shown(latents))
    for other in (shown.shown(latents.flip(0)), shown.shown(latents, latents.flip(0)), None):
        assert not torch.allclose(
            with_it[0], editor.edit(latents, told, told, FEW, shown=other)[0], atol=1e-3
        )
    together = edited(shown, squares, "happy")
    alone = [edited(shown, [face], "happy")[0] for face in squares]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    # weighed against the picture, nothing is left of guide and label at a scale of 0; of the guide alone at 1
    other = shown.shown(latents, latents.flip(0))
    weighed = [replace(FEW, start="picture", guidance_scale=scale) for scale in (0.0, 1.0, 3.0)]
    none, once, thrice = (editor.denoise(latents, told, settings, shown=other) for settings in weighed)
    unguided = [parse_expression("none", shown.emotions, True)] * 3
    plain = editor.denoise(latents, unguided, replace(FEW, guidance_scale=1.0), shown=shown.shown(latents))
    assert torch.allclose(none, plain, atol=1e-5) and not torch.allclose(none, once, atol=1e-3)
    assert not torch.allclose(thrice, once, atol=1e-3)
    # guidance stops a little beyond the guide, on both sides of the picture; a picture that is its own guide is free
    strong = replace(FEW, start="picture", guidance_scale=20.0)
    free, near, none_beyond = (
        editor.denoise(latents, told, replace(strong, overshoot=room), shown=other)
        for room in (1000.0, 0.2, 0.0)
    )
    away = (latents.flip(0) - latents).abs()
    for made, room in ((near, 0.2), (none_beyond, 0.0)):
        assert ((made - latents).abs() - away - room)[::2].max() < 0.02
        assert torch.equal(made[1], free[1])  # the one in the middle
    assert ((free - latents).abs() - away)[::2].max() > 0.3
    guided = replace(FEW, guidance_scale=3.0)
    assert not torch.allclose(thrice, editor.denoise(latents, told, guided, shown=other), atol=1e-3)
    cycle = shown.reconstruct(shown.images(squares[:1]), source="happy", settings=FEW)["cycle"]
    own = shown.shown(latents[:1])
    assert torch.equal(cycle, shown.decode(editor.edit(latents[:1], told[:1], told[:1], FEW, shown=own)))
    bundle = load_bundle(tiny_reference_bundle)
    [face] = EmotionPipeline(bundle, "fp32", group=1)([("happy", 0)], num_inference_steps=2)
    assert face.shape == (32, 32, 3)


def test_changes_are_laid_over_the_guide(tiny_reference_bundle: Path, drawn_face_finder) -> None:
    """The mouth moves at the picture's own resolution; where nothing is told the picture stays as it is."""
    recipe = FaceRecipe(
        identities=1, faces_per_identity=8, size=96, val_people=0, test_people=0, supersample=1
    )
    [[plan]] = plan_faces(recipe).values()
    neutral = make_faces(recipe, plan)[plan.emotions.index(0)]
    picture = cv2.imdecode(np.frombuffer(neutral.frames[0], np.uint8), cv2.IMREAD_COLOR_RGB)
    image, points = to_tensor(picture), neutral.truth["landmarks"][0]
    pipeline = EmotionEditPipeline(load_bundle(tiny_reference_bundle), "fp32", drawn_face_finder)
    told = [parse_expression(text, pipeline.emotions, True) for text in ("surprised", "none", "AU26=1")]
    surprised, nothing, jaw = pipeline.guides(image, points, told)
    assert torch.equal(nothing, image)
    low, high = points[48:68].min(0).astype(int), points[48:68].max(0).astype(int)
    for drawn in (surprised, jaw):
        change = (drawn - image).abs().mean(1)[0]
        assert change[low[1] : high[1], low[0] : high[0]].mean() > 0.05 > change[:8].mean()
    assert all(torch.equal(one, image) for one in pipeline.guides(image, None, told))
