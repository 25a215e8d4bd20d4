"""Pictures, films and sound: read anything common, write standard files, never half of one.

Inside the library images are float NCHW in [-1, 1] (`to_tensor`, `to_uint8`); here, at the edge, uint8 HWC
RGB. Sound is mono float32 in [-1, 1]. Needs Pillow and PyAV only; there is no ffmpeg program to install.
"""

from talkface.media.films import VideoReader, exact_rate, is_video, open_video
from talkface.media.output import check_output
from talkface.media.pictures import read_image, to_tensor, to_uint8, write_image
from talkface.media.sound import Audio, read_audio
from talkface.media.writer import VideoWriter

__all__ = [
    "Audio",
    "VideoReader",
    "VideoWriter",
    "check_output",
    "exact_rate",
    "is_video",
    "open_video",
    "read_audio",
    "read_image",
    "to_tensor",
    "to_uint8",
    "write_image",
]
