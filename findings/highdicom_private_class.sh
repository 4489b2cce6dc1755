#!/usr/bin/env bash
# highdicom 0.28.2 makes no Segmentation of images whose SOP class is a private one, and says only its UID.
#
# Versions:  highdicom 0.28.2, pydicom 3.0.2.
# Behaviour: DICOM lets a maker define SOP classes of its own (PS3.4, Private SOP Classes), and some anonymisers replace
#            the UID of the standard one. A reference needs no more than that UID. But to copy what the source image may
#            say of a specimen, highdicom looks its class up in a table of DICOM's own: the constructor ends in a
#            KeyError whose whole message is the UID, and nothing tells that it is the source image's class that is not
#            known. The same image with the class of CT is segmented.
# Seen:      CT Image Storage: Segmentation
#            a private class: KeyError: '1.2.826.0.1.3680043.8.498.1'
#
# Needs Python 3.11 or later (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check highdicom==0.28.2 pydicom==3.0.2
cat > "$folder/run.py" <<'EOF'
import warnings

import highdicom as hd
import numpy as np
import pydicom.data

PRIVATE = "1.2.826.0.1.3680043.8.498.1"
warnings.simplefilter("ignore")


def made(sop_class):
    image = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = sop_class
    mask = np.zeros((1, image.Rows, image.Columns), np.uint8)
    mask[0, 10:20, 10:20] = 1
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="one",
        segmented_property_category=hd.sr.CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure"),
        segmented_property_type=hd.sr.CodedConcept("27925004", "SCT", "Nodule"),
        algorithm_type="MANUAL",
    )
    try:
        return type(
            hd.seg.Segmentation(
                source_images=[image],
                pixel_array=mask,
                segmentation_type="BINARY",
                segment_descriptions=[segment],
                series_instance_uid=hd.UID(),
                series_number=1,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer="one",
                manufacturer_model_name="one",
                software_versions="1",
                device_serial_number="0",
            )
        ).__name__
    except Exception as error:
        return f"{type(error).__name__}: {error}"


said = made(pydicom.uid.CTImageStorage), made(PRIVATE)
print(f"CT Image Storage: {said[0]}\na private class: {said[1]}")
assert said == ("Segmentation", f"KeyError: '{PRIVATE}'"), "changed"
EOF
cd "$folder"
venv/bin/python run.py
