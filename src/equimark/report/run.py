"""The report of a run: which sections it has."""

from __future__ import annotations

from pathlib import Path

from equimark import checkpoint
from equimark.embedding import ModelError
from equimark.model import LandmarkModel
from equimark.packs import PackedImages
from equimark.page import Page
from equimark.report.failures import worst_section
from equimark.report.findings import (
    descriptor_section,
    matches_section,
    pairs_section,
    sparse_section,
    supervised_section,
)
from equimark.report.log import curves_section, describe, numbers_section
from equimark.report.verdict import verdict_section


def write_run_report(run: Path, images: PackedImages | None, *, seed: int = 0) -> Path:
    """Write ``report.html`` of a run; its path.

    Args:
        run: folder of the run.
        images: in the run's frame, to show what it does on them; without them only the training is reported.
        seed: of the choice of images and of the warps.

    Raises:
        CheckpointError: if the run is missing or damaged.
        ModelError: if the images are not in the run's frame.
        OSError: if the folder cannot be written.
    """
    kept, entries = checkpoint.load(run), checkpoint.read_log(run)
    model = LandmarkModel(kept.network, kept.config)
    if images is not None and images.frame.size != model.frame.size:
        raise ModelError(
            f"the images are in frames of {images.frame.size} px and the run in {model.frame.size} px: "
            f"pack them with --size {model.frame.size}, or give the images themselves"
        )
    page = Page(f"What {run.resolve().name} learned", describe(kept))
    verdict_section(page, kept.config, entries)
    numbers_section(page, kept, entries)
    curves_section(page, kept.config, entries)
    if images is None:
        page.section(
            "Pictures",
            "This report was written without images, so it shows neither training pairs nor what the run does on "
            "images. Write it again with some: equimark report RUN --images IMAGES",
        )
        return page.write(run)
    if kept.config.is_supervised:
        supervised_section(page, model, images, seed=seed)
        return page.write(run)
    pairs_section(page, model, images, seed=seed)
    if kept.config.landmarks:
        sparse_section(page, model, images, seed=seed)
    if kept.config.has_descriptors:
        descriptor_section(page, model, images, seed=seed)
        matches_section(page, model, images, seed=seed)
    worst_section(page, model, images, seed=seed)
    return page.write(run)
