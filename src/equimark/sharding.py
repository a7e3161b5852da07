"""Writing packs in shards (see :mod:`equimark.shards`): what is killed goes on, what is new is added.

Which images a shard holds follows from the source and the shards that stand there already; nothing else is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equimark.arrow import import_pyarrow
from equimark.files import replace_file, write_csv, write_text
from equimark.geometry import Frame
from equimark.images import Framed, ImageError, ImageSource, Pixels, Unreadable, read_framed
from equimark.progress import Advance, progress_bar
from equimark.shards import FORMAT, INDEX, KEY, NUMBERS, Shard, Store, from_column, same_frame

_BYTES = 2**24  # of pixels in a shard, about


def images_per_shard(frame: Frame) -> int:
    """A power of two with which a shard has about 16 MB of pixels, between 64 and 4096."""
    most = _BYTES // (frame.size**2 * 3)
    return min(4096, max(64, 1 << (most.bit_length() - 1) if most else 0))


def write_shards(
    source: ImageSource,
    out: Path,
    frame: Frame,
    images: int = 0,
    *,
    progress: bool = True,
    workers: int | None = None,
) -> int:
    """Write the images of ``source`` that the folder ``out`` does not hold yet, as further shards; how many came in.

    A shard has its name only when it is complete, and holds the next ``images`` names of the source: a writer that
    was killed at any time and is started again makes the very files that it would have made.

    Args:
        source: of the images.
        out: a new or empty folder, or one that holds shards.
        frame: to bring each image to.
        images: names of the source to a shard; 0: :func:`images_per_shard`.
        progress: show a bar on standard error.
        workers: threads that decode; default: one per processor.

    Raises:
        ImageError: no readable image, shards of another frame in ``out``, or another writer there.
        OSError: the disk is full; what is written stays.
    """
    if images < 0:
        raise ImageError(f"a shard holds at least one image, got {images}")
    images = images or images_per_shard(frame)
    written = _read_written(Store.open(out), frame)
    names = [name for name in source.names if name not in written.names]
    fresh = [name for name in names if name not in written.unreadable]
    again = [name for name in names if name in written.unreadable]  # last, or the ranges of the others would move
    for left in out.glob(".*.tmp"):  # by a writer that was killed
        left.unlink(missing_ok=True)
    added = 0
    with progress_bar("packing", len(source), start=len(source) - len(names), shown=progress) as advance:
        for part in (fresh, again):
            with closing(read_framed(replace(source, names=part), frame, workers=workers)) as items:
                while group := _take(items, images, advance):
                    added += _add(written, group, out, frame)
    if not written.shards:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in islice(written.unreadable.items(), 3))
        raise ImageError(f"none of the {len(source)} images of {source.path} can be read; {reasons}")
    _write_lists(written, out, frame)
    return added


@dataclass(frozen=True)
class _Written:
    """What a folder holds.

    Args:
        shards: in it.
        names: of their images.
        unreadable: names of the images that could not be read, and why.
    """

    shards: list[Shard]
    names: set[str]
    unreadable: dict[str, str]


def _read_written(store: Store, frame: Frame) -> _Written:
    written = _Written([], set(), {})
    for file in sorted(store.files() or ()):
        shard, about = store.footer(file)
        same_frame(frame, about, store.name(file))
        written.shards.append(shard)
        written.names.update(from_column(store.columns(file, ("name",))["name"]))
        written.unreadable.update(about["unreadable"])
    for name in written.names & written.unreadable.keys():
        del written.unreadable[name]
    return written


def _take(items: Iterator[Framed | Unreadable], count: int, advance: Advance) -> list[Framed | Unreadable]:
    group = []
    for item in islice(items, count):
        group.append(item)
        advance()
    return group


def _add(written: _Written, group: list[Framed | Unreadable], out: Path, frame: Frame) -> int:
    """Write a shard of ``group``, unless nothing in it can be read; how many images."""
    framed = [item for item in group if isinstance(item, Framed)]
    unreadable = {item.name: item.reason for item in group if isinstance(item, Unreadable)}
    written.unreadable.update(unreadable)
    if not framed:
        return 0
    taken = {shard.number for shard in written.shards}
    number = next(number for number in range(len(taken) + 1) if number not in taken)  # a removed shard's comes first
    written.shards.append(_write_shard(out, number, framed, unreadable, frame))
    written.names.update(item.name for item in framed)
    for item in framed:
        written.unreadable.pop(item.name, None)
    return len(framed)


def _write_shard(out: Path, number: int, framed: list[Framed], unreadable: dict[str, str], frame: Frame) -> Shard:
    arrow = import_pyarrow(out, ImageError)
    names = [item.name for item in framed]
    numbers = np.array([(*item.size, *item.placement.box) for item in framed])
    pixels = np.stack([item.pixels for item in framed])
    sides = numbers[:, :2].astype(np.int32)
    columns = {"name": _to_column(names), "height": sides[:, 0], "width": sides[:, 1]}
    columns |= dict(zip(NUMBERS[2:], numbers[:, 2:].T, strict=True))
    kind = arrow.binary(frame.size**2 * 3)
    columns["image"] = arrow.FixedSizeBinaryArray.from_buffers(kind, len(names), [None, arrow.py_buffer(pixels)])
    about = {"format": FORMAT, "frame": asdict(frame), "smallest_side": int(sides.min()), "unreadable": unreadable}
    table = arrow.table(columns).replace_schema_metadata({KEY: json.dumps(about)})
    file = f"part-{number:05d}-{_fingerprint(names, numbers, pixels)}.parquet"
    if other := next(out.glob(f"part-{number:05d}-*.parquet"), None):
        raise ImageError(f"{other} came from elsewhere while shards were written: let one process write at a time")

    def write(path: Path) -> None:
        arrow.parquet.write_table(
            *(table, path),
            row_group_size=len(names),
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )

    replace_file(out / file, write)
    return Shard(file, len(names), int(sides.min()))


def _fingerprint(names: list[str], numbers: NDArray[np.float64], pixels: Pixels) -> str:
    digest = hashlib.sha256(repr(names).encode("utf-8", "surrogateescape"))
    digest.update(numbers.tobytes())
    digest.update(pixels.data)
    return digest.hexdigest()[:16]


def _to_column(names: list[str]) -> Any:
    """Text; or bytes, if a file system has given names that are none."""
    try:
        "".join(names).encode()
        return names
    except UnicodeEncodeError:
        return [name.encode("utf-8", "surrogateescape") for name in names]


def _write_lists(written: _Written, out: Path, frame: Frame) -> None:
    """``index.json`` and ``unreadable.csv``."""
    shards = sorted(written.shards, key=lambda shard: shard.number)
    about = {"format": FORMAT, "frame": asdict(frame), "parts": [asdict(shard) for shard in shards]}
    write_text(out / INDEX, json.dumps(about, indent=1) + "\n")
    write_csv(out / "unreadable.csv", ("file", "reason"), written.unreadable.items())
