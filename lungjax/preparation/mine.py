"""`lungjax mine`: what a detector takes for nodules in prepared data, right or wrong, as a data set to train on.

A detector learns from its false candidates (hard negatives), and a candidate classifier from true and false ones. Both
are cut as stacks of three slices, see `lungjax.prediction.patches.cut_stacks`, one candidate a record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from lungjax import unfinished
from lungjax.ct import connected_components, lungs
from lungjax.ct.scan import READERS, Nodule, Reading, Scan
from lungjax.ct.source import Quarantined
from lungjax.data import candidates as stacks
from lungjax.data import context, crop, scans, shards
from lungjax.data.index_columns import ROW_COLUMNS
from lungjax.data.intensity import to_hu
from lungjax.data.records import SCHEMA_VERSION
from lungjax.errors import Fault, InputError
from lungjax.prediction import candidates, detection, opening, patches
from lungjax.prediction.candidates import Candidate
from lungjax.prediction.sliding_window import Segmenter
from lungjax.preparation import merge, parts
from lungjax.version import VERSION

VOXEL_THRESHOLD = 0.02
"""Lower than that of predict: what the detector holds for possible is mined, too, for false candidates are too few to
learn from in crops."""
LEAST_OVERLAP = 0.1
"""A candidate of which less lies in readers' marks is neither a nodule nor none: it only touches one."""
_UNRATED = (0,) * 9


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a call of `mine` has written.

    Attributes:
      out: the data set.
      scans: how many were looked at.
      nodules, neither, false: how many candidates lie on what at least two readers marked, on what one did, on nothing.
    """

    out: Path
    scans: int
    nodules: int
    neither: int
    false: int

    def text(self) -> str:
        """For the screen."""
        return (
            f"{self.out}: {self.nodules + self.neither + self.false} candidates of {self.scans} scans: {self.nodules} "
            f"nodules, {self.false} false, {self.neither} that fewer than two readers marked"
        )


def mine(model: Path | str, data: Sequence[Path], out: Path) -> Summary:
    """Writes every candidate of a detector as a data set; a second call goes on where an earlier one was stopped.

    Args:
      model: a segmenter, see `lungjax.load`.
      data: prepared folders, of whole scans or of crops around nodules.
      out: the folder to make.

    Raises:
      InputError: no such model or data, `out` is something else, there are no candidates, or the detector is shown
        neighbouring slices and `data` are crops.
    """
    unfinished.refuse_fixed(out)
    if out.exists():
        raise InputError(f"{out}: exists already; name another --out, or remove it.")
    segmenter = opening.open_model(model)
    if not isinstance(segmenter, Segmenter):
        raise InputError(f"{model}: is a network of the task {segmenter.trained.config.task!r}; only a detector finds.")
    datasets = [shards.open_dataset(path) for path in data]
    if segmenter.context.slices:
        for dataset in datasets:
            context.check_whole_scans(dataset)
    readers = {dataset.readers for dataset in datasets}
    if len(readers) > 1:
        raise InputError(f"--data: these have {sorted(readers)} readers; only data of equally many can be joined.")
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(segmenter.trained.variables):
        digest.update(np.asarray(leaf).tobytes())
    plan = {
        "source": json.dumps([str(path) for path in data]),
        "format": stacks.FORMAT,
        "schema_version": SCHEMA_VERSION,
        "number of index columns": len(ROW_COLUMNS),
        "readers": readers.pop(),
        "model": digest.hexdigest(),
        "lungjax version": VERSION,
    }
    with parts.open_partial(out, plan, overwrite=False) as folder:
        if not parts.is_described(folder):
            if not parts.is_planned(folder):
                _read_all(folder, data, segmenter, plan["readers"])
            for shard in merge.shards_to_write(folder):
                merge.merge(shard)
        source = {"format": stacks.FORMAT, "name": out.name, "planes": len(patches.STACK_MM)}
        merge.finish(folder, out, source, readers=plan["readers"])
    dataset = shards.open_dataset(out)
    label = stacks.Stacks(dataset).label
    counts = {
        "nodules": int((label == 1).sum()),
        "neither": int(np.isnan(label).sum()),
        "false": int((label == 0).sum()),
    }
    return Summary(out, dataset.manifest["counts"]["scans"], **counts)


def _read_all(folder: Path, data: Sequence[Path], segmenter: Segmenter, readers: int) -> None:
    """Looks at every scan that has no part yet, and plans the shards."""
    entries = [entry for path in data for entry in scans.find(path)[0]]
    quarantined, done = [], []
    for entry in tqdm(entries, unit="scan", disable=None):
        if not parts.is_done(folder, entry):
            try:
                scan, marks = scans.read_with_marks(entry)
            except Fault as fault:
                quarantined.append(Quarantined(entry.key, entry.where, fault.name, fault.message))
                continue
            proposed = candidates_of(scan, segmenter)
            if not proposed:
                continue
            parts.write(folder, entry, stack_scan(scan, marks, proposed), readers=readers)
        done.append(entry)
    if not done:
        raise InputError("no scan of --data holds a candidate; train the detector longer, or give more scans.")
    merge.plan_merge(folder, done, quarantined)


def candidates_of(scan: Scan, segmenter: Segmenter, *, voxel_threshold: float = VOXEL_THRESHOLD) -> list[Candidate]:
    """The candidates of a whole scan, in its lungs; or of a stack of crops, wherever they lie."""
    if scan.intensity == "hu" and math.prod(scan.spacing_mm) > 0:
        lung = lungs.find_lungs(scan.voxels, scan.spacing_mm)
        if lung.grid.any():
            looked_at = detection.with_wall(lung).mask()
            probability = segmenter.volume(scan.voxels, looked_at, slice_mm=scan.spacing_mm[0])
            return candidates.ranked_candidates(
                probability, scan.voxels, lung.mask(), scan.spacing_mm, voxel_threshold=voxel_threshold
            )
    hu = hu_of(scan)
    probability = segmenter.predict(hu, slice_mm=scan.spacing_mm[0])
    return candidates.ranked_candidates(probability, hu, None, _known_spacing(scan), voxel_threshold=voxel_threshold)


def hu_of(scan: Scan) -> np.ndarray:
    """int16 HU of a scan, estimated slice by slice where its source has lost them."""
    if scan.intensity == "hu":
        return scan.voxels
    # Slice by slice, so that it is compiled once, however many slices a stack has.
    hu = np.stack([np.asarray(_to_hu(slice_, intensity=scan.intensity)) for slice_ in scan.voxels])
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


_to_hu = jax.jit(to_hu, static_argnames="intensity")


def _known_spacing(scan: Scan) -> tuple[float, float, float]:
    """Of the scan, or, where its source has lost it, one that is usual in LIDC-IDRI."""
    if math.isfinite(math.prod(scan.spacing_mm)):
        return scan.spacing_mm
    return patches.STACK_MM[-1], stacks.MEDIAN_PIXEL_MM, stacks.MEDIAN_PIXEL_MM


def stack_scan(scan: Scan, marks: np.ndarray, proposed: Sequence[Candidate]) -> Scan:
    """Candidates of a scan as a scan of their own: of each, as a slice, its planes one below the other.

    A candidate that lies on readers' marks has a nodule, with these readers' marks.

    Args:
      scan: a whole scan, or a stack of crops.
      marks: uint8 of its shape, one bit a reader.
      proposed: its candidates.
    """
    cut = patches.cut_stacks(hu_of(scan), proposed, scan.spacing_mm[0])
    tall = cut.reshape(len(proposed), -1, patches.STACK_PX)
    nodules: list[Nodule] = []
    for number, candidate in enumerate(proposed):
        readings = _readings(marks, number, candidate, tall.shape[1:])
        if readings:
            nodules.append(Nodule(len(nodules), readings))
    widest = [candidate.widest for candidate in proposed]
    return dataclasses.replace(
        scan,
        voxels=np.ascontiguousarray(tall),
        intensity="hu",
        z_mm=scan.z_mm[widest],
        spacing_mm=(math.nan, *scan.spacing_mm[1:]),
        sop_uids=tuple(scan.sop_uids[number] for number in widest),
        padding_hu=None,
        nodules=tuple(nodules),
    )


def _readings(marks: np.ndarray, number: int, candidate: Candidate, shape: tuple[int, ...]) -> tuple[Reading, ...]:
    """The readers' marks that a candidate lies on, in the middle plane of its stack, slice `number`; () for nothing.

    Where the candidate only touches marks, one reader's single pixel stands for them: neither nodule nor none.
    """
    below = marks[tuple(candidate.voxels.T)]
    if not below.any():
        return ()
    side = patches.STACK_PX
    middle = len(patches.STACK_MM) // 2 * side
    readings = []
    if (below > 0).mean() >= LEAST_OVERLAP:
        own = _touched(marks[candidate.widest], candidate)
        bits = crop.cut(own, patches.corner(candidate.voxels, candidate.widest, side), side, fill=0)
        for slot in range(READERS):
            mask = np.zeros(shape, bool)
            mask[middle : middle + side] = bits & (1 << slot) > 0
            if mask.any():
                readings.append(Reading(slot, -1, _UNRATED, mask[None], (number, 0, 0)))
    if not readings:
        mask = np.zeros(shape, bool)
        mask[middle + side // 2, side // 2] = True
        readings.append(Reading(0, -1, _UNRATED, mask[None], (number, 0, 0)))
    return tuple(readings)


def _touched(bits: np.ndarray, candidate: Candidate) -> np.ndarray:
    """uint8 (rows, columns): of the marks of a slice those connected with what the candidate lies on."""
    labels = connected_components.label(bits)
    pixels = candidate.voxels[candidate.voxels[:, 0] == candidate.widest, 1:]
    own = np.unique(labels[tuple(pixels.T)])
    return np.where(np.isin(labels, own[own > 0]), bits, 0).astype(np.uint8)
