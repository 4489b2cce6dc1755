"""The page of a scan: its voxels come back exactly, nothing is fetched, no text of a stranger runs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path

import nibabel.nifti1
import numpy as np
import pages
import pytest
import scipy.ndimage
from pages import Page

from lungjax.prediction.outputs import html_report, html_voxels

HOSTILE = '</script ><script>alert(1)</script><img src=x onerror="alert(2)">\'"--><svg/onload=alert(3)>&lt;\ud800'


def written(folder: Path, **changed) -> Page:
    hu, mask = pages.scan()
    return Page(html_report.write(folder / "report.html", hu=hu, mask=mask, report=pages.report(**changed)))


def test_voxels_and_mask_come_back(tmp_path: Path):
    hu, mask = pages.scan()
    page = written(tmp_path)
    top, bottom, left, right = page.scan["box"]
    np.testing.assert_array_equal(page.voxels(), np.clip(hu, -1024, 3071)[:, top:bottom, left:right])
    np.testing.assert_array_equal(page.mask(), mask)
    assert [f"m{n}" in page.blocks for n in range(len(hu))] == mask.any(axis=(1, 2)).tolist()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 7), (1, 9, 1), (3, 5, 4)])
def test_any_values_come_back(tmp_path: Path, shape: tuple[int, int, int]):
    """The whole range of 16 bits, which jumps more than any scan does, in slices as thin as there are."""
    hu = np.random.default_rng(1).integers(-(2**15), 2**15, shape).astype(np.int16)
    hu[0, 0, 0] = 100
    scan = pages.report()["scan"] | {"shape": list(shape)}
    changed = pages.report(scan=scan, nodules=[], candidates=[])
    page = Page(html_report.write(tmp_path / "r.html", hu=hu, mask=np.zeros(shape, np.uint8), report=changed))
    top, bottom, left, right = page.scan["box"]
    np.testing.assert_array_equal(page.voxels(), np.clip(hu, -1024, 3071)[:, top:bottom, left:right])


def test_a_scan_takes_less_room_than_its_nifti_file():
    """Why there is a packing of our own; the test of a real scan, in a browser, has the figures of one."""
    noise = np.random.default_rng(1).normal(0, 1, (4, 256, 256))
    hu = (-800 + 30 * scipy.ndimage.gaussian_filter(noise, (0, 1, 1)) / 0.28).astype(np.int16)  # As smooth as CT is.
    ours = sum(len(html_voxels.pack(plane)) for plane in hu)
    image = nibabel.nifti1.Nifti1Image(hu.transpose(2, 1, 0), np.eye(4))
    assert ours < 0.75 * len(base64.b64encode(gzip.compress(image.to_bytes(), 9)))


def test_the_box_holds_all_but_air():
    hu = np.full((3, 50, 60), -1000, np.int16)
    assert html_voxels.box(hu) == (0, 50, 0, 60)
    hu[1, 20:24, 30:34] = 0
    assert html_voxels.box(hu) == (12, 32, 22, 42)  # Eight more on each side.
    hu[2, 1:5, 55:59] = -499
    assert html_voxels.box(hu) == (0, 32, 22, 60)
    hu[0, 45] = -500  # Still air.
    hu[0, 40, :3] = 500  # Three voxels in a row: noise.
    assert html_voxels.box(hu) == (0, 32, 22, 60)


def test_no_text_of_a_stranger_runs(tmp_path: Path):
    """Every text of a report hostile at once: as many elements as with plain ones, and the text is there to read."""
    plain = pages.report(refused="no")
    plain["nodule_classifier"] = {**plain["model"], "name": "classifier"}
    plain["patient"] |= {
        "calibration": {"slope": 0.55506, "offset": -0.2, "fitted_on": 48},
        "model": {**plain["model"], "name": "patient"},
    }
    hostile = pages.report(
        refused=HOSTILE,
        notice=HOSTILE,
        warnings=[HOSTILE],
        lungjax=HOSTILE,
        made=HOSTILE,
        patient=plain["patient"]
        | {
            "calibration": dict.fromkeys(("slope", "offset", "fitted_on"), HOSTILE),
            "attention": [{"number": HOSTILE, "attention": 1.0}],
            "meaning": HOSTILE,
            "limits": [HOSTILE],
            "model": dict.fromkeys(plain["model"], HOSTILE) | {"window_hu": [0.0, 1.0]},
        },
        nodules=[pages.report()["nodules"][0] | {"number": HOSTILE}, pages.report()["nodules"][1]],
        model=dict.fromkeys(plain["model"], HOSTILE) | {"window_hu": [0.0, 1.0]},
        nodule_classifier=dict.fromkeys(plain["model"], HOSTILE) | {"window_hu": [0.0, 1.0]},
        scan=plain["scan"] | dict.fromkeys(("patient_id", "series_uid", "source"), HOSTILE),
    )
    one, other = written(tmp_path, **plain), written(tmp_path, **hostile)
    assert [tag for tag, _ in one.tags] == [tag for tag, _ in other.tags]
    assert one.blocks["script"] == other.blocks["script"]
    assert other.scan["marks"][0]["number"] == HOSTILE
    assert not set("<>&") & set(other.blocks["scan"])  # A browser ends a script at less than Python's parser does.
    seen = HOSTILE.replace("\ud800", "\\ud800")  # No UTF-8 file holds half a character.
    assert other.text.count(seen) >= 31
    assert f"Show nodule {seen}, score 0.90" in [attributes.get("aria-label") for _, attributes in other.tags]
    pages.assert_nothing_is_fetched(other)


def test_nothing_is_fetched_and_only_our_script_runs(tmp_path: Path):
    page = written(tmp_path)
    pages.assert_nothing_is_fetched(page)
    (policy,) = [str(a["content"]) for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.blocks[kind].encode()).digest()).decode()
        assert re.search(rf"{kind}-src 'sha256-([^']+)'", policy).group(1) == digest  # pyright: ignore
    running = [a for tag, a in page.tags if tag == "script" and a.get("type") in (None, "text/javascript", "module")]
    assert running == [{}]
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(|https?:", page.blocks["script"])


def test_what_it_says(tmp_path: Path):
    text = " ".join(written(tmp_path).text.split())
    for part in (
        *(
            "Scan of P-1",
            pages.NOTICE,
            "37 %",
            "The opinion of readers.",
            "Trained on marked nodules.",
            "not been calibrated",
            "Two slices are noisy.",
        ),
        *(
            "4 to 6",
            "0.90",
            "0.25",
            "5.6 x 4.8",
            "1,234",
            "60",
            "6.4, -2.0, -12.0",
            "1 below the threshold of 0.50",
        ),
        *(
            "nodule 2: 75 %, nodule 1: 25 %",
            "unet",
            "2500",
            "0123456789abcdef",
            "2026-01-02T03:04:05Z",
            "level -600, width 1500 HU",
            "0.1.0",
        ),
        *(
            "part-solid",
            "left upper",
            "7.5",
            "5.2",
            "3.4",
            "3.6 ± 0.9",
            "internal struc\u00adture",
            "Lung-RADS v2022: 2",
        ),
        *("(nodule 1: It is small)", "By rule."),
        *("1.2.3", "here", "12 x 60 x 80 voxels", "2.000 x 0.800 x 0.800 mm"),
    ):
        assert part in text, part
    assert "Refused" not in text


def test_what_is_not_known_is_a_dash(tmp_path: Path):
    """A refused scan, without spacing or probability, nodules without sizes: the page is still there."""
    unknown = ("centre_mm", "volume_mm3", "longest_mm", "perpendicular_mm", "mean_hu", "score", "malignancy")
    unknown += ("mean_mm", "solid_mean_mm", "type", "side", "zone", "pleura_mm", "lung_rads")
    bare = pages.report()["nodules"][0] | dict.fromkeys(unknown) | {"ratings": {}}
    changed = {
        "refused": "The scan is no chest.",
        "nodules": [bare],
        "candidates": [],
        "lung_rads": {"category": None, "reason": "the scan was not looked at", "note": "By rule."},
        "warnings": [],
        "patient": pages.report()["patient"] | {"probability": None, "reason": "Nobody was asked."},
        "model": pages.report()["model"] | {"step": None, "window_hu": None},
        "scan": pages.report()["scan"] | {"spacing_mm": [None, float("nan"), 0.8], "affine_lps": None},
    }
    page = written(tmp_path, **changed)
    text = " ".join(page.text.split())
    for part in (
        "Refused: The scan is no chest.",
        "No probability for the patient. Nobody was asked.",
        "- x -",
        "unknown x nan x 0.800 mm",
    ):
        assert part in text, part
    assert (page.scan["spacing"], page.scan["sides"]) == ([1, 1, 1], None)
    assert "Lung-RADS v2022" not in text
    assert "The scan was not looked at." in written(tmp_path, refused="no", nodules=[]).text
    unclassified = written(tmp_path, lung_rads={"category": None, "reason": "nobody told types", "note": "By rule."})
    assert "No Lung-RADS category: nobody told types." in unclassified.text


def test_sides_of_the_patient():
    """Rows run to the back and columns to the left in LIDC: the patient's right is at the left."""
    x, y, z = np.eye(4)[:3]
    last = np.array([5.0, 6.0, 7.0, 1.0])

    def affine(*columns: np.ndarray) -> list[list[float]]:
        return np.stack([*columns, last], axis=1).tolist()

    assert html_report.sides(affine(0.7 * x, 0.7 * y, 2.5 * z)) == ["R", "L", "A", "P"]
    assert html_report.sides(affine(-x, -y, z)) == ["L", "R", "P", "A"]  # Prone, or turned.
    assert html_report.sides(affine(y, x, -z)) == ["A", "P", "R", "L"]
    assert html_report.sides(affine(x, z, y)) is None  # Coronal.
    tilt = np.array([0, -np.sin(0.3), np.cos(0.3), 0])
    assert html_report.sides(affine(x, y, tilt)) == ["R", "L", "A", "P"]
    assert html_report.sides(None) is None


def test_nothing_is_half_written(tmp_path: Path):
    hu, mask = pages.scan()
    out = tmp_path / "report.html"
    out.write_text("old")
    broken = pages.report()
    del broken["patient"]
    for changed, voxels_hu, marks, error in (
        (broken, hu, mask, KeyError),
        (pages.report(schema=1), hu, mask, ValueError),
        (pages.report(), hu[1:], mask[1:], ValueError),
        (pages.report(), hu, mask[:, 1:], ValueError),
        (pages.report(), hu.astype(np.float32), mask, ValueError),
        (pages.report(), hu, mask.astype(np.int64), ValueError),
    ):
        with pytest.raises(error):
            html_report.write(out, hu=voxels_hu, mask=marks, report=changed)
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]
