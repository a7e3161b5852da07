"""The page of a run: explore what it has learned, label, review and export, in a browser on this machine.

``equimark app RUN IMAGES`` answers on 127.0.0.1 only. What each room does:

* ``session``: a person's labels, and the one file in which every change is saved.
* ``history``: every change of them, on disk, so that it can be undone later on.
* ``pictures``: the images, their thumbnails and the frames that the model sees.
* ``store``: what the model has seen of each image, once for all, in half precision on disk.
* ``vision``: the model's work on that: match, heat maps, colour maps, fit, predict.
* ``remarks``: what the page remarks by itself: names that look like a pair, labels with left and right exchanged.
* ``learning`` and ``exploring``: from labels to predictions; points of one image found on others.
* ``engine``: the one thread that owns the model, and what it does while nobody asks.
* ``gallery``: images filtered and in order.
* ``exports``: labels and predictions as files.
* ``desk``: all of these together, in the words of the page. ``server``: the routes. ``static/``: the page.

All that the page writes stands in one work folder, ``RUN/app/NAME`` for images in a folder or file NAME:

* ``labels.json``: the labels, written anew after every change, all or nothing; see :mod:`equimark.app.session`.
* ``history.jsonl``: the last changes; see :mod:`equimark.app.history`.
* ``exports/``: what was exported.
* ``cache/``: thumbnails and descriptors; it may be deleted at any time.
"""

from __future__ import annotations

from pathlib import Path

from equimark.directions import Direction
from equimark.landmarks import LandmarkTable
from equimark.model import LandmarkModel


class AppError(ValueError):
    """A page that cannot be served, or something asked of it that it cannot do; the message says the way out."""


def serve(
    model: LandmarkModel,
    run: Path,
    images: Path,
    *,
    port: int = 7860,
    table: LandmarkTable | None = None,
    work: Path | None = None,
    direction: Direction = "auto",
    browser: bool = True,
) -> None:
    """Serve the page of a run until it is interrupted.

    Args:
        model: of the run.
        run: its folder; its method must be ``dve``, ``dense`` or ``sparse``.
        images: a folder, a .zip, a list of paths or a pack.
        port: on 127.0.0.1; 0 takes a free one.
        table: landmarks to start from, if the work folder has no labels yet.
        work: the work folder, if not the one in the run.
        direction: in which things lie in the images, as in :class:`equimark.head.HeadSpec`.
        browser: open the page in the person's browser.

    Raises:
        AppError, ImageError, LandmarkError, OSError: with a line that says what to do.
    """
    try:
        from equimark.app import server  # what it needs is an extra: the other commands do without
    except ModuleNotFoundError as error:
        raise AppError(
            f"the page needs the package {error.name}, which is not installed: pip install 'equimark[app]'"
        ) from None
    server.serve(model, run, images, port=port, table=table, work=work, direction=direction, browser=browser)
