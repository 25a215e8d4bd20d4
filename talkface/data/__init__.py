"""Corpora on disk and the data sets that read them. `data.modules` holds the Lightning data modules."""

from talkface.data.base import EMOTIONS, Clip, ClipEntry, Corpus
from talkface.data.writer import CorpusWriter

__all__ = ["EMOTIONS", "Clip", "ClipEntry", "Corpus", "CorpusWriter"]
