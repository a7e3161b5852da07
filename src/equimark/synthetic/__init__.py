"""Data sets that are drawn, not downloaded: portraits of many people, and a moving arm with exact flow."""

from equimark.synthetic.arm import Arm, arm
from equimark.synthetic.files import write, write_parts
from equimark.synthetic.portraits import PARTS, Portraits, portraits

__all__ = ["PARTS", "Arm", "Portraits", "arm", "portraits", "write", "write_parts"]
