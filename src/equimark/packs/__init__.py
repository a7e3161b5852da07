"""The pack: every image of a source brought to a frame, uint8, in one memory-mapped file or in shards.

* ``packing``: :func:`pack` and :func:`write_pack`, which make them.
* ``packed``: :class:`PackedImages`, which reads them.
* ``index``: what a pack of one file knows of its images.

A pack of one file is a folder of ``images.u8`` (N, S, S, 3), ``index.csv``, ``unreadable.csv`` and ``pack.yaml``;
where video frames have their flow beside them (see :mod:`equimark.flows`), ``flow.f16`` (N, S, S, 2) too. For one in
shards see :mod:`equimark.shards`. Sizes are ``(H, W)`` of the image as stored, after EXIF rotation.
"""

from equimark.packs.packed import PackedImages, is_pack, locate
from equimark.packs.packing import pack, write_pack

__all__ = ["PackedImages", "is_pack", "locate", "pack", "write_pack"]
