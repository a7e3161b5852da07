"""JSON of any origin: what it holds, checked for its kind."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

from equimark.formats.text import read_text
from equimark.landmarks import FARTHEST, LandmarkError


def load(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        LandmarkError: if it is not JSON.
    """
    text = read_text(path, in_lines=False)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise LandmarkError(f"{path}, line {error.lineno}: not JSON ({error.msg}); is it complete?") from None
    except (RecursionError, ValueError):  # ValueError: an integer of thousands of digits
        raise LandmarkError(f"{path} is not JSON of landmarks: it nests or counts too far") from None


def mappings(value: Any, where: str) -> list[dict[str, Any]]:
    """``value`` if it is a list of mappings.

    Raises:
        LandmarkError: if it is not.
    """
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise LandmarkError(f"{where} must be a list of mappings")
    return value


def finite(value: Any, where: str) -> float:
    """``value`` if it is a number that a picture may have.

    Raises:
        LandmarkError: if it is not.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(float(value)) <= FARTHEST:
            return float(value)
    except OverflowError:
        pass
    raise LandmarkError(f"{where} is {reprlib.repr(value)}; it must be a number up to {FARTHEST:g}")
