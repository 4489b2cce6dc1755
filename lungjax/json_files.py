"""JSON files as others may have written them, or a disk may have damaged them.

An object that lungjax wrote has a seal, the SHA-256 of all else in it: a single bit may turn a threshold, or the split
of a patient, into another that looks as good. Files of older versions have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"
_DEEPEST = 64
"""Levels of lists and objects; lungjax writes about ten. What walks through them calls itself, which Python limits."""


def read(path: Path) -> Any:
    """What a JSON file holds; a byte order mark is left out.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is no UTF-8, no JSON, or nested too deeply.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(_DEEPEST):
        objects = (value.values() if isinstance(value, dict) else value for value in level)
        level = [value for values in objects for value in values if isinstance(value, dict | list)]
    if level:
        raise ValueError("it is nested too deeply")
    return content


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """An object as JSON has it, with its seal, which replaces an older one."""
    plain = {name: value for name, value in json.loads(json.dumps(content)).items() if name != SEAL}
    return {**plain, SEAL: _digest(plain)}


def unsealed(content: Any) -> dict[str, Any]:
    """An object without its seal.

    Raises:
      ValueError: it is no object, or not as it was sealed.
    """
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}, no object")
    plain = {name: value for name, value in content.items() if name != SEAL}
    if SEAL in content and content[SEAL] != _digest(plain):
        raise ValueError("it was changed after it had been written")
    return plain


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
