"""The face recogniser: tells faces apart where it is installed, says what to install where it is not."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from talkface.errors import TalkfaceError
from talkface.experts.identity import DlibRecogniser


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(TalkfaceError, match=r"pip install 'talkface\[identity\]'"):
        DlibRecogniser()


def test_one_face_is_nearer_to_itself_than_to_another(draw_faces) -> None:
    pytest.importorskip("dlib")
    pytest.importorskip("skimage")
    from skimage import data

    from talkface.checkpoint import load_bundle
    from talkface.experts.faces import NetworkFaceFinder

    portrait = data.astronaut()
    finder = NetworkFaceFinder(load_bundle("default", parts=["landmarks"]).part("landmarks"))
    points = finder.find(portrait)[0].points
    recogniser = DlibRecogniser()
    one = recogniser.describe(portrait, points)
    assert one.shape == (128,) and recogniser.distance(one, one) == 0
    smaller = portrait[::2, ::2]
    assert recogniser.distance(one, recogniser.describe(smaller, points / 2)) < 0.3
    darker = (portrait[20:420, 60:460] * 0.7).astype(np.uint8)
    assert recogniser.distance(one, recogniser.describe(darker, points - (60, 20))) < 0.3
    drawn = draw_faces(200, 200, [(4, 4, 192)])
    assert recogniser.distance(one, recogniser.describe(drawn, finder.find(drawn)[0].points)) > 0.6
