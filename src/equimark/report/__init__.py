"""What a run is, what it learned and where it fails, on one page.

* ``run``: :func:`write_run_report`, all that is said of a run.
* ``verdict``, ``log``, ``findings``, ``failures``: the ``*_section`` functions, which add a part each and can be used
  for several runs on one page; ``label`` tells them apart.
* ``views``: the images that they show, and what a run finds on them.
"""

from equimark.report.failures import worst_section
from equimark.report.findings import (
    ROTATIONS,
    descriptor_section,
    matches_section,
    pairs_section,
    sparse_section,
    supervised_section,
)
from equimark.report.log import curves_section, numbers_section
from equimark.report.run import write_run_report
from equimark.report.verdict import verdict_section
from equimark.report.views import confident_cells

__all__ = [
    "ROTATIONS",
    "confident_cells",
    "curves_section",
    "descriptor_section",
    "matches_section",
    "numbers_section",
    "pairs_section",
    "sparse_section",
    "supervised_section",
    "verdict_section",
    "worst_section",
    "write_run_report",
]
