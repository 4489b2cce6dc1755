#!/usr/bin/env bash
# SimpleITK and nibabel put one NIfTI file in two places where its qform and sform disagree.
#
# Versions:  SimpleITK 2.5.7, nibabel 5.4.2, numpy 2.4.6.
# Behaviour: both codes are above 0, and the sform lies 10, 20, 30 mm from the qform. nibabel takes the sform for every
#            code; SimpleITK takes the sform only where its code is 1 (scanner) and the qform for 2 to 4 (aligned, Talairach,
#            MNI), without a word. So masks and findings made with one lie elsewhere in the other.
# Seen:      origin in mm to the left, back and head of (qform, sform) codes
#            1 1: nibabel -10 -20 30, SimpleITK -10 -20 30
#            1 2: nibabel -10 -20 30, SimpleITK 0 0 0
#            1 4: nibabel -10 -20 30, SimpleITK 0 0 0
#            2 1: nibabel -10 -20 30, SimpleITK -10 -20 30
#            2 2: nibabel -10 -20 30, SimpleITK 0 0 0
#
# Needs Python 3.11 to 3.13 (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import sys

import nibabel as nib
import numpy as np
import SimpleITK as sitk

path = sys.argv[1]
qform, sform = np.eye(4), np.eye(4)
sform[:3, 3] = 10, 20, 30
for codes in ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2)):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.set_qform(qform, codes[0])
    image.set_sform(sform, codes[1])
    nib.save(image, path)
    right_front_head = nib.load(path).affine[:3, 3] * (-1, -1, 1)  # nibabel counts to the right and to the front.
    places = (right_front_head, sitk.ReadImage(path).GetOrigin())
    nibabel, simpleitk = (" ".join(f"{round(x) + 0}" for x in place) for place in places)
    print(f"{codes[0]} {codes[1]}: nibabel {nibabel}, SimpleITK {simpleitk}")
PYTHON
seen="$("$folder/venv/bin/python" "$folder/run.py" "$folder/image.nii" 2>"$folder/said")"
echo "$seen"
[ "$seen" = "1 1: nibabel -10 -20 30, SimpleITK -10 -20 30
1 2: nibabel -10 -20 30, SimpleITK 0 0 0
1 4: nibabel -10 -20 30, SimpleITK 0 0 0
2 1: nibabel -10 -20 30, SimpleITK -10 -20 30
2 2: nibabel -10 -20 30, SimpleITK 0 0 0" ]
[ ! -s "$folder/said" ]
