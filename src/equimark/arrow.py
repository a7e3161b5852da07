"""Apache Arrow, of the package pyarrow, which reads and writes Parquet and is an extra."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def import_pyarrow(path: str | Path, error: type[Exception]) -> Any:
    """The package with its Parquet and its file systems; ``path`` is what it is needed for.

    Raises:
        Exception: ``error``, if it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.fs
        import pyarrow.parquet
    except ImportError:
        raise error(f"{path}: Parquet needs pyarrow: pip install 'equimark[scale]'") from None
    return pyarrow
