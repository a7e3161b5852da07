"""What IMAGES means in every command: named images, wherever they lie."""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from equimark.geometry import Size
from equimark.images.decoding import IMAGE_SUFFIXES, Decoded, ImageError, decode_picture, stored_size
from equimark.images.video import VIDEO_SUFFIXES, Video, VideoReader, open_video

LIST_SUFFIXES = frozenset({".txt", ".lst", ".list"})


@dataclass(frozen=True)
class ImageSource:
    """Named images: files, wherever they lie, and the frames of videos.

    Args:
        path: what the user gave.
        names: of the images, in a fixed order: posix paths relative to the folder, archive or list. The frames of a
            video are called as if its file were a folder: ``clip.mp4/000000``, ``clip.mp4/000001``, ...
        videos: by the names of their files.
    """

    path: Path
    names: list[str]
    _read: Callable[[str], bytes] = field(repr=False)
    videos: Mapping[str, Video] = field(default_factory=dict, repr=False)
    _frames: VideoReader = field(default_factory=VideoReader, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def video(self, index: int) -> Video | None:
        """The video of which an image is a frame."""
        return self.videos.get(self.names[index].rpartition("/")[0]) if self.videos else None

    def file(self, index: int) -> Path:
        """The file that holds an image: its own, the archive's, or the video's."""
        if (video := self.video(index)) is not None:
            return video.path
        if self.path.is_dir():
            return self.path / self.names[index]
        return self.path if self.path.suffix.lower() == ".zip" else self.path.parent / self.names[index]

    def picture(self, index: int, min_side: int | None = None) -> tuple[Image.Image, Size]:
        """The RGB picture, and (H, W) of the image as stored: see :func:`~equimark.images.decode`; safe in threads.

        Raises:
            ImageError: it cannot be read; the message is the reason, without the name.
        """
        if (video := self.video(index)) is None:
            return decode_picture(self.read(index), min_side)
        pixels = self._frames.read(video, int(self.names[index].rpartition("/")[2]))
        return Image.fromarray(pixels), (pixels.shape[0], pixels.shape[1])

    def decoded(self, index: int, *, min_side: int | None = None) -> Decoded:
        """The pixels of an image, as :func:`~equimark.images.decode` gives them; safe in threads.

        Raises:
            ImageError: it cannot be read; the message is the reason, without the name.
        """
        picture, size = self.picture(index, min_side)
        return Decoded(np.array(picture), size)

    def size(self, index: int) -> Size:
        """(H, W) of an image as stored, without decoding the pixels of a file.

        Raises:
            ImageError: it cannot be read; the message is the reason, without the name.
        """
        return stored_size(self.read(index)) if self.video(index) is None else self.picture(index)[1]

    def read(self, index: int) -> bytes:
        """The bytes of one file, of a frame those of a PNG that is made of it; safe in threads.

        Raises:
            ImageError: the file is missing or cannot be read; the message is the reason, without the name.
        """
        if self.video(index) is not None:
            buffer = BytesIO()
            self.picture(index)[0].save(buffer, "PNG", compress_level=1)
            return buffer.getvalue()
        try:
            return self._read(self.names[index])
        except FileNotFoundError:
            raise ImageError("no such file") from None
        except OSError as error:
            raise ImageError(error.strerror or str(error)) from error
        except Exception as error:  # damaged, encrypted or exotic archive entries: each kind raises its own
            raise ImageError(str(error) or type(error).__name__) from error

    def read_beside(self, index: int, suffix: str) -> bytes | None:
        """The bytes of the file of the same name with another ending, if there is one that can be read."""
        try:
            return self._read(str(PurePosixPath(self.names[index]).with_suffix(suffix)))
        except (OSError, KeyError):  # KeyError: how an archive says that it has no such entry
            return None


def open_images(path: str | Path) -> ImageSource:
    """The images of a folder (searched recursively), a ``.zip``, a text file of paths, or one image or video file.

    Hidden files are skipped, and so are files whose ending is not an image's. A folder without images may hold videos;
    beside images they are left alone, as the frames of a video are often kept beside it. A text file of paths has one
    path per line, relative to its own folder; blank lines and lines that start with ``#`` are ignored.

    Raises:
        ImageError: nothing there, no images in it, or not one of those kinds.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise ImageError(
            f"{path} does not exist; give a folder of images, a .zip, a text file of paths, an image or a video"
        )
    if suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return _open_files(path, [path.name], path.parent)
    if suffix == ".zip":
        return _open_zip(path)
    if suffix in LIST_SUFFIXES:
        return _open_list(path)
    raise ImageError(
        f"{path} is none of a folder, a .zip, a text file of paths ({', '.join(sorted(LIST_SUFFIXES))}), an image "
        f"or a video ({', '.join(sorted(VIDEO_SUFFIXES))})"
    )


def _open_folder(folder: Path) -> ImageSource:
    return _open_files(folder, _image_names(_files_below(folder), folder), folder)


def _open_files(path: Path, files: Iterable[str], folder: Path) -> ImageSource:
    """Files by their paths relative to ``folder``; a video that cannot be opened is an image that cannot be read."""
    names: list[str] = []
    videos: dict[str, Video] = {}

    def read(name: str) -> bytes:
        if _is_video(name):
            open_video(folder / name)  # raises again
        return (folder / name).read_bytes()

    for file in files:
        frames = [file]
        if _is_video(file):
            with suppress(ImageError, OSError):
                videos[file] = open_video(folder / file)
                frames = [f"{file}/{i:06d}" for i in range(len(videos[file]))]
        names += frames
    return ImageSource(path, names, read, videos)


def _files_below(folder: Path) -> Iterator[str]:
    """Posix paths of all files, relative to ``folder``; linked folders are followed, but never in a circle."""

    def refuse(error: OSError) -> None:
        raise ImageError(f"cannot look into {error.filename}: {error.strerror}")

    seen: set[str] = set()
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(here))
        folders[:] = [f for f in sorted(folders) if not _is_hidden(f) and os.path.realpath(f"{here}/{f}") not in seen]
        prefix = Path(here).relative_to(folder).as_posix()
        yield from files if prefix == "." else (f"{prefix}/{file}" for file in files)


def _open_zip(path: Path) -> ImageSource:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise ImageError(f"{path} cannot be read as a zip archive ({error}); was it copied completely?") from error
    names = _image_names((i.filename for i in archive.infolist() if not i.is_dir()), path)

    def read(name: str) -> bytes:
        if _is_video(name):
            raise ImageError("a video in an archive cannot be read: unpack it")
        return archive.read(name)

    return ImageSource(path, names, read)


def _open_list(path: Path) -> ImageSource:
    # surrogateescape keeps file names that are not UTF-8 as the operating system has them
    lines = path.read_text("utf-8-sig", errors="surrogateescape").splitlines()
    names = [Path(line.strip()).as_posix() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise ImageError(f"{path} lists no images; write one path per line, relative to {path.parent}")
    return _open_files(path, names, path.parent)


def _image_names(files: Iterable[str], where: Path) -> list[str]:
    visible = [file for file in files if not _is_hidden(file)]
    for wanted in (IMAGE_SUFFIXES, VIDEO_SUFFIXES):
        if names := {file for file in visible if _suffix(file) in wanted}:
            return sorted(names, key=_natural)
    if not visible:
        raise ImageError(f"{where} is empty: no images in it")
    kinds = Counter(_suffix(file) or "without ending" for file in visible).most_common(5)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds)
    raise ImageError(f"{where} holds no images; its {len(visible)} files are {found}")


def _is_hidden(file: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in file.split("/"))


def _is_video(file: str) -> bool:
    return file.lower().endswith(tuple(VIDEO_SUFFIXES))


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _natural(name: str) -> tuple[str, str]:
    """Sorts ``img2`` before ``img10``."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(12), name), name
