"""Tables as users write them: CSV files with commas, semicolons or tabs, and headers in any case."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lungjax.errors import InputError


def read(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields each line that is not empty: its number, and its values by the names in `columns`.

    The header's first line tells what separates values. Blanks around values and names do not count, nor does the case
    of names; other columns are left out. What a short line lacks is empty.

    Raises:
      InputError: the file cannot be read as text, or lacks a column.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a CSV file with {', '.join(columns)}.") from error
    header = lines[0] if lines else ""
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(lines, delimiter=delimiter)
    names = [name.strip().lower() for name in _next(reader, path) or ()]
    for column in columns:
        if column.lower() not in names:
            held = ", ".join(names) or "nothing"
            raise InputError(f"{path} has no column {column!r}; it has {held}, and needs {', '.join(columns)}.")
    places = {column: names.index(column.lower()) for column in columns}
    while (values := _next(reader, path)) is not None:
        if any(value.strip() for value in values):
            row = {name: values[place].strip() if place < len(values) else "" for name, place in places.items()}
            yield reader.line_num, row


def _next(reader: Any, path: Path) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:  # A quotation mark without its other, say, makes a value of a whole file.
        raise InputError(f"{path}, line {reader.line_num}: {error}; correct it.") from error


def number(text: str) -> float:
    """A number, whose decimals may follow a comma, as where semicolons separate values.

    Raises:
      ValueError: it is none.
    """
    return float(text.replace(",", "."))
