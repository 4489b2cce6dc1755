#!/usr/bin/env bash
# highdicom 0.28.2 leaves an SQLite connection open in every multi-frame image, and has no public way to close it.
#
# Versions:  highdicom 0.28.2, pydicom 3.0.2; Python 3.13.
# Behaviour: a Segmentation (and whatever `segread` or `imread` return) keeps its frames in an SQLite database in memory.
#            There is no `close`, and `with` does not close it, so that Python, from 3.13 on, issues a ResourceWarning when
#            the image is collected: not where it was made but anywhere later, so pytest with `-W error` fails some
#            unrelated test. Closing the private `_db_con` helps.
# Seen:      has `close`: False
#            collected after `with`: ResourceWarning: unclosed database
#            collected after `_db_con.close()`: nothing
#
# Needs Python 3.13 or later (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check highdicom==0.28.2 pydicom==3.0.2
cat > "$folder/run.py" <<'EOF'
import gc
import warnings

import highdicom as hd
import numpy as np
import pydicom.data

image = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))


def made():
    mask = np.zeros((1, image.Rows, image.Columns), np.uint8)
    mask[0, 10:20, 10:20] = 1
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="one",
        segmented_property_category=hd.sr.CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure"),
        segmented_property_type=hd.sr.CodedConcept("27925004", "SCT", "Nodule"),
        algorithm_type="MANUAL",
    )
    return hd.seg.Segmentation(
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


def collected(close):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        with made() as one:
            pass
        if close:
            one._db_con.close()
        del one
        gc.collect()
    said = {f"{one.category.__name__}: {str(one.message).split(' in ')[0]}" for one in caught}
    return ", ".join(sorted(said)) or "nothing"


one = made()
said = hasattr(one, "close"), collected(close=False), collected(close=True)
one._db_con.close()
print(f"has `close`: {said[0]}\ncollected after `with`: {said[1]}\ncollected after `_db_con.close()`: {said[2]}")
assert said == (False, "ResourceWarning: unclosed database", "nothing"), "changed"
EOF
cd "$folder"
venv/bin/python run.py
