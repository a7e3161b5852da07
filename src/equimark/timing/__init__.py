"""What training and inference cost in time and memory, beside the formulation that the authors released.

* ``literal``: that formulation. ``tasks``: what is timed. ``measurement``: one task, in a process of its own.
* ``stages``: the tasks of ``equimark benchmark``. ``comparison``: with an earlier measurement.
"""

from equimark.timing.comparison import CHANGE_COLUMNS, Change, change_rows, compare, obstacle, read
from equimark.timing.measurement import Measure, Measurement, TimingError, in_a_process, measure
from equimark.timing.stages import COLUMNS, STAGES, Plan, choose_scale, differing_losses, rows, run
from equimark.timing.tasks import Job, Scale

__all__ = [
    "CHANGE_COLUMNS",
    "COLUMNS",
    "STAGES",
    "Change",
    "Job",
    "Measure",
    "Measurement",
    "Plan",
    "Scale",
    "TimingError",
    "change_rows",
    "choose_scale",
    "compare",
    "differing_losses",
    "in_a_process",
    "measure",
    "obstacle",
    "read",
    "rows",
    "run",
]
