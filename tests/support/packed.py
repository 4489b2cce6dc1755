"""Small sources of pictures and arrays in archives, for tests of hostile ones, and what reading them says."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
from hostile import opened_files
from PIL import Image

from lungjax.ct.scan import RATING_NAMES
from lungjax.errors import Fault, InputError
from lungjax.preparation.formats import archive, jaeho_npy, slices

FOLDER = "P/nodule-0"
PICTURE = f"{FOLDER}/images/slice-0.png"
ARRAY = "Image/0003_NI001_slice000.npy"


def picture(side_px: int = 8, value: int = 200) -> bytes:
    held = io.BytesIO()
    Image.fromarray(np.full((side_px, side_px), value, np.uint8)).save(held, "PNG")
    return held.getvalue()


def array(values: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, values)
    return held.getvalue()


def files() -> dict[str, bytes]:
    """A nodule of one slice as pictures, and one as arrays."""
    held = {f"{FOLDER}/{kind}/slice-0.png": picture() for kind in ("images", *(f"mask-{n}" for n in range(4)))}
    image = np.where(np.eye(8) > 0, 1.0, -1 / 7)
    return held | {ARRAY: array(image), ARRAY.replace("Image", "Mask").replace("NI", "MA"): array(np.eye(8) > 0)}


def pack(path: Path, held: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in held.items():
                file.writestr(name, content)
    else:
        with tarfile.open(path, "w") as file:
            for name, content in held.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return path


def read_all(source: Path, *modules: ModuleType) -> list[str]:
    """Names of faults, or the one sentence; nothing but the source is opened."""
    archive._zip.cache_clear()
    names = []
    with opened_files() as opened:
        for module in modules or (slices, jaeho_npy):
            try:
                entries, quarantined = module.find(source)
            except InputError as error:
                names.append(str(error))
                continue
            names += [one.name for one in quarantined]
            for entry in entries:
                try:
                    module.read(entry)
                except Fault as fault:
                    names.append(fault.name)
    assert [path for path in opened if not path.startswith(str(source))] == []
    return names


def columns() -> dict[str, np.ndarray]:
    return {
        "hu": np.zeros((2, 4, 4), np.int16),
        "patient_id": np.array(["A", "A"]),
        "series_uid": np.array(["1.2", "1.2"]),
        "sop_uid": np.array(["1.2.1", "1.2.2"]),
        "z_mm": np.array([1.0, 2.0]),
        "pixel_spacing_mm": np.array([0.7, 0.7]),
        "reader_ratings": np.ones((2, 4, 9), np.int8),
        "rating_names": np.array(RATING_NAMES),
        "reader_outlines": np.ones((2, 4, 4), np.uint8),
    }
