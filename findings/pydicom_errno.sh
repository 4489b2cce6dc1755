#!/usr/bin/env bash
# pydicom turns the error of a full disk into one without its number.
#
# Versions:  pydicom 3.0.2, on Linux.
# Behaviour: what a file object raises while an element is written is raised again as the same class with a longer text alone.
#            An OSError so loses `errno`, `strerror` and `filename`: a program that asks for ENOSPC does not know a full disk.
#            The first error is its `__cause__`.
#            A limit of the file's size stands for the full disk here.
# Seen:      plain write: OSError, errno 27, strerror File too large, cause errno None
#            save_as: OSError, errno None, strerror None, cause errno 27
#
# Needs Python 3.11 to 3.13 (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pydicom==3.0.2
cat > "$folder/run.py" <<'PYTHON'
import resource
import signal
import sys

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

image = Dataset()
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, "1.2.3"
image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 256, 256, 1, "MONOCHROME2"
image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
image.PixelData = bytes(2 * 256 * 256)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # Python does so itself from 3.12 on.
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # In place of a full disk, whose number is 28.


def attempt(name, write):
    file = open(sys.argv[1], "wb")
    try:
        write(file)
    except OSError as error:
        cause = getattr(error.__cause__, "errno", None)
        print(f"{name}: {type(error).__name__}, errno {error.errno}, strerror {error.strerror}, cause errno {cause}")
    try:
        file.close()
    except OSError:
        pass  # What is left in the buffer finds no room either.


attempt("plain write", lambda file: file.write(bytes(2**16)))
attempt("save_as", lambda file: image.save_as(file, implicit_vr=False, little_endian=True))
PYTHON
seen="$("$folder/venv/bin/python" "$folder/run.py" "$folder/image.dcm" 2>"$folder/said")"
echo "$seen"
[ "$seen" = "plain write: OSError, errno 27, strerror File too large, cause errno None
save_as: OSError, errno None, strerror None, cause errno 27" ]
[ ! -s "$folder/said" ]
