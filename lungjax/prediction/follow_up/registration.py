"""Where a point of one scan lies in another scan of the same patient: registration of the lungs by SimpleITK.

    lungs of both scans -> rigid -> affine -> B-spline, each from what the one before found -> Dice of the lungs

It runs on the grid on which the lungs are found, block means about 3 mm wide. Nodules are left out, for one that grew
or vanished would draw its surroundings along. The same scans give the same transform: samples are drawn by a fixed
seed, and one thread adds them up.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import numpy as np

from lungjax import metrics
from lungjax.ct import lungs, morphology
from lungjax.ct.lungs import Lungs
from lungjax.ct.scan import Scan
from lungjax.errors import InputError
from lungjax.prediction.outputs import report_json

LEAST_DICE = 0.85
"""Dice of the lungs after registration, where both scans show them; below it the registration counts as failed."""
LEAST_COMMON = 0.5
"""Share of each scan's lungs that the other one must show."""
_WINDOW_HU = (-1000, 0)
"""Clipped to it, lung and vessels count, bone does not."""
_MARGIN_MM = 9.0
"""Around the lungs, so that their surface counts."""
_NODULE_MARGIN_MM = 6.0
"""Around nodules, which do not count."""
_CONTROL_MM = 45.0
"""Between the control points of the B-spline."""
_SAMPLED = 0.02
"""Share of the voxels that a step of the optimizer looks at: some 10,000 in the lungs."""
_SEED = 1
_ORTHONORMAL = 1e-4
_NOT_COVERED = 2
"""In a resampled mask of the lungs: beyond the other scan."""


class NotRegistered(Exception):
    """Why the lungs of two scans could not be registered: one sentence."""


@dataclasses.dataclass(frozen=True, eq=False)
class Registration:
    """From the first scan to the second.

    Attributes:
      affine_lps: (4, 4) float64, the affine part.
      spline: whether a B-spline follows the affine part; it is left out where it would fold the lungs.
      lung_dice: of the lungs, where both scans show them.
      transform: SimpleITK's, from points of the first scan to the second.
    """

    affine_lps: np.ndarray
    spline: bool
    lung_dice: float
    transform: Any

    def to_second(self, points_mm: np.ndarray) -> np.ndarray:
        """(n, 3) points of the first scan, mm to the left, back and head, in the second."""
        moved = [self.transform.TransformPoint(point) for point in np.asarray(points_mm, np.float64).tolist()]
        return np.array(moved, np.float64).reshape(-1, 3)

    def to_first(self, points_mm: np.ndarray) -> np.ndarray:
        """(n, 3) points of the second scan in the first: the inverse of `to_second`, by fixed-point iteration."""
        points_mm = np.asarray(points_mm, np.float64).reshape(-1, 3)
        linear = np.linalg.inv(self.affine_lps[:3, :3])
        at = (points_mm - self.affine_lps[:3, 3]) @ linear.T
        for _ in range(50):
            at = at + (points_mm - self.to_second(at)) @ linear.T
        return at


def check_installed() -> None:
    """InputError where SimpleITK is not installed."""
    if importlib.util.find_spec("SimpleITK") is None:
        raise InputError("to compare two scans takes SimpleITK; install it by `pip install 'lungjax[follow-up]'`.")


def register(first: Scan, second: Scan, first_nodules: np.ndarray, second_nodules: np.ndarray) -> Registration:
    """Registers the lungs of two scans of a patient.

    Args:
      first, second: scans in HU whose spacing is known.
      first_nodules, second_nodules: of the shape of each, not 0 where a nodule is.

    Raises:
      NotRegistered: one of them shows no lungs or lies askew, they show different parts of the lungs, or the lungs do
        not lie on one another in the end.
      InputError: SimpleITK is not installed.
    """
    check_installed()
    fixed, moving = _Grid.of(first, first_nodules, "first"), _Grid.of(second, second_nodules, "second")
    try:
        return _register(fixed, moving)
    except RuntimeError as error:  # SimpleITK's, for instance where no sample lies within the other scan.
        reason = str(error).strip().splitlines()[-1]
        raise NotRegistered(f"The lungs could not be registered: {reason}.") from error


@dataclasses.dataclass(frozen=True, eq=False)
class _Grid:
    """A scan on the grid on which its lungs are found.

    Attributes:
      hu: float32 SimpleITK image, clipped.
      lung: uint8 SimpleITK image.
      around: likewise, with a margin, without nodules.
      healthy: uint8 SimpleITK image, all but nodules.
    """

    hu: Any
    lung: Any
    around: Any
    healthy: Any

    @classmethod
    def of(cls, scan: Scan, nodules: np.ndarray, name: str) -> _Grid:
        lung = lungs.find_lungs(scan.hu, scan.spacing_mm)
        if not lung.grid.any():
            raise NotRegistered(f"No lungs were found in the {name} scan.")
        means = morphology.block_means(scan.hu, lung.step)
        affine = _grid_affine(scan, lung)
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        if np.abs(directions.T @ directions - np.eye(3)).max() > _ORTHONORMAL:
            raise NotRegistered(f"The axes of the {name} scan are not at right angles.")
        healthy = ~_dilated(_on_grid(nodules, lung), _NODULE_MARGIN_MM)
        around = _dilated(lung.grid, _MARGIN_MM) & healthy
        masks = [_image(mask.astype(np.uint8), affine) for mask in (lung.grid, around, healthy)]
        return cls(_image(np.clip(means, *_WINDOW_HU).astype(np.float32), affine), *masks)


def _on_grid(nodules: np.ndarray, lung: Lungs) -> np.ndarray:
    """bool like `lung.grid`: the blocks that hold any voxel of a nodule."""
    mask = np.zeros(lung.grid.shape, bool)
    blocks = np.argwhere(nodules) // lung.step
    mask[tuple(np.minimum(blocks, np.array(mask.shape) - 1).T)] = True
    return mask


def _dilated(mask: np.ndarray, margin_mm: float) -> np.ndarray:
    for _ in range(round(margin_mm / lungs.GRID_MM)):
        mask = morphology.dilate(mask, 0, 1, 2)
    return mask


def _grid_affine(scan: Scan, lung: Lungs) -> np.ndarray:
    """(4, 4) from (column, row, slice, 1) of the grid to mm."""
    affine = np.array(report_json.affine_of(scan), np.float64)
    step = np.array(lung.step[::-1])
    affine[:3, 3] += affine[:3, :3] @ ((step - 1) / 2)
    affine[:3, :3] *= step
    return affine


def _image(voxels: np.ndarray, affine: np.ndarray) -> Any:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(voxels)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing_mm).ravel().tolist())
    return image


def _register(fixed: _Grid, moving: _Grid) -> Registration:
    import SimpleITK as sitk

    start = sitk.CenteredTransformInitializer(
        fixed.lung, moving.lung, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    rigid = sitk.Euler3DTransform(_linear(fixed, moving, sitk.Euler3DTransform(start)))
    affine = sitk.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    affine = sitk.AffineTransform(_linear(fixed, moving, affine))
    spline = _spline(fixed, moving, affine)
    both = sitk.CompositeTransform([affine, spline])  # Applied from the last to the first.
    folded = _least_jacobian(fixed, both) <= 0
    whole = sitk.CompositeTransform([affine]) if folded else both
    dice = _lung_dice(fixed, moving, affine, whole)
    if dice < LEAST_DICE:
        raise NotRegistered(
            f"The lungs do not lie on one another: their Dice after registration is {dice:.2f}, below {LEAST_DICE:g}."
        )
    return Registration(_matrix(affine), not folded, dice, whole)


def _method(fixed: _Grid, moving: _Grid, *, shrink: list[int], smooth_mm: list[float]) -> Any:
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(fixed.around)
    method.SetMetricMovingMask(moving.healthy)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(_SAMPLED, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel(smooth_mm)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return method


def _linear(fixed: _Grid, moving: _Grid, start: Any) -> Any:
    """Optimizes a rigid or an affine transform, from coarse to fine."""
    method = _method(fixed, moving, shrink=[4, 2, 1], smooth_mm=[8.0, 4.0, 0.0])
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=4.0, minStep=0.01, numberOfIterations=60, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    return method.Execute(fixed.hu, moving.hu).GetNthTransform(0)


def _spline(fixed: _Grid, moving: _Grid, affine: Any) -> Any:
    """Optimizes a B-spline before the affine transform."""
    import SimpleITK as sitk

    extent_mm = np.multiply(fixed.hu.GetSize(), fixed.hu.GetSpacing())
    mesh = [max(round(mm / _CONTROL_MM), 1) for mm in extent_mm]
    start = sitk.BSplineTransformInitializer(fixed.hu, mesh)
    method = _method(fixed, moving, shrink=[2], smooth_mm=[4.0])  # Finer levels take five times as long for half a mm.
    method.SetMovingInitialTransform(affine)
    method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-6, numberOfIterations=25, maximumNumberOfCorrections=5)
    method.SetInitialTransform(start, inPlace=False)
    return method.Execute(fixed.hu, moving.hu)


def _matrix(affine: Any) -> np.ndarray:
    """(4, 4) of an ITK affine transform, which turns about its own centre."""
    linear = np.array(affine.GetMatrix()).reshape(3, 3)
    centre = np.array(affine.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(affine.GetTranslation()) + centre - linear @ centre
    return matrix


def _least_jacobian(fixed: _Grid, transform: Any) -> float:
    """The least change of volume in the lungs: where it is negative, the transform folds them."""
    import SimpleITK as sitk

    field = sitk.TransformToDisplacementField(
        transform,
        sitk.sitkVectorFloat64,
        fixed.hu.GetSize(),
        fixed.hu.GetOrigin(),
        fixed.hu.GetSpacing(),
        fixed.hu.GetDirection(),
    )
    change = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field))
    return float(change[sitk.GetArrayFromImage(fixed.lung) > 0].min())


def _lung_dice(fixed: _Grid, moving: _Grid, affine: Any, transform: Any) -> float:
    """Of the lungs, where both scans show them."""
    import SimpleITK as sitk

    resampled = sitk.Resample(moving.lung, fixed.lung, transform, sitk.sitkNearestNeighbor, _NOT_COVERED)
    moved = sitk.GetArrayFromImage(resampled)
    lung, covered = sitk.GetArrayFromImage(fixed.lung) > 0, moved != _NOT_COVERED
    shown, shown_moved = int(lung[covered].sum()), int((moved == 1).sum())
    growth = float(np.linalg.det(_matrix(affine)[:3, :3]))
    whole_moved = _volume_mm3(moving.lung) / growth / np.prod(fixed.lung.GetSpacing())
    if shown < LEAST_COMMON * lung.sum() or shown_moved < LEAST_COMMON * whole_moved:
        raise NotRegistered("The scans show different parts of the lungs, or the registration failed.")
    return float(metrics.dice(np.asarray((lung & (moved == 1)).sum()), np.asarray(shown + shown_moved)))


def _volume_mm3(lung: Any) -> float:
    import SimpleITK as sitk

    return float(sitk.GetArrayFromImage(lung).sum() * np.prod(lung.GetSpacing()))
