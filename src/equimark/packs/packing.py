"""Making packs: images in, a folder out, which stands there whole or not at all."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import numpy as np
import yaml
from numpy.typing import NDArray

from equimark import flows
from equimark.files import csv_writer, replace_folder
from equimark.geometry import Frame
from equimark.images import Framed, ImageError, ImageSource, Unreadable, open_images, read_framed
from equimark.packs.index import COLUMNS, Index
from equimark.packs.packed import FORMAT, PackedImages, is_pack
from equimark.progress import progress_bar
from equimark.sharding import write_shards
from equimark.shards import is_sharded


def pack(
    source_path: str | Path,
    out: str | Path,
    frame: Frame,
    *,
    progress: bool = True,
    workers: int | None = None,
    overwrite: bool = False,
    shards: int | None = None,
) -> PackedImages:
    """Decode every image of a source once, bring it to ``frame`` and write all to the folder ``out``.

    Files that cannot be read are left out and listed in ``unreadable.csv`` (file, reason). Nothing stands at ``out``
    before all of it is written. With ``shards`` the pack is written in parts instead: what stands at ``out`` stays,
    and only the images that it lacks are added, unless it is to be replaced.

    Args:
        source_path: as of :func:`open_images`.
        out: the folder to make.
        progress: show a bar on standard error.
        workers: threads that decode; default: one per processor.
        overwrite: replace a pack that stands at ``out``.
        shards: write shards of so many images; 0: of about 16 MB of pixels.

    Raises:
        ImageError: no readable image, ``out`` is taken, or the disk is full.
    """
    if is_pack(source_path):
        raise ImageError(f"{source_path} is a pack already; give the images that it was made of")
    source = open_images(source_path)
    if shards is not None:
        return _pack_shards(source, Path(out).resolve(), frame, shards, progress, workers, overwrite)
    places = {name: i for i, name in enumerate(source.names)}

    def read_flow(name: str) -> NDArray[np.float32] | None:
        data = source.read_beside(places[name], flows.SUFFIX)
        return None if data is None else flows.read(data)

    with closing(read_framed(source, frame, workers=workers)) as images:
        count, where = len(source), source.path
        return write_pack(images, count, out, frame, where, read_flow, progress=progress, overwrite=overwrite)


def write_pack(
    images: Iterable[Framed | Unreadable],
    count: int,
    out: str | Path,
    frame: Frame,
    source: Path,
    read_flow: Callable[[str], NDArray[np.float32] | None] | None = None,
    *,
    progress: bool = True,
    overwrite: bool = False,
) -> PackedImages:
    """Write images that are in their frames already: see :func:`pack`.

    Args:
        images: ``count`` of them, each of ``frame.size``; they may lie in their images as they like.
        count: how many.
        out: the folder to make.
        frame: how the images were framed, or how other images like them should be.
        source: where they come from.
        read_flow: name of an image -> displacement (H, W, 2) of its pixels to the next; None if there is none.
        progress: show a bar on standard error.
        overwrite: replace a pack that stands at ``out``.

    Raises:
        ImageError: as :func:`pack`.
    """
    out = Path(out).resolve()
    _check_free(out, overwrite)
    needed = count * frame.size**2 * 3
    with (
        _room_for(out, f"this pack takes up to {needed / 1e6:,.1f} MB; choose another --out"),
        replace_folder(out) as folder,
    ):
        if shutil.disk_usage(folder).free < needed:
            raise OSError(errno.ENOSPC, "too little")
        written = _write_images(images, count, source, folder, progress)
        if read_flow is not None:
            _write_flow(read_flow, folder, frame, written)
        about = {"format": FORMAT, "count": written, "frame": asdict(frame), "source": source.resolve().as_posix()}
        (folder / "pack.yaml").write_text(yaml.safe_dump(about, sort_keys=False), "utf-8")
    return PackedImages.open(out)


def _pack_shards(
    source: ImageSource, out: Path, frame: Frame, images: int, progress: bool, workers: int | None, overwrite: bool
) -> PackedImages:
    if source.read_beside(0, flows.SUFFIX) is not None:
        raise ImageError(
            f"{source.path} has flow beside its images, which shards do not hold: pack it without --shards"
        )
    if overwrite and is_pack(out):
        with (
            _room_for(out, "the pack that stands there is as it was; choose another --out"),
            replace_folder(out) as new,
        ):
            write_shards(source, new, frame, images, progress=progress, workers=workers)
        return PackedImages.open(out)
    if not is_sharded(out) and any(not file.name.startswith(".") for file in out.glob("*")):
        _check_free(out, overwrite)
    with _room_for(out, "make room and give the command again, what is packed stays"):
        write_shards(source, out, frame, images, progress=progress, workers=workers)
    return PackedImages.open(out)


def _check_free(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_pack(out):
        raise ImageError(f"{out} exists and is not a pack; choose another --out, or remove it yourself")
    if not overwrite:
        raise ImageError(f"{out} holds a pack already; choose another --out, or replace it with --overwrite")


@contextmanager
def _room_for(out: Path, way_out: str) -> Iterator[None]:
    """Turn a full disk into an error that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ImageError(f"no space left for {out}: {way_out}") from error
        raise


def _write_images(images: Iterable[Framed | Unreadable], count: int, source: Path, folder: Path, progress: bool) -> int:
    """Writes ``images.u8``, ``index.csv`` and ``unreadable.csv``; returns how many images could be read."""
    written = 0
    reasons: list[str] = []
    with ExitStack() as stack:
        pixels = stack.enter_context((folder / "images.u8").open("wb"))
        index = stack.enter_context(csv_writer(folder / "index.csv", COLUMNS))
        unreadable = stack.enter_context(csv_writer(folder / "unreadable.csv", ("file", "reason")))
        advance = stack.enter_context(progress_bar("packing", count, shown=progress))
        for image in images:
            if isinstance(image, Unreadable):
                unreadable.writerow((image.name, image.reason))
                reasons += [f"{image.name}: {image.reason}"] if len(reasons) < 3 else []
            else:
                pixels.write(image.pixels.data)
                index.writerow((image.name, image.size[1], image.size[0], *image.placement.box))
                written += 1
            advance()
    if not written:
        raise ImageError(f"none of the {count} images of {source} can be read; {'; '.join(reasons)}")
    return written


def _write_flow(read_flow: Callable[[str], NDArray[np.float32] | None], folder: Path, frame: Frame, count: int) -> None:
    """Writes ``flow.f16`` if any image has flow; NaN for those that have none."""
    index = Index.open(folder / "index.csv", count)
    found: NDArray[np.float16] | None = None
    for i, name in enumerate(index.names):
        try:
            flow = read_flow(name)
            if flow is None:
                continue
            if found is None:
                shape = (count, frame.size, frame.size, 2)
                found = np.memmap(folder / "flow.f16", np.float16, "w+", shape=shape)
                found[:] = np.nan
            found[i] = flows.to_frame(flow, index.size(i), index.placement(i, frame))
        except flows.FlowError as error:
            raise ImageError(f"{PurePosixPath(name).with_suffix(flows.SUFFIX)}: {error}") from None
