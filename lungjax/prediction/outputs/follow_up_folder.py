"""The files of two scans that were compared: follow-up.json, follow-up.csv and follow-up.html.

They are made in a hidden folder and then put in their places, follow-up.json last: where it lies, all are whole.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lungjax.errors import InputError
from lungjax.prediction.follow_up.compared import ComparedScan
from lungjax.prediction.outputs import follow_up_json, html_follow_up

REPORT, TABLE, PAGE = "follow-up.json", "follow-up.csv", "follow-up.html"


def write(folder: Path, follow_up: Mapping[str, Any], first: ComparedScan, second: ComparedScan) -> None:
    """Writes the files into a folder, which is made unless it is there.

    Args:
      folder: where they go; if it has the scans' own folders, `first` and `second`, the page leads there.
      follow_up: by `follow_up_json.as_dict`.
      first, second: what was compared.

    Raises:
      InputError: one of the files is there already.
    """
    if there := [name for name in (REPORT, TABLE, PAGE) if (folder / name).exists()]:
        raise InputError(f"{folder / there[0]} exists; name another folder.")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".follow-up-") as holder:
            temporary = Path(holder)
            links = {name: f"{name}/report.html" for name in ("first", "second")}
            links = {name: link for name, link in links.items() if (folder / link).is_file()}
            html_follow_up.write(temporary / PAGE, follow_up, first, second, links=links)
            (temporary / TABLE).write_bytes(follow_up_json.follow_up_csv(follow_up).encode())
            (temporary / REPORT).write_bytes((json.dumps(follow_up, indent=1) + "\n").encode())
            for name in (PAGE, TABLE, REPORT):
                (temporary / name).replace(folder / name)
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise
