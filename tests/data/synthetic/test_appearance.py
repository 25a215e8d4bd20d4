"""Random people: determinism, range, and maps that make sense."""

import pytest
import torch

from talkface.data.synthetic.appearance import BEARDS, HAIR_STYLES, Person, sample_person
from talkface.data.synthetic.atlas import FaceAtlas, squeeze, unsqueeze
from talkface.data.synthetic.texture import paint, polyline_distance
from talkface.head import HeadModel


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="module")
def atlas(head: HeadModel) -> FaceAtlas:
    return FaceAtlas(head, size=256)


@pytest.fixture(scope="module")
def people(head: HeadModel) -> list[Person]:
    return [sample_person(seed, head) for seed in range(300)]


def test_same_seed_same_person(head: HeadModel) -> None:
    first, second, other = sample_person(7, head), sample_person(7, head), sample_person(8, head)
    assert torch.equal(first.identity, second.identity) and torch.equal(first.skin, second.skin)
    assert first.numbers == second.numbers
    assert not torch.equal(first.identity, other.identity) and first.numbers != other.numbers


def test_people_are_various(people: list[Person]) -> None:
    assert {person.hair_style for person in people} == set(HAIR_STYLES)
    assert {person.beard for person in people} == set(BEARDS)
    assert 0.1 < sum(person.glasses for person in people) / len(people) < 0.4
    brightness = torch.stack([person.skin for person in people]).mean(1)
    assert brightness.min() < 0.06 and brightness.max() > 0.6
    for person in people:
        for colour in (
            person.skin,
            person.lips,
            person.hair,
            person.brows,
            person.iris,
            person.cloth,
            person.teeth,
        ):
            assert ((colour >= 0) & (colour <= 1.2)).all()


def test_atlas_reaches_around_the_head_and_back() -> None:
    s = torch.linspace(-0.31, 0.31, 101)
    torch.testing.assert_close(unsqueeze(squeeze(s)), s, atol=1e-6, rtol=0)
    assert squeeze(s).abs().max() < 0.17


def test_lip_map_holds_the_lip_landmarks(head: HeadModel, atlas: FaceAtlas) -> None:
    lips = atlas.lips.reshape(-1)[atlas.index(atlas.to_texels(atlas.landmarks))]
    assert lips[[61, 62, 63, 65, 66, 67]].min() > 0.8
    assert lips[:48].max() < 0.05


def test_polyline_distance_known_answer(atlas: FaceAtlas) -> None:
    line = torch.tensor([[-0.02, 0.0], [0.02, 0.0]])
    distance, place = polyline_distance(atlas, line)
    row = int((atlas.t[:, 0] - 0.005).abs().argmin())
    column = int((atlas.s[0] - 0.010).abs().argmin())
    assert float(distance[row, column]) == pytest.approx(float(atlas.t[row, 0]), abs=1e-6)
    assert float(place[row, column]) == pytest.approx(0.5 + float(atlas.s[0, column]) / 0.04, abs=1e-5)
    assert distance[0, 0].isinf()


def test_maps_are_finite_and_deterministic(atlas: FaceAtlas, people: list[Person]) -> None:
    for person in people[:6]:
        texture, again = paint(atlas, person), paint(atlas, person)
        assert torch.equal(texture.albedo, again.albedo) and torch.equal(texture.hair, again.hair)
        assert (
            texture.albedo.isfinite().all()
            and ((texture.albedo[:, :3] > 0) & (texture.albedo[:, :3] < 1)).all()
        )
        assert ((texture.hair[:, 3] >= 0) & (texture.hair[:, 3] <= 1)).all()


def test_bald_people_have_no_hair_on_the_crown_and_beards_darken_fair_chins(
    atlas: FaceAtlas, people: list[Person]
) -> None:
    crown = atlas.index(atlas.to_texels(torch.tensor([0.0, 0.10])))
    chin = atlas.index(atlas.to_texels(torch.tensor([0.0, -0.100])))
    for style, expected in (("bald", 0.0), ("short", 1.0)):
        person = next(person for person in people if person.hair_style == style)
        assert float(paint(atlas, person).hair[crown, 3]) == pytest.approx(expected, abs=0.05)
    bearded = next(person for person in people if person.beard == "full")
    assert paint(atlas, bearded).beard_height[chin] > 0.5
    shaved = next(person for person in people if person.beard == "none")
    assert paint(atlas, shaved).beard_height.max() == 0
