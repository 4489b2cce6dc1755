"""Fits the bundled operating point where whole scans of val patients are not to be had: on their crops.

    python scripts/fit_operating_point.py --data data/slices [--model detector] \
        [--candidate-classifier candidate-classifier] [--lungs-ml 5000] [--store]

False positives are counted in the crops of the val patients, and as many are expected in a scan as its lungs have
room for: `--lungs-ml`, over the volume that the crops show. A crop's slices are those that readers marked, so it is cut
short above and below, and what surrounds a nodule is not all of the lungs: it is an estimate. Who has whole scans of
val patients uses `lungjax evaluate --whole-scans --split val --fit-operating-point` instead.

Prints the thresholds and the sensitivity in these crops; `--store` stores them with the candidate classifier.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from tqdm import tqdm

import lungjax
from lungjax.data import scans, shards
from lungjax.evaluation.detection import froc
from lungjax.metrics import MAJORITY_READERS
from lungjax.prediction import candidates, patches
from lungjax.preparation import mine
from lungjax.train import trained as models

DEFAULT_RATE = 1.0


def main() -> None:
    """Looks at every val crop, and prints the thresholds."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared crops")
    parser.add_argument("--model", default="detector", help="default: %(default)s")
    parser.add_argument("--candidate-classifier", default="candidate-classifier", help="default: %(default)s")
    parser.add_argument("--lungs-ml", type=float, default=5000.0, help="of a scan (default: %(default)g)")
    parser.add_argument("--store", action="store_true", help="store the thresholds with the candidate classifier")
    arguments = parser.parse_args()
    segmenter, classifier = lungjax.load(arguments.model), lungjax.load(arguments.candidate_classifier)
    patients = shards.open_dataset(arguments.data).manifest["split"]["patients"]
    entries = [entry for entry in scans.find(arguments.data)[0] if patients[entry.patient_id] == "val"]
    false, hits, known, nodules, volume_ml = [], [], set(), 0, 0.0
    for entry in tqdm(entries, unit="crop", disable=None):
        scan, marks = scans.read_with_marks(entry)
        if not math.isfinite(math.prod(scan.spacing_mm)):
            continue  # Without its spacing its volume is not known.
        known.add(scan.patient_id)
        volume_ml += scan.voxels.size * math.prod(scan.spacing_mm) / 1000
        proposed = mine.candidates_of(scan, segmenter, voxel_threshold=candidates.VOXEL_THRESHOLD)
        stacks = patches.cut_stacks(mine.hu_of(scan), proposed, scan.spacing_mm[0])
        scores = classifier.predict(stacks, scan.spacing_mm[1])
        readers = [np.bitwise_or.reduce(marks[tuple(one.voxels.T)]).item().bit_count() for one in proposed]
        is_nodule = np.bitwise_or.reduce(marks, axis=None).item().bit_count() >= MAJORITY_READERS
        nodules += is_nodule
        own = [score for score, count in zip(scores, readers, strict=True) if count >= MAJORITY_READERS]
        hits += [max(own)] if own and is_nodule else []
        false += [score for score, count in zip(scores, readers, strict=True) if count == 0]
    ranked = np.sort(false)[::-1]
    scans_worth = volume_ml / arguments.lungs_ml
    thresholds = []
    print(f"{len(entries)} crops, {volume_ml:,.0f} ml: as much as {scans_worth:.2f} scans; {nodules} nodules")
    for rate in froc.RATES:
        allowed = int(rate * scans_worth)
        thresholds.append(float(np.nextafter(ranked[allowed], 1)) if allowed < len(ranked) else 0.0)
        found = np.count_nonzero(np.array(hits) >= thresholds[-1])
        print(
            f"  {rate:<6g} false positives a scan: from {thresholds[-1]:.3f} on; {found / nodules:.3f} of the nodules"
        )
    if arguments.store:
        fitted_on = f"{len(entries)} crops of val patients, whose {volume_ml:,.0f} ml count as {scans_worth:.2f} scans"
        points = {"false_positives_a_scan": list(froc.RATES), "threshold": thresholds}
        points |= {"default": DEFAULT_RATE, "fitted_on": fitted_on}
        # All nodules of so many patients stand in the crops, but only so many scans' worth of what is none.
        points["odds_factor"] = scans_worth / len(known)
        models.write_operating_points(classifier.trained, points)


if __name__ == "__main__":
    main()
