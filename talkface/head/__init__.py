"""The parametric head: identity and 52 facial actions -> vertices, and the rasteriser that draws them."""

from talkface.head.model import ACTIONS, PARTS, HeadModel
from talkface.head.raster import Fragments, rasterize, rasterize_fragments

__all__ = ["ACTIONS", "PARTS", "Fragments", "HeadModel", "rasterize", "rasterize_fragments"]
