"""Two scans of a phantom that turned, moved and breathed out between them, with nodules that grew by known factors."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import math
from pathlib import Path
from typing import Any

import chests
import moved_chests
import numpy as np
import pytest
from moved_chests import Ball, Pair

import lungjax
from lungjax.ct import lungs
from lungjax.errors import InputError
from lungjax.prediction.follow_up import registration
from lungjax.prediction.follow_up.registration import Registration

BALLS = (
    Ball((-85, 0, 150), (8, 10)),
    Ball((-82, 4, 138), (6, 6)),  # Near the first one.
    Ball((88, 20, 170), (12, 12)),
    Ball((-60, 40, 215), (10, 0)),
    Ball((75, -10, 200), (0, 9)),
    Ball((-90, 30, 100), (14, 11)),
    Ball((95, 25, 90), (20, 25)),
)
NOBODY: dict[str, Any] = {"candidate_classifier": None, "nodule_classifier": None, "patient_classifier": None}
DAYS = 200
DATES = (datetime.date(2020, 3, 1), datetime.date(2020, 3, 1) + datetime.timedelta(days=DAYS))


@pytest.fixture(scope="module")
def pair() -> Pair:
    return moved_chests.drawn(BALLS)


@pytest.fixture(scope="module")
def predictions(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> tuple[lungjax.Prediction, lungjax.Prediction]:
    """By a network that was told where the nodules are."""
    trained = chests.untrained(tmp_path_factory.mktemp("model"))
    truth = [(scan.voxels, np.where(mask > 0, 0.9, 0.0)) for scan, mask in zip(pair.scans, pair.masks, strict=True)]
    told: Any = chests.Told(truth, trained)
    first, second = (lungjax.predict(scan, model=told, **NOBODY) for scan in pair.scans)
    assert [first.refused, second.refused] == [None, None]
    return first, second


@pytest.fixture(scope="module")
def registered(pair: Pair) -> Registration:
    """The one registration that the tests share."""
    return registration.register(*pair.scans, *pair.masks)


@pytest.fixture
def known(registered: Registration, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registration takes no time."""
    monkeypatch.setattr(registration, "register", lambda *_: registered)


def ball_of(pair: Pair, prediction: lungjax.Prediction, side: int, number: int) -> int:
    """The index of the ball that a nodule is."""
    (marks,) = np.unique(pair.masks[side][prediction.mask == number])
    return int(marks) - 1


def test_points_of_the_lungs_lie_where_they_moved(pair: Pair, registered: Registration):
    """On a grid of points through the lungs: the error's median is below 1.5 mm, its maximum below 4 mm."""
    scan = pair.scans[0]
    assert scan.affine_lps is not None
    voxels = np.argwhere(lungs.find_lungs(scan.voxels, scan.spacing_mm).mask())[::5003]
    points_mm = voxels[:, ::-1] @ scan.affine_lps[:3, :3].T + scan.affine_lps[:3, 3]
    true_mm = moved_chests.Motion().forth(points_mm)
    error_mm = np.linalg.norm(registered.to_second(points_mm) - true_mm, axis=1)
    assert np.median(error_mm) < 1.5
    assert error_mm.max() < 4
    at_nodules = registered.to_second(pair.centres_mm[0]) - pair.centres_mm[1]
    assert np.linalg.norm(at_nodules, axis=1).max() < 3
    before_mm = np.linalg.norm(points_mm - true_mm, axis=1)
    assert before_mm.min() > 30  # They lay far apart.
    np.testing.assert_allclose(registered.to_first(registered.to_second(points_mm)), points_mm, atol=1e-3)
    assert registered.spline
    assert registered.lung_dice > 0.95


@pytest.mark.slow
def test_the_same_scans_give_the_same_transform(pair: Pair, registered: Registration):
    again = registration.register(*pair.scans, *pair.masks)
    np.testing.assert_array_equal(again.to_second(pair.centres_mm[0]), registered.to_second(pair.centres_mm[0]))
    np.testing.assert_array_equal(again.affine_lps, registered.affine_lps)


@pytest.mark.usefixtures("known")
def test_nodules_are_matched_and_their_growth_is_what_it_was(pair: Pair, predictions: Any):
    first, second = predictions
    follow_up = lungjax.compare(first, second, dates_of=DATES)
    assert (follow_up.failed, follow_up.days, follow_up.no_days_reason) == (None, DAYS, None)
    matched = {}
    for nodule in follow_up.matched:
        ball = ball_of(pair, first, 0, nodule.first)
        assert ball == ball_of(pair, second, 1, nodule.second)
        assert nodule.distance_mm < 3
        assert nodule.volumes_mm3[0] == round(first.nodules[nodule.first - 1].volume_mm3, 1)
        matched[ball] = nodule
    both = {index for index, ball in enumerate(BALLS) if all(ball.diameters_mm)}
    assert set(matched) == both
    for index, nodule in matched.items():
        before_mm, after_mm = BALLS[index].diameters_mm
        low, high = nodule.growth.ratio_interval
        assert low < (after_mm / before_mm) ** 3 < high
        assert nodule.growth.ratio == pytest.approx((after_mm / before_mm) ** 3, rel=0.15)
    assert matched[6].growth.change == "larger"
    assert matched[2].growth.change == "within measurement error"
    assert matched[6].doubling_time.days == pytest.approx(DAYS * math.log(2) / math.log((25 / 20) ** 3), rel=0.2)
    assert matched[5].doubling_time.days is None
    assert "did not grow" in matched[5].doubling_time.reason
    (gone,), (new,) = follow_up.gone, follow_up.new
    assert (ball_of(pair, first, 0, gone.number), ball_of(pair, second, 1, new.number)) == (3, 4)
    for nodule, side in ((gone, 1), (new, 0)):
        true_mm = pair.centres_mm[side, 3 if nodule is gone else 4]
        assert np.linalg.norm(np.subtract(nodule.place_mm, true_mm)) < 3
        assert nodule.candidate is None
    assert follow_up.not_shown == ()


@pytest.mark.usefixtures("known")
def test_files(pair: Pair, predictions: Any, tmp_path: Path):
    follow_up = lungjax.compare(*predictions, dates_of=DATES)
    assert follow_up.save(tmp_path / "out") == tmp_path / "out"
    names = ["follow-up.csv", "follow-up.html", "follow-up.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    report = json.loads((tmp_path / "out" / "follow-up.json").read_text())
    assert report == follow_up.to_dict()
    assert (report["schema"], report["days"], len(report["matched"])) == (1, DAYS, 5)
    assert "not a medical device" in report["notice"]
    with (tmp_path / "out" / "follow-up.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["status"] for line in lines] == ["matched"] * 5 + ["new", "gone"]
    assert [float(line["growth_percent"]) for line in lines[:5]] == [one["growth_percent"] for one in report["matched"]]
    assert (lines[5]["first_volume_mm3"], lines[6]["second_volume_mm3"]) == ("", "")
    assert float(lines[6]["first_volume_mm3"]) == report["gone"][0]["volume_mm3"]
    frame = follow_up.to_dataframe()
    assert list(frame.columns) == list(lines[0])
    assert len(frame) == 7
    page = (tmp_path / "out" / "follow-up.html").read_text()
    assert page.count("<img ") == 7
    assert "first/report.html" not in page
    with pytest.raises(InputError, match=r"follow-up\.json exists; name another folder"):
        follow_up.save(tmp_path / "out")


@pytest.mark.usefixtures("known")
def test_a_hostile_text_stays_text_on_the_page(predictions: Any, tmp_path: Path):
    hostile = '</title><script>window.ran = 1</script><img src=x onerror="window.ran = 1">'
    named = [
        dataclasses.replace(one, scan=dataclasses.replace(one.scan, patient_id=hostile), warnings=(hostile,))
        for one in predictions
    ]
    lungjax.compare(named[0], named[1]).save(tmp_path)
    page = (tmp_path / "follow-up.html").read_text()
    assert "<script" not in page
    assert "src=x" not in page.replace("&lt;img src=x", "")
    assert "script-src &#39;none&#39;" in page


@pytest.mark.usefixtures("known")
def test_nothing_is_written_by_a_call_that_fails(predictions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    follow_up = lungjax.compare(*predictions)
    from lungjax.prediction.outputs import follow_up_json

    def full(_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(follow_up_json, "follow_up_csv", full)
    with pytest.raises(OSError, match="No space"):
        follow_up.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("known")
def test_the_order_of_the_dates_counts(pair: Pair, predictions: Any):
    first, second = predictions
    follow_up = lungjax.compare(first, second, dates_of=DATES)
    other = lungjax.compare(second, first, dates_of=(DATES[1], DATES[0]))
    assert other.warnings[0].endswith("given before the earlier one, of 2020-03-01: the first is the earlier.")
    assert other.to_dict()["matched"] == follow_up.to_dict()["matched"]
    undated = lungjax.compare(first, second)
    assert undated.days is None
    assert undated.no_days_reason == "No days are known between the scans: neither scan has a date."
    assert {nodule.doubling_time for nodule in undated.matched} == {None}


@pytest.mark.usefixtures("known")
def test_a_place_that_is_not_shown_and_a_candidate_below_the_threshold(predictions: Any):
    """A new nodule is a candidate of the first scan; or the first scan ends below its place."""
    first, second = predictions
    whole = lungjax.compare(first, second)
    (number,) = [one.number for one in whole.new]
    (place,) = [one.place_mm for one in whole.new]
    candidate = dataclasses.replace(first.nodules[0], number=99, centre_mm=place)
    (new,) = lungjax.compare(dataclasses.replace(first, candidates=(candidate,)), second).new
    assert (new.number, new.candidate) == (number, 99)
    low = dataclasses.replace(first.scan, voxels=first.scan.voxels[:80], z_mm=first.scan.z_mm[:80])
    cut = lungjax.compare(dataclasses.replace(first, scan=low), second)
    assert cut.new == ()
    assert [(one.scan, one.number) for one in cut.not_shown] == [("second", number)]


def test_lungs_that_do_not_lie_on_one_another_are_said(pair: Pair, predictions: Any, tmp_path: Path):
    """A refused scan, one without lungs, and a registration below the limit: a sentence, and nothing is matched."""
    first, second = predictions
    refused = lungjax.compare(dataclasses.replace(first, refused="It is a test."), second)
    assert refused.failed == "No nodules were matched. The first scan was refused: It is a test."
    assert (refused.matched, refused.new, refused.gone, refused.lung_dice) == ((), (), (), None)
    assert refused.to_dict()["registration"] is None
    refused.save(tmp_path / "out")
    assert "Not compared:" in (tmp_path / "out" / "follow-up.html").read_text()
    empty = dataclasses.replace(second.scan, voxels=np.full_like(second.scan.voxels, -1000))
    without = lungjax.compare(first, dataclasses.replace(second, scan=empty))
    assert without.failed == "No nodules were matched. No lungs were found in the second scan."


def test_a_registration_below_the_limit_is_said(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """The limit is raised, and the optimizer is spared: the lungs' masses lie on one another, not the lungs."""
    monkeypatch.setattr(registration, "_linear", lambda _fixed, _moving, start: start)
    monkeypatch.setattr(registration, "_spline", lambda _fixed, _moving, affine: affine.GetInverse())
    with pytest.raises(registration.NotRegistered, match="their Dice after registration is 0"):
        registration.register(*pair.scans, *pair.masks)


def test_scans_that_cannot_be_compared(predictions: Any, monkeypatch: pytest.MonkeyPatch):
    first, second = predictions

    def of(prediction: lungjax.Prediction, **changed: Any) -> lungjax.Prediction:
        return dataclasses.replace(prediction, scan=dataclasses.replace(prediction.scan, **changed))

    with pytest.raises(InputError, match="different patients: scan 1 of 'TEST-1', scan 2 of 'TEST-2'"):
        lungjax.compare(first, of(second, patient_id="TEST-2"))
    with pytest.raises(InputError, match="scan 1 and scan 1 are the same scan"):
        lungjax.compare(first, first)
    monkeypatch.setattr(registration.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"takes SimpleITK; install it by `pip install 'lungjax\[follow-up\]'`"):
        lungjax.compare(first, second)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("network", ["model", "candidate_classifier"])
def test_that_two_models_read_the_scans_is_said(predictions: Any, network: str):
    first, second = predictions
    sentence = "The scans were read by different models or thresholds: volumes may differ by that alone."
    assert sentence not in lungjax.compare(first, second).warnings
    other = dataclasses.replace(second, models={**second.models, network: {"sha256": "another"}})
    assert sentence in lungjax.compare(first, other).warnings


@pytest.mark.usefixtures("known")
def test_a_missing_patient_id_is_said(predictions: Any):
    first, second = predictions
    unnamed = dataclasses.replace(second, scan=dataclasses.replace(second.scan, patient_id="unknown"))
    follow_up = lungjax.compare(first, unnamed)
    sentence = "The second scan has no PatientID: that they are of one patient has not been checked."
    assert sentence in follow_up.warnings
    arrays = [
        dataclasses.replace(
            one, scan=dataclasses.replace(one.scan, patient_id="unknown", series_uid="", source="an array")
        )
        for one in predictions
    ]
    assert any(one.startswith("Neither scan has a PatientID") for one in lungjax.compare(arrays[0], arrays[1]).warnings)
