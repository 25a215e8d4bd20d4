"""The rasteriser against a per-pixel reference, and its promises: depth order, perspective, batches."""

import pytest
import torch

from talkface.head.raster import Window, rasterize, rasterize_fragments


def brute_force(
    points: torch.Tensor, faces: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest face and its depth at every pixel centre, one triangle at a time, in float64."""
    points = points.double()
    y, x = torch.meshgrid(
        torch.arange(height).double() + 0.5, torch.arange(width).double() + 0.5, indexing="ij"
    )
    face = torch.full((height, width), -1)
    depth = torch.full((height, width), float("inf"), dtype=torch.float64)
    for number, corners in enumerate(points[faces]):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = corners
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0:
            continue
        wa = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
        wb = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
        wc = 1 - wa - wb
        here = 1 / (wa / az + wb / bz + wc / cz)
        nearer = (wa >= 0) & (wb >= 0) & (wc >= 0) & (here < depth)
        face[nearer] = number
        depth[nearer] = here[nearer]
    return face, depth


def random_triangles(seed: int, count: int = 40, size: float = 32.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(3 * count, 3, generator=generator)
    points[:, :2] = points[:, :2] * (size + 16) - 8
    points[:, 2] = points[:, 2] * 3 + 0.5
    return points, torch.arange(3 * count).view(count, 3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_brute_force_on_random_triangles(seed: int) -> None:
    points, faces = random_triangles(seed)
    face, _, depth = rasterize(points[None], faces, 32, 40, cull=False)
    expected_face, expected_depth = brute_force(points, faces, 32, 40)
    differs = face[0] != expected_face
    # only pixel centres that fall on an edge within rounding may differ
    assert differs.float().mean() < 0.003
    same = ~differs & (expected_face >= 0)
    torch.testing.assert_close(depth[0][same].double(), expected_depth[same], rtol=1e-4, atol=1e-5)
    assert (expected_face >= 0).float().mean() > 0.5


def test_nearer_triangle_wins_whatever_the_order() -> None:
    near = torch.tensor([[0.0, 0, 1], [0, 8, 1], [8, 0, 1]])
    far = near.clone()
    far[:, 2] = 2.0
    for points, expected in ((torch.cat([near, far]), 0), (torch.cat([far, near]), 1)):
        face, _, depth = rasterize(points[None], torch.arange(6).view(2, 3), 8, 8, cull=False)
        assert int(face[0, 1, 1]) == expected
        assert float(depth[0, 1, 1]) == pytest.approx(1.0)


def test_interpolation_is_perspective_correct() -> None:
    """Along an edge from depth 1 to depth 3, the point halfway on the screen is a quarter of the way in
    space."""
    points = torch.tensor([[[0.0, -100.5, 1.0], [0.0, 101.5, 1.0], [100.0, 0.5, 3.0]]])
    found = rasterize_fragments(points, torch.tensor([[0, 1, 2]]), 1, 100, cull=False)
    middle = found.pixel.tolist().index(49)
    share = 49.5 / 100
    expected = (share / 3) / ((1 - share) / 1 + share / 3)
    assert float(found.barycentric[middle, 2]) == pytest.approx(expected, abs=1e-4)
    assert float(found.depth[middle]) == pytest.approx(1 / ((1 - share) / 1 + share / 3), abs=1e-4)


def test_back_faces_are_culled() -> None:
    counter_clockwise = torch.tensor([[[1.0, 7, 1], [7, 7, 1], [1, 1, 1]]])  # y points down
    seen, _, _ = rasterize(counter_clockwise, torch.tensor([[0, 1, 2]]), 8, 8)
    hidden, _, _ = rasterize(counter_clockwise, torch.tensor([[0, 2, 1]]), 8, 8)
    assert (seen >= 0).sum() > 10
    assert (hidden >= 0).sum() == 0


def test_shared_edges_leave_no_hole() -> None:
    generator = torch.Generator().manual_seed(3)
    grid = torch.stack(torch.meshgrid(torch.linspace(0, 32, 9), torch.linspace(0, 32, 9), indexing="ij"), -1)
    inner = grid[1:-1, 1:-1]
    inner += torch.rand(inner.shape, generator=generator) * 2 - 1
    points = torch.cat([grid.reshape(-1, 2), torch.ones(81, 1)], dim=1)
    corner = (torch.arange(8)[:, None] * 9 + torch.arange(8)).reshape(-1)
    quads = torch.stack([corner, corner + 1, corner + 10, corner + 9], dim=1)
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    face, barycentric, _ = rasterize(points[None], faces, 32, 32, cull=False)
    assert (face >= 0).all()
    torch.testing.assert_close(barycentric.sum(-1), torch.ones(1, 32, 32))


def test_batch_equals_one_by_one() -> None:
    points = torch.stack([random_triangles(seed)[0] for seed in range(3)])
    faces = random_triangles(0)[1]
    together = rasterize(points, faces, 24, 24, cull=False)
    for number in range(3):
        alone = rasterize(points[number : number + 1], faces, 24, 24, cull=False)
        for batched, single in zip(together, alone, strict=True):
            assert torch.equal(batched[number], single[0])


def test_nothing_to_see() -> None:
    points = torch.tensor([[[100.0, 100, 1], [110, 100, 1], [100, 110, 1]]])
    face, barycentric, depth = rasterize(points, torch.tensor([[0, 1, 2]]), 8, 8, cull=False)
    assert (face == -1).all() and (barycentric == 0).all() and depth.isinf().all()
    behind = torch.tensor([[[0.0, 0, -1], [8, 0, -1], [0, 8, -1]]])
    assert (rasterize(behind, torch.tensor([[0, 1, 2]]), 8, 8, cull=False)[0] == -1).all()


def test_a_window_holds_exactly_the_pixels_of_the_whole() -> None:
    batch = torch.stack([random_triangles(seed)[0] for seed in (4, 5)])
    faces = random_triangles(4)[1]
    window = Window(7, 25, 3, 33)
    whole = rasterize_fragments(batch, faces, 32, 40, cull=False)
    part = rasterize_fragments(batch, faces, 32, 40, cull=False, window=window)
    row, column = whole.pixel // 40 % 32, whole.pixel % 40
    within = (row >= 7) & (row < 25) & (column >= 3) & (column < 33)
    at = (whole.batch * window.height + row - 7) * window.width + column - 3
    assert torch.equal(part.pixel, at[within])
    for name in ("face", "batch", "barycentric", "depth"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[within]), name
