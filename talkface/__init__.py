"""talkface: talking faces and facial reenactment with diffusion models."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["EmotionEditPipeline", "TalkfaceError", "TalkingFacePipeline", "__version__"]

if TYPE_CHECKING:
    from talkface.errors import TalkfaceError
    from talkface.pipelines.emotion_edit import EmotionEditPipeline
    from talkface.pipelines.talking_face import TalkingFacePipeline


def __getattr__(name: str) -> object:
    """Import the public names when they are first used, so that `import talkface` costs nothing."""
    if name == "TalkingFacePipeline":
        from talkface.pipelines.talking_face import TalkingFacePipeline

        return TalkingFacePipeline
    if name == "EmotionEditPipeline":
        from talkface.pipelines.emotion_edit import EmotionEditPipeline

        return EmotionEditPipeline
    if name == "TalkfaceError":
        from talkface.errors import TalkfaceError

        return TalkfaceError
    raise AttributeError(f"module 'talkface' has no attribute {name!r}")
