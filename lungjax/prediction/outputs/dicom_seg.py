"""Nodules as DICOM: a segmentation, and a structured report of TID 1500 whose measurements refer to its segments.

Both refer to the images of the source series. Needs the extra `lungjax[dicom-seg]`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.sr import CodedConcept

from lungjax.ct import multiframe
from lungjax.version import VERSION

SEG_FILE, SR_FILE = "segmentation.dcm", "report.dcm"

_MAKER = "lungjax"
_SERIAL = "0"  # Software has none, and the attribute must not be empty.
_ABNORMAL = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
_NODULE = CodedConcept("27925004", "SCT", "Nodule")
_LUNG = CodedConcept("39607008", "SCT", "Lung")
_LUNGS = {
    "left": CodedConcept("44029006", "SCT", "Left lung"),
    "right": CodedConcept("3341006", "SCT", "Right lung"),
    None: _LUNG,
}
_LATERALITIES = {"left": CodedConcept("7771000", "SCT", "Left"), "right": CodedConcept("24028007", "SCT", "Right")}
_ZONES = {
    "upper": CodedConcept("281392002", "SCT", "Upper zone of lung"),
    "middle": CodedConcept("281393007", "SCT", "Middle zone of lung"),
    "lower": CodedConcept("281394001", "SCT", "Lower zone of lung"),
}
_PLEURA = CodedConcept("3120008", "SCT", "Pleura")
_AI = CodedConcept("123110", "DCM", "Artificial Intelligence")
_CT_CHEST = CodedConcept("24627-2", "LN", "CT Chest")
_TITLE = CodedConcept("126000", "DCM", "Imaging Measurement Report")
_MEAN = CodedConcept("373098007", "SCT", "Mean")
_DEVIATION = CodedConcept("386136009", "SCT", "Standard Deviation")
_MM = CodedConcept("mm", "UCUM", "millimeter")
_NO_UNITS = CodedConcept("1", "UCUM", "no units")
_PRIVATE, _LIDC = "99LUNGJAX", "99LIDCQIICR"
"""Coding schemes: our own, for what no standard names; and that of the conversion of LIDC-IDRI's readings to DICOM
(Fedorov et al. 2020, "DICOM re-encoding of volumetrically annotated Lung Imaging Database Consortium (LIDC) nodules"),
so that predicted ratings are named as the readers' are."""
_MEASURED = {
    "volume_mm3": (CodedConcept("118565006", "SCT", "Volume"), CodedConcept("mm3", "UCUM", "cubic millimeter"), None),
    "longest_mm": (CodedConcept("103339001", "SCT", "Long Axis"), _MM, None),
    "perpendicular_mm": (CodedConcept("103340004", "SCT", "Short Axis"), _MM, None),
    "mean_hu": (
        CodedConcept("112031", "DCM", "Attenuation Coefficient"),
        CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit"),
        _MEAN,
    ),
    "mean_mm": (CodedConcept("81827009", "SCT", "Diameter"), _MM, _MEAN),
    "solid_mean_mm": (CodedConcept("solid-diameter", _PRIVATE, "Diameter of the solid part"), _MM, _MEAN),
    "pleura_mm": (CodedConcept("121206", "DCM", "Distance"), _MM, None),
    "malignancy": (CodedConcept("malignancy", _PRIVATE, "Probability that readers call it malignant"), _NO_UNITS, None),
}
"""A measurement of report.json -> its name, its unit, how it was derived; what is null is left out."""
_RATINGS = {
    "subtlety": CodedConcept("C45992", "NCIt", "Subtlety score"),
    "internalStructure": CodedConcept("200", _LIDC, "Internal structure"),
    "calcification": CodedConcept("C3672", "NCIt", "Calcification"),
    "sphericity": CodedConcept("400", _LIDC, "Sphericity"),
    "margin": CodedConcept("C25563", "NCIt", "Margin"),
    "lobulation": CodedConcept("600", _LIDC, "Lobulation"),
    "spiculation": CodedConcept("700", _LIDC, "Spiculation"),
    "texture": CodedConcept("C41144", "NCIt", "Texture"),
    "malignancy": CodedConcept("900", _LIDC, "Malignancy"),
}
_TYPE = CodedConcept("type", _PRIVATE, "Type of nodule")
_TYPES = {
    "solid": CodedConcept("RID50151", "RADLEX", "solid pulmonary nodule"),
    "part-solid": CodedConcept("RID50152", "RADLEX", "part-solid pulmonary nodule"),
    "ground glass": CodedConcept("RID50153", "RADLEX", "non-solid pulmonary nodule"),
}
_CATEGORY = CodedConcept("111005", "DCM", "Assessment Category")


def write(folder: Path, images: Sequence[Any], mask: np.ndarray, report: dict[str, Any]) -> list[Path]:
    """Writes both files; neither where the report has no nodule, for DICOM allows no segmentation without segments.

    Args:
      folder: an existing one.
      images: (slices,) headers of the source series, from `lungjax.ct.dicom.read_headers`, in the order of `mask`.
      mask: (slices, rows, columns) uint8, the number of the nodule.
      report: by `report_json.as_dict`.

    Raises:
      AttributeError: a header lacks what DICOM demands of it.
    """
    if not report["nodules"]:
        return []
    if multiframe.is_enhanced(images[0]):  # All slices lie in one file, whose order of frames is its own.
        images = images[:1]
        segmentation = _segmentation(images, mask[np.argsort(multiframe.frame_order(images[0]))], report)
    else:
        marked = np.flatnonzero(mask.any(axis=(1, 2)))
        segmentation = _segmentation([images[number] for number in marked.tolist()], mask[marked], report)
    with database_closed(segmentation):
        structured = _structured(images, segmentation, report)
        written = [folder / SEG_FILE, folder / SR_FILE]
        for path, dataset in zip(written, (segmentation, structured), strict=True):
            content = io.BytesIO()  # On a full disk, pydicom would raise its own error instead of the disk's.
            dataset.save_as(content)
            path.write_bytes(content.getbuffer())
    return written


@contextlib.contextmanager
def database_closed(image: Any) -> Iterator[Any]:
    """Closes, at the end, the SQLite database in memory by which an image of highdicom finds its frames.

    highdicom 0.28 leaves it open and has no public way to close it; Python warns of that from 3.13 on.
    """
    try:
        yield image
    finally:
        if (database := getattr(image, "_db_con", None)) is not None:
            database.close()


def _segmentation(images: Sequence[Any], mask: np.ndarray, report: dict[str, Any]) -> hd.seg.Segmentation:
    model = report["model"]
    version = f"{report['lungjax']}, {model['name']} step {model['step']}"
    algorithm = hd.AlgorithmIdentificationSequence(name=_MAKER, version=version, family=_AI)
    segments = [
        hd.seg.SegmentDescription(
            segment_number=nodule["number"],
            segment_label=f"Nodule {nodule['number']}",
            segmented_property_category=_ABNORMAL,
            segmented_property_type=_NODULE,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=hd.UID(),
            tracking_id=f"Nodule {nodule['number']}",
            anatomic_regions=[_LUNGS[nodule["side"]]],
        )
        for nodule in report["nodules"]
    ]
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=mask,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=hd.UID(),
        series_number=1001,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=_MAKER,
        manufacturer_model_name=_MAKER,
        software_versions=VERSION,
        device_serial_number=_SERIAL,
        content_label="NODULES",
        content_description="Lung nodules, research only",
        series_description="lungjax nodules (research, not for diagnosis)",
    )


def _structured(
    images: Sequence[Any], segmentation: hd.seg.Segmentation, report: dict[str, Any]
) -> hd.sr.Comprehensive3DSR:
    device = hd.sr.DeviceObserverIdentifyingAttributes(uid=hd.UID(), name=_MAKER, manufacturer_name=_MAKER)
    observer = hd.sr.ObserverContext(
        observer_type=CodedConcept("121007", "DCM", "Device"), observer_identifying_attributes=device
    )
    algorithm = hd.sr.AlgorithmIdentification(name=_MAKER, version=report["lungjax"])
    groups = [
        _measurements(nodule, segmentation, segment, algorithm)
        for nodule, segment in zip(report["nodules"], segmentation.SegmentSequence, strict=True)
    ]
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_CT_CHEST,
        imaging_measurements=groups,
        title=_TITLE,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[segmentation, *images],
        content=content[0],
        series_instance_uid=hd.UID(),
        series_number=1002,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=_MAKER,
        series_description="lungjax measurements (research, not for diagnosis)",
    )


def _measurements(nodule: dict[str, Any], segmentation: Any, segment: Any, algorithm: Any) -> Any:
    measured = [
        hd.sr.Measurement(
            name=name,
            value=nodule[key],
            unit=unit,
            derivation=derivation,
            finding_sites=[hd.sr.FindingSite(anatomic_location=_PLEURA)] if key == "pleura_mm" else None,
        )
        for key, (name, unit, derivation) in _MEASURED.items()
        if nodule[key] is not None
    ]
    for rating, rated in nodule["ratings"].items():
        for value, derivation in ((rated["expected"], _MEAN), (rated["standard_deviation"], _DEVIATION)):
            if value is not None:
                measured.append(hd.sr.Measurement(_RATINGS[rating], value, _NO_UNITS, derivation=derivation))
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        # Not `from_segmentation`, which fails where there is one segment, named in the shared functional groups.
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=nodule["number"],
            source_series=hd.sr.SourceSeriesForSegmentation(segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID),
        ),
        finding_type=_NODULE,
        finding_sites=[
            hd.sr.FindingSite(
                anatomic_location=_LUNG,
                laterality=_LATERALITIES.get(nodule["side"]),
                topographical_modifier=_ZONES.get(nodule["zone"]),
            )
        ],
        algorithm_id=algorithm,
        measurements=measured,
        qualitative_evaluations=_evaluations(nodule) or None,
    )


def _evaluations(nodule: dict[str, Any]) -> list[hd.sr.QualitativeEvaluation]:
    """Type and Lung-RADS category, where they are known."""
    evaluations = []
    if nodule["type"] is not None:
        evaluations.append(hd.sr.QualitativeEvaluation(name=_TYPE, value=_TYPES[nodule["type"]]))
    if nodule["lung_rads"] is not None:
        category = nodule["lung_rads"]
        meaning = f"Lung-RADS v2022 {category} at baseline, by rule and no reading"
        evaluations.append(
            hd.sr.QualitativeEvaluation(_CATEGORY, CodedConcept(f"lung-rads-{category}", _PRIVATE, meaning))
        )
    return evaluations
