"""What users report, tried: doctor, prepare and predict on every case of a folder, with what is expected and what came.

    python scripts/try_cases.py FOLDER [--only NAME ...] [--without-predict]

FOLDER holds a folder for each case, by the names of `EXPECTED`, each made from one real series of 70 slices: files that
a scanner, an archive or an anonymiser changed. The exit code is 1 where anything is not as expected.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import lungjax
from lungjax.errors import InputError
from lungjax.prediction.run import predict
from lungjax.preparation import doctor

MODELS = ("detector", "candidate-classifier", "nodule-classifier", "patient-classifier")


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is expected of a case.

    Attributes:
      faults, notes: names that doctor tells.
      scans, patients: how many are prepared.
      left_out: names in prepare's list of what is not prepared.
      nodules: of each predicted scan, or the beginning of the reason why there are none.
      same_as: a case with the same voxels: nodules lie at the same places.
      says: what stands on the screen of predict.
      dicom: whether a segmentation and a report are written as DICOM.
    """

    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    scans: int = 1
    patients: int = 1
    left_out: tuple[str, ...] = ()
    nodules: tuple[int | str, ...] = (4,)
    same_as: str | None = "reference"
    says: str = ""
    dicom: bool = True


def refused(fault: str, says: str = "") -> Expected:
    """A case that every verb refuses by that name."""
    return Expected((fault,), (), 0, 0, (fault,), (f"{fault}: ",), None, says, False)


COARSE = "refused: Its pixels are 3.28 mm apart"
EXPECTED = {
    "reference": Expected(same_as=None),
    "overlay_in_a_spare_bit": Expected(),
    "two_patients_in_one_series": refused("several_patients", "P-001, P-002"),
    "gantry_tilt": refused("gantry_tilt", "15 degrees"),
    "localizer_in_the_series": Expected(notes=("left_out",), left_out=("left_out",), says="000001.dcm is left out"),
    "capture_in_the_series": Expected(notes=("left_out",), left_out=("left_out",), says="000071.dcm is left out"),
    "two_kernels_in_one_series": Expected(
        notes=("several_reconstructions",),
        scans=2,
        left_out=("several_reconstructions",),
        nodules=(0, 0),
        same_as=None,
        says="LUNG (30 files)",
        dicom=False,
    ),
    "positions_rounded_to_a_tenth": Expected(notes=("rounded_positions",), nodules=(2,), same_as=None),
    "empty_patient_id": Expected(("missing_tag",), scans=0, patients=0, left_out=("missing_tag",)),
    "type_2_attributes_removed": Expected(),
    "no_frame_of_reference": Expected(says="no FrameOfReferenceUID", dicom=False),
    "nifti_reference": Expected(dicom=False),
    "nifti_hu_plus_1024": refused("not_hu", "perhaps 1024 was added"),
    "nifti_nan_outside_the_field": Expected(says="read as padding", dicom=False),
    "nifti_two_sessions": Expected(scans=2, nodules=(COARSE, COARSE), same_as=None, dicom=False),
    "nifti_one_case_without_label": Expected(
        ("missing_mask",), (), 1, 1, ("missing_mask",), (COARSE, COARSE), None, dicom=False
    ),
}
SAME_MM = 0.1
"""Places from different headers: 32 or 64 bits, HU cut off at a maximum or not."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", help="cases to try (default: all)")
    parser.add_argument("--without-predict", action="store_true", help="doctor and prepare alone, in seconds")
    options = parser.parse_args()
    networks = {} if options.without_predict else {name: lungjax.load(name) for name in MODELS}
    wrong = 0
    places: dict[str, Any] = {}
    for name in options.only or EXPECTED:
        if not (options.folder / name).is_dir():
            print(f"{name}: not in {options.folder}")
            wrong += 1
            continue
        with tempfile.TemporaryDirectory() as out:
            got = {**_doctor(options.folder / name), **_prepare(options.folder / name, Path(out) / "prepared")}
            if networks:
                got |= _predict(options.folder / name, Path(out) / "predicted", networks)
        wrong += _compare(name, EXPECTED[name], got, places)
    print(f"{wrong} not as expected")
    return 1 if wrong else 0


def _format(source: Path) -> str:
    return "auto" if source.name.startswith("nifti") else "unmarked"


def _doctor(source: Path) -> dict[str, Any]:
    report = doctor.examine(source, format=_format(source))
    return {kind: tuple(sorted({one.name for one in getattr(report, kind)})) for kind in ("faults", "notes")}


def _prepare(source: Path, out: Path) -> dict[str, Any]:
    try:
        summary = lungjax.prepare(source, out, format=_format(source), workers=1)
        counts = {"scans": summary.scans, "patients": sum(summary.patients.values())}
    except InputError:
        counts = {"scans": 0, "patients": 0}
    folder = out if out.exists() else out.with_name(f"{out.name}.partial")
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    return {**counts, "left_out": tuple(sorted({json.loads(line)["name"] for line in lines}))}


def _predict(source: Path, out: Path, networks: dict[str, Any]) -> dict[str, Any]:
    models = {name.replace("-", "_"): network for name, network in networks.items() if name != "detector"}
    try:
        summary = predict(source, model=networks["detector"], **models, out=out)
    except InputError as error:
        message = str(error)
        return {"nodules": (message.partition("could be read: ")[2] or message,), "screen": message, "dicom": False}
    reports = list(summary.reports.values())
    return {
        "nodules": tuple(f"refused: {one['refused']}" if one["refused"] else len(one["nodules"]) for one in reports),
        "screen": summary.text(),
        "dicom": any(out.rglob("segmentation.dcm")),
        "places": [nodule["centre_mm"] for one in reports for nodule in one["nodules"]],
    }


def _compare(name: str, expected: Expected, got: dict[str, Any], places: dict[str, Any]) -> int:
    """Prints a case; returns how much of it is not as expected."""
    wrong = [
        f"{key}: expected {getattr(expected, key)!r}, got {got[key]!r}"
        for key in ("faults", "notes", "scans", "patients", "left_out", "dicom")
        if key in got and getattr(expected, key) != got[key]
    ]
    if "nodules" in got:
        places[name] = got.get("places")
        alike = len(expected.nodules) == len(got["nodules"]) and all(
            told == count if isinstance(told, int) else str(count).startswith(told)
            for told, count in zip(expected.nodules, got["nodules"], strict=True)
        )
        if not alike:
            wrong.append(f"nodules: expected {expected.nodules!r}, got {got['nodules']!r}")
        if expected.says not in got["screen"]:
            wrong.append(f"screen: expected {expected.says!r}, got {got['screen']!r}")
        known = places.get(expected.same_as or "")
        if known and not _same_places(known, places[name]):
            wrong.append(f"places: expected {known}, got {places[name]}")
    held = {key: value for key, value in got.items() if key != "places"}
    print(f"{'WRONG' if wrong else 'ok'}  {name}", *(wrong or [f"got {held}"]), sep="\n    ", flush=True)
    return len(wrong)


def _same_places(first: list[list[float]], second: list[list[float]] | None) -> bool:
    return second is not None and all(
        any(max(abs(a - b) for a, b in zip(one, other, strict=True)) <= SAME_MM for other in second) for one in first
    )


if __name__ == "__main__":
    sys.exit(main())
