"""Image and video files: where they are, what they show, and that brought to a frame.

* ``sources``: :func:`open_images` -> :class:`ImageSource`, what IMAGES means in every command.
* ``decoding``: the bytes of any common image file -> RGB pixels as a viewer shows them.
* ``video``: a video file -> the pixels of its frames, and when each is shown.
* ``framing``: pixels -> the square a network sees, and the :class:`~equimark.geometry.Placement` back; all images of
  a source in frames, decoded in threads, in order.

Sizes are ``(H, W)`` of the image as stored, after EXIF rotation; colours are RGB uint8.
An :class:`ImageError` about one file states the reason only: whoever knows the name puts it in front.
"""

from equimark.images.decoding import (
    IMAGE_SUFFIXES,
    Decoded,
    ImageError,
    Pixels,
    decode,
    decode_labels,
    stored_size,
)
from equimark.images.framing import Box, Framed, Unreadable, frame_image, frame_labels, read_framed
from equimark.images.sources import LIST_SUFFIXES, ImageSource, open_images
from equimark.images.video import VIDEO_SUFFIXES, Video, import_av

__all__ = [
    "IMAGE_SUFFIXES",
    "LIST_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Box",
    "Decoded",
    "Framed",
    "ImageError",
    "ImageSource",
    "Pixels",
    "Unreadable",
    "Video",
    "decode",
    "decode_labels",
    "frame_image",
    "frame_labels",
    "import_av",
    "open_images",
    "read_framed",
    "stored_size",
]
