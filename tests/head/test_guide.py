"""The animated photograph: at its own expression it is the photograph; commanded, the mouth does what it is told."""

import pytest
import torch

from talkface.data.synthetic.appearance import sample_person
from talkface.data.synthetic.scene import Scene, render
from talkface.head import HeadModel
from talkface.head.fit import HeadFitter
from talkface.head.guide import Guide
from talkface.head.raster import Window

SIZE = 128


@pytest.fixture(scope="module")
def photograph(actions):
    """Head, fitter, guide; picture (1, 3, S, S), landmarks and fit of a rendered person with closed lips."""
    head = HeadModel.load()
    drawn = render(
        head, sample_person(5, head), actions(), None, Scene(3, jitter=0.0, face_scale=1.0), size=SIZE
    )
    picture = drawn.images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    points = drawn.landmarks.float()
    fitter = HeadFitter(head)
    return head, fitter, Guide(head), picture, points, fitter(points)


def mouth(pictures):
    return pictures[:, :, 70:115, 40:88]


def test_at_its_own_expression_it_is_the_photograph(photograph):
    _, _, guide, picture, points, fitted = photograph
    drawn, covered, *_ = guide(guide.source(picture, fitted, points), fitted.actions, fitted, picture)
    assert float((mouth(drawn) - mouth(picture)).abs().mean()) < 0.03
    assert float(covered[:, :, 75:105, 50:78].min()) > 0.99


def test_what_it_does_not_cover_is_the_canvas(photograph):
    _, _, guide, picture, points, fitted = photograph
    canvas = torch.full_like(picture, 0.25)
    drawn, covered, *_ = guide(guide.source(picture, fitted, points), fitted.actions, fitted, canvas)
    bare = (covered == 0).expand_as(drawn)
    assert torch.equal(drawn[bare], canvas[bare])
    assert float(covered[:, :, :40].max()) == 0.0  # the eyes are not its business


def test_the_jaw_opens_a_dark_mouth_that_grows_with_the_command(photograph, actions):
    _, _, guide, picture, points, fitted = photograph
    source = guide.source(picture, fitted, points)
    wanted = torch.cat([actions(jawOpen=jaw) for jaw in (0.0, 0.3, 0.6)])
    drawn = guide(source, wanted, fitted, picture.expand(3, -1, -1, -1)).pictures
    dark = [(mouth(drawn[k : k + 1]).mean(1) < -0.5).float().mean().item() for k in range(3)]
    assert dark[0] < dark[1] < dark[2] and dark[2] > dark[0] + 0.03


def test_it_animates_towards_the_true_picture(photograph, actions):
    """Closer to the person's real open mouth than the photograph is."""
    head, _, guide, picture, points, fitted = photograph
    wanted = actions(jawOpen=0.5, mouthLowerDown=0.2)
    real = render(head, sample_person(5, head), wanted, None, Scene(3, jitter=0.0, face_scale=1.0), size=SIZE)
    real_picture = real.images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    drawn = guide(guide.source(picture, fitted, points), wanted, fitted, picture).pictures
    errors = [float((mouth(p) - mouth(real_picture)).square().mean()) for p in (drawn, picture)]
    assert errors[0] < 0.5 * errors[1]


def test_frames_do_not_depend_on_their_company(photograph, actions):
    _, _, guide, picture, points, fitted = photograph
    source = guide.source(picture, fitted, points)
    wanted = torch.cat([actions(jawOpen=0.4), actions(mouthPucker=0.7)])
    both = guide(source, wanted, fitted, picture.expand(2, -1, -1, -1)).pictures
    alone = guide(source, wanted[1:], fitted, picture).pictures
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=0)


def test_one_canvas_serves_all_frames(photograph, actions):
    _, _, guide, picture, points, fitted = photograph
    source, wanted = (
        guide.source(picture, fitted, points),
        torch.cat([actions(jawOpen=j) for j in (0.1, 0.4)]),
    )
    one, many = (guide(source, wanted, fitted, canvas) for canvas in (picture, picture.expand(2, -1, -1, -1)))
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))


def test_lips_are_not_looked_up_on_teeth(photograph, actions):
    """With white teeth shown by the photograph, lips that close are no whiter than lips."""
    head, fitter, guide, *_ = photograph
    smile = actions(mouthSmile=0.5, mouthUpperUp=0.6, mouthLowerDown=0.5, jawOpen=0.15)
    drawn = render(head, sample_person(5, head), smile, None, Scene(3, jitter=0.0, face_scale=1.0), size=SIZE)
    picture = drawn.images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    points = drawn.landmarks.float()
    fitted = fitter(points + torch.randn(points.shape, generator=torch.Generator().manual_seed(0)))
    closed = actions()
    kept, cured = (
        guide(guide.source(picture, fitted, p), closed, fitted, picture)[0] for p in (None, points)
    )
    colourless = [float((p.amin(1) > 0.2).float()[:, 80:105, 48:80].sum()) for p in (kept, cured)]
    assert colourless[1] <= colourless[0]


def test_lips_that_the_photograph_shows_apart_meet_in_a_dark_line(photograph, actions, monkeypatch):
    head, fitter, guide, closed_picture, closed_points, closed_fit = photograph
    ajar = actions(jawOpen=0.12)
    drawn = render(head, sample_person(5, head), ajar, None, Scene(3, jitter=0.0, face_scale=1.0), size=SIZE)
    picture, points = drawn.images.permute(0, 3, 1, 2).float() / 127.5 - 1.0, drawn.landmarks.float()
    fitted = fitter(points)

    def closing(photo, marks, fit):
        source = guide.source(photo, fit, marks)
        return guide(source, actions(), fit, photo).pictures

    photographs = ((picture, points, fitted), (closed_picture, closed_points, closed_fit))
    with_line = [closing(*p) for p in photographs]
    monkeypatch.setattr("talkface.head.inside._LINE_DARKNESS", 0.0)
    parted, together = (a - closing(*p) for a, p in zip(with_line, photographs, strict=True))
    assert torch.equal(together, torch.zeros_like(together)), "closed lips have their own line"
    rows = parted.mean((0, 1, 3))
    x, y = (float(points[0, [62, 66], k].mean()) for k in (0, 1))
    assert float(parted.max()) < 1e-6 and float(parted.min()) < -0.1
    assert abs(int(rows.argmin()) - y) < 5 and float(parted[..., : int(x) - 25].min()) > -0.01


def test_teeth_that_the_photograph_shows_are_its_own(photograph, actions):
    """Green teeth in the photograph are green in the animation, and white ones are white."""
    head, fitter, guide, *_ = photograph
    smile = actions(mouthSmile=0.6, mouthUpperUp=0.8, mouthLowerDown=0.4, jawOpen=0.12)
    drawn = render(head, sample_person(5, head), smile, None, Scene(3, jitter=0.0, face_scale=1.0), size=SIZE)
    picture = drawn.images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    points = drawn.landmarks.float()
    fitted = fitter(points)
    wider = actions(jawOpen=0.3, mouthUpperUp=0.5)
    source = guide.source(picture, fitted, points)
    assert float(source.teeth.sum()) > 10.0
    x, y = (int(points[0, 60:68, k].mean().round()) for k in (0, 1))
    tinted = picture.clone()
    tinted[:, 0, y - 6 : y + 6, x - 12 : x + 12] -= 0.12  # red down, where the teeth are
    results = [guide(guide.source(p, fitted, points), wider, fitted, p) for p in (picture, tinted)]
    own = [r.pictures[:, :, y - 4 : y + 8, x - 8 : x + 8] for r in results]
    assert float((own[0] - own[1])[:, 0].mean()) > 0.02
    assert float((own[0] - own[1])[:, 1:].abs().mean()) < 0.03


def test_teeth_are_found_in_coloured_light_too(photograph, actions):
    """Under an orange lamp they are as orange as skin in white light; lips are redder still."""
    head, fitter, guide, *_ = photograph
    smile = actions(mouthSmile=0.6, mouthUpperUp=0.8, mouthLowerDown=0.4, jawOpen=0.12)
    drawn = render(head, sample_person(5, head), smile, None, Scene(3, jitter=0.0, face_scale=1.0), size=SIZE)
    linear = (drawn.images.permute(0, 3, 1, 2).float() / 255.0) ** 2.2
    points = drawn.landmarks.float()
    lamp = torch.tensor([1.25, 0.8, 0.35])[None, :, None, None]
    white, orange = (
        guide.source((linear * part).clamp(0, 1) ** (1 / 2.2) * 2 - 1, fitter(points), points)
        for part in (torch.ones(1, 3, 1, 1), lamp)
    )
    found, again = white.teeth > 0.5, orange.teeth > 0.5
    assert int(found.sum()) > 10
    assert float((found & again).sum() / (found | again).sum()) > 0.8
    teeth = [source.light * source.teeth_tint for source in (white, orange)]
    ratio = teeth[1] / teeth[0]
    torch.testing.assert_close(ratio[:, 0] / ratio[:, 2], torch.tensor([1.25 / 0.35]), atol=1.0, rtol=0)


def test_a_mouth_that_shows_no_teeth_has_none_of_its_own(photograph):
    _, _, guide, picture, points, fitted = photograph
    source = guide.source(picture, fitted, points)
    assert float(source.teeth.max()) < 0.05
    torch.testing.assert_close(source.teeth_tint, torch.ones(1, 3), atol=0.05, rtol=0)


def test_the_flow_leads_to_where_the_photograph_was_looked_up(photograph, actions):
    _, _, guide, picture, points, fitted = photograph
    source = guide.source(picture, fitted)
    still = guide(source, fitted.actions, fitted, picture)
    skin = (still.covered[:, 0] > 0.999) & (still.inside[:, 0] == 0)
    assert float(still.flow.movedim(1, -1)[skin].abs().mean()) < 0.3
    opened = guide(source, fitted.actions + actions(jawOpen=0.5), fitted, picture)
    x, y = (int(value) for value in points[0, 8].round())
    assert float(opened.flow[0, 1, y - 2, x]) < -2.0, "the chin that is seen here was higher"
    y, x = torch.meshgrid(*(torch.arange(SIZE) + 0.5,) * 2, indexing="ij")
    places = torch.stack([x, y], dim=-1) + opened.flow[0].movedim(0, -1)
    found = torch.nn.functional.grid_sample(picture, places[None] * 2 / SIZE - 1, align_corners=False)
    sure = (opened.covered > 0.999) & (opened.inside == 0)
    assert float((found - opened.pictures).abs().mean(1, keepdim=True)[sure].median()) < 0.02


@pytest.mark.parametrize("supersample", [1, 2])
def test_nothing_is_lost_where_drawing_ends(photograph, actions, supersample, monkeypatch):
    """What is drawn in the window of a frame is what is drawn over the whole picture."""
    head, _, _, picture, points, fitted = photograph
    guide = Guide(head, supersample)
    source = guide.source(picture, fitted, points)
    wanted = torch.cat([actions(jawOpen=0.7), actions(mouthSmile=0.5)])
    canvas = picture.expand(2, -1, -1, -1)
    found = guide(source, wanted, fitted, canvas)
    monkeypatch.setattr(Guide, "_window", lambda self, screen, size: Window(0, size, 0, size))
    for name, part, whole in zip(found._fields, found, guide(source, wanted, fitted, canvas), strict=True):
        assert torch.equal(part, whole), name
