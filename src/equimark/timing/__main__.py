"""One measurement in a process of its own: ``python -m equimark.timing JOB`` prints it as a line of JSON."""

import sys

from equimark.timing.measurement import measure
from equimark.timing.tasks import Job

print(measure(Job.from_json(sys.argv[1])).to_json())
