"""Paths as users write them: `~` is the home folder, and an address such as `gs://` is no path."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lungjax.errors import InputError

_ADDRESS = re.compile(r"(gs|s3|az|abfss?|https?|ftp|hdfs|memory):/")


def local(path: Path | str) -> Path:
    """The path, with a leading `~` replaced by the home folder.

    Raises:
      InputError: it is an address on another computer: everything here is read and written as files.
    """
    if _ADDRESS.match(str(path)):
        raise InputError(f"{path} is an address; mount the bucket, and name the folder where it is mounted.")
    return Path(os.path.expanduser(path))
