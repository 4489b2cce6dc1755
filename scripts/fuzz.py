"""Fuzzes the readers of files that others hand on, led by what each input reaches in lungjax's own code.

    pip install -e '.[dev,fuzz]'
    python scripts/fuzz.py READER [--minutes 60] [--corpus workdir/fuzz/READER]
    python scripts/fuzz.py READER --input FILE

READER is a name in `READERS`. Each input is written to a file and read as lungjax reads such files: it may be read, or
refused by one line (`InputError` or `Fault`). Anything else is a finding: another exception, a file opened elsewhere,
more than 10 seconds, more than 512 MiB. Checksums that would stop every input at the door are left out or written anew.

The first finding ends the run with an exit code other than 0. Its input lies in `<corpus>-findings`; `--input` reads it
once more, without atheris. Inputs that reach something new stay in the corpus, from which the next run goes on. What is
written on the way lies in `<corpus>-files`.

Random damage alone, by Hypothesis, is part of the tests: `bash scripts/test.sh -m exhaustive`.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import pickle
import random
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

atheris: Any = importlib.import_module("atheris") if importlib.util.find_spec("atheris") else None
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

with atheris.instrument_imports(include=["lungjax"]) if atheris and __name__ == "__main__" else nullcontext():
    import hostile
    import networks
    import patches
    import source_files
    import strange_files

    from lungjax.ct import read as ct
    from lungjax.ct.source import Entry
    from lungjax.data import manifest
    from lungjax.errors import Fault
    from lungjax.lidc import annotations
    from lungjax.prediction import opening
    from lungjax.prediction.outputs.folder import REPORT
    from lungjax.preparation.formats import nifti, prob_unet_pickle, unpickle
    from lungjax.preparation.run import prepare
    from lungjax.train import trained

MOST_SECONDS, MOST_MIB = 10, 512
MOST_BYTES = 2**16
VOXELS = (np.arange(8 * 8 * 6, dtype=np.int16) * 3 - 1000).reshape(8, 8, 6)
META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = {packed}
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = -30 40 -500
ElementSpacing = 0.7 0.8 2.5
DimSize = 8 8 6
ElementType = MET_SHORT
ElementDataFile = {file}
"""


def mutated_json(content: bytes, rng: random.Random) -> bytes | None:
    """JSON with a value replaced, or left out."""
    try:
        return json.dumps(strange_files.changed_json(json.loads(content), rng)).encode()
    except (ValueError, RecursionError):
        return None


def mutated_words(content: bytes, rng: random.Random) -> bytes:
    """A table, or lines of names and values, with a word replaced by another of it, or by a strange one."""
    parts = re.split(rb"([,;=\s]+)", content)  # Words, with what is between them.
    place, other = (rng.randrange(0, len(parts), 2) for _ in range(2))
    parts[place] = rng.choice([parts[other], str(rng.choice(strange_files.STRANGE)).encode()])
    return b"".join(parts)


class Reader(NamedTuple):
    """A reader of one kind of file.

    Attributes:
      seeds: sound files of that kind, or of what of it is fuzzed.
      read: reads one; returns what is said where it is refused, or "".
      mutated: replaces a value in one, as no change of bytes would; None where it cannot.
    """

    seeds: Sequence[bytes]
    read: Callable[[bytes], str]
    mutated: Callable[[bytes, random.Random], bytes | None] = lambda content, rng: None


def volumes(folder: Path, *, packed: bool) -> Reader:
    """NIfTI, as a CT and as the label map of one; packed only after it was changed, for gzip has a checksum."""
    affine = np.array([[-0.7, 0, 0, 30], [0, -0.8, 0, -40], [0, 0, 2.5, -500], [0, 0, 0, 1]])
    path, sound = folder / ("a.nii.gz" if packed else "a.nii"), folder / "sound.nii"
    images = [kind(VOXELS, affine) for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image)]
    labels = nibabel.Nifti1Image((VOXELS > 0).astype(np.float32), affine)
    sound.write_bytes(images[0].to_bytes())

    def read(content: bytes) -> str:
        path.write_bytes(gzip.compress(content, 1) if packed and content[:2] != b"\x1f\x8b" else content)
        said = [
            hostile.read(nifti, Entry("a", "a", str(one), (str(one), label)))
            for one, label in ((path, None), (sound, str(path)))
        ]
        return said[0] and said[1]  # An image is no label map, and the other way about.

    seeds = [image.to_bytes() for image in (*images, labels)]
    return Reader([*seeds, gzip.compress(seeds[0], 1)] if packed else seeds, read)


def series(folder: Path) -> Reader:
    """An image of a DICOM series, found and read together with the others."""
    stored = (VOXELS.T + 1024).astype(np.int16)[:4]
    paths = source_files.write_ct(folder / "series", stored, tags={"SliceThickness": 5, "GantryDetectorTilt": 0})
    sound, seeds = pydicom.dcmread(paths[0]), [paths[0].read_bytes()]
    for number, syntax in enumerate((ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless)):
        path = folder / f"{number}.dcm"
        if syntax == RLELossless:
            sound.compress(syntax, generate_instance_uid=False)
        sound.file_meta.TransferSyntaxUID = syntax
        sound.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
        seeds.append(path.read_bytes())

    def read(content: bytes) -> str:
        paths[0].write_bytes(content)
        return strange_files.refusal(read_all)

    def read_all() -> None:
        entries, quarantined = ct.find(folder / "series")
        for entry in entries:
            check = ct.check(entry)
            ct.read(entry)
            assert not check.faults, check
        for one in quarantined:
            raise Fault(one.name, one.message)

    return Reader(seeds, read)


def metaimage(folder: Path, *, voxels: bool) -> Reader:
    """The header of a MetaImage beside sound voxels, or compressed voxels beside a sound header."""
    content = VOXELS.T.tobytes()
    path, packed = folder / "x.mhd", zlib.compress(content)
    headers = [META.format(packed=bool(suffix), file=f"x.{suffix}raw").encode() for suffix in ("", "z")]
    (folder / "x.raw").write_bytes(content)
    (folder / "x.zraw").write_bytes(packed)
    path.write_bytes(headers[1])
    changed = folder / "x.zraw" if voxels else path

    def read(content: bytes) -> str:
        changed.write_bytes(content)
        return hostile.read(ct, Entry("x", "x", str(path), (str(path),)))

    return Reader([packed, gzip.compress(content)], read) if voxels else Reader(headers, read, mutated_words)


def pickles(folder: Path) -> Reader:
    """Any pickle, as far as the unpickler goes."""
    values = {"a": [VOXELS[:2, :2, 0], (1, "é", None, 2.5)], 7: {4}, b"\xff": np.float32(0.1)}
    path = folder / "x.pickle"

    def load() -> None:
        found = unpickle.load(path)
        for value in found.values() if isinstance(found, dict) else [found]:
            unpickle.as_array(value)

    def read(content: bytes) -> str:
        path.write_bytes(content)
        return strange_files.refusal(load)

    return Reader([pickle.dumps(values, protocol) for protocol in range(6)], read)


def crops(folder: Path) -> Reader:
    """A pickle of the Probabilistic U-Net's crops, to scans."""
    record = {"image": np.linspace(0, 1, 16).reshape(4, 4), "masks": [np.eye(4, dtype=np.uint8)] * 4}
    series_uid = annotations.all_scans()[0].series_uid
    records = {f"1_slice{number}": {**record, "series_uid": series_uid} for number in range(2)}

    def read(content: bytes) -> str:
        # Each has a name of its own, for the format keeps what it has read by its path.
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".pickle") as file:
            file.write(content)
            file.flush()
            said = strange_files.refusal(lambda: read_all(Path(file.name)))
        return said

    def read_all(path: Path) -> None:
        entries, _ = prob_unet_pickle.find(path)
        for entry in entries:
            prob_unet_pickle.read(entry)

    return Reader([pickle.dumps(records, protocol) for protocol in (2, 5)], read)


def dataset(folder: Path, *, index: bool) -> Reader:
    """The manifest of a data set, without seal, or its index, with the manifest sealed anew."""
    prepare(patches.write(folder / "nodules.npz", patients=2), folder / "data", workers=1)
    described = json.loads((folder / "data" / manifest.MANIFEST).read_text())
    del described["sha256"]
    seed = (folder / "data" / manifest.INDEX).read_bytes() if index else json.dumps(described).encode()

    def read(content: bytes) -> str:
        if index:
            strange_files.write_index(folder / "data", content)
        else:
            (folder / "data" / manifest.MANIFEST).write_bytes(content)
        return strange_files.refusal(lambda: strange_files.read_dataset(folder / "data"))

    return Reader([seed], read, mutated_words if index else mutated_json)


def report(folder: Path) -> Reader:
    """A report of `lungjax predict`, which a later call goes on with."""

    def read(content: bytes) -> str:
        (folder / REPORT).write_bytes(content)
        return strange_files.refusal(lambda: strange_files.read_report(folder))

    return Reader([json.dumps(strange_files.report()).encode()], read, mutated_json)


def model(folder: Path, *, weights: bool) -> Reader:
    """The header of a model's weights, or its description; without seals, as its author writes them anew."""
    path = networks.made("sift", folder / "model", width=2)
    described = json.loads((path / trained.MODEL_FILE).read_text())
    description = json.dumps({name: described[name] for name in described if "sha256" not in name}).encode()
    stored = (path / trained.WEIGHTS_FILE).read_bytes()
    end = 8 + int.from_bytes(stored[:8], "little")
    (path / trained.MODEL_FILE).write_bytes(description)

    def read(content: bytes) -> str:
        if weights:
            header = len(content).to_bytes(8, "little") + content
            (path / trained.WEIGHTS_FILE).write_bytes(header + stored[end:])
        else:
            (path / trained.MODEL_FILE).write_bytes(content)
        return strange_files.refusal(lambda: opening.open_model(path))

    return Reader([stored[8:end].rstrip() if weights else description], read, mutated_json)


def training_run(folder: Path) -> Reader:
    """The files of a run beside its checkpoint, as one object by their names; without seals."""
    path = networks.workdir("sift", folder)

    def read(content: bytes) -> str:
        try:
            files = json.loads(content)
        except (ValueError, RecursionError):
            return "no JSON"
        return strange_files.refusal(lambda: strange_files.read_run(path, files))

    return Reader([json.dumps(strange_files.files_of_run(path)).encode()], read, mutated_json)


def of_a_run(folder: Path, *, name: str) -> Reader:
    """A file of a run, without seal."""
    contents, use = strange_files.IN_A_RUN[name]

    def read(content: bytes) -> str:
        (folder / name).write_bytes(content)
        return strange_files.refusal(lambda: use(folder))

    return Reader([json.dumps(content).encode() for content in contents], read, mutated_json)


def tables(folder: Path) -> Reader:
    """A table, by each reader of tables; it is read where one of them reads it."""
    path = folder / "table.csv"

    def read(content: bytes) -> str:
        path.write_bytes(content)
        said = [strange_files.refusal(lambda use=use: use(path)) for _, use in strange_files.TABLES.values()]
        return said[0] if all(said) else ""

    rows = ("A,1\nB,0\n", "A,B\nC,B\n", "1.2.3,-10.5,4,5e1,0.5\n", "1;2\n")
    headers = [header for header, _ in strange_files.TABLES.values()]
    return Reader([f"{header}\n{row}".encode() for header, row in zip(headers, rows, strict=True)], read, mutated_words)


READERS: dict[str, Callable[[Path], Reader]] = {
    "nifti": lambda folder: volumes(folder, packed=False),
    "nifti-gz": lambda folder: volumes(folder, packed=True),
    "dicom": series,
    "metaimage": lambda folder: metaimage(folder, voxels=False),
    "metaimage-voxels": lambda folder: metaimage(folder, voxels=True),
    "pickle": pickles,
    "prob-unet-pickle": crops,
    "manifest": lambda folder: dataset(folder, index=False),
    "index": lambda folder: dataset(folder, index=True),
    "report": report,
    "weights": lambda folder: model(folder, weights=True),
    "model": lambda folder: model(folder, weights=False),
    "run": training_run,
    "calibration": lambda folder: of_a_run(folder, name="calibration.json"),
    "operating-points": lambda folder: of_a_run(folder, name="operating_points.json"),
    "split": lambda folder: of_a_run(folder, name="split.json"),
    "tables": tables,
}


def checked(reader: Reader, folder: Path) -> Callable[[bytes], str]:
    """`reader.read`, which raises an AssertionError where it opens a file elsewhere, or takes too much memory.

    The time is libFuzzer's to limit: only it can end what does not come back.
    """
    places = (str(folder), str(ROOT), sys.prefix, sys.base_prefix, "/proc/", "/sys/", "/dev/")

    def read(content: bytes) -> str:
        said: list[str] = []
        with hostile.opened_files() as opened:
            mib = hostile.peak_mib(lambda: said.append(reader.read(content)))
        assert mib < MOST_MIB, f"it took {mib:.0f} MiB"
        elsewhere = [path for path in map(os.path.abspath, opened) if not path.startswith(places)]
        assert elsewhere == [], f"it opened {elsewhere}"
        return said[0]

    return read


def fuzz(name: str, corpus: Path, minutes: float) -> None:
    """Fuzzes; libFuzzer ends the process, and Python has no time left to remove anything."""
    for function in pickle._Unpickler.dispatch.values():  # Python's own, which ours is derived from.
        atheris.instrument_func(function)
    folder, findings = (corpus.with_name(f"{corpus.name}-{what}").resolve() for what in ("files", "findings"))
    shutil.rmtree(folder, ignore_errors=True)
    seeds, files = folder / "seeds", folder / "read"
    for path in (corpus, findings, seeds, files):
        path.mkdir(parents=True, exist_ok=True)
    reader = READERS[name](files)
    for number, seed in enumerate(reader.seeds):
        (seeds / str(number)).write_bytes(seed)

    def mutate(content: bytes, most_bytes: int, seed: int) -> bytes:
        rng = random.Random(seed)
        changed = reader.mutated(content, rng) if rng.randrange(2) else None
        return changed if changed and len(changed) <= most_bytes else atheris.Mutate(content, most_bytes)

    read = checked(reader, files)

    def run(content: bytes) -> None:
        read(content)

    limits = {
        "max_total_time": round(60 * minutes),
        "timeout": MOST_SECONDS,
        "rss_limit_mb": 4096,  # Of the whole process, JAX and what the fuzzer remembers among it.
        "max_len": MOST_BYTES,
        "artifact_prefix": f"{findings}{os.sep}",
        "print_final_stats": 1,
    }
    flags = [f"-{name}={value}" for name, value in limits.items()]
    atheris.Setup([sys.argv[0], *flags, str(corpus), str(seeds)], run, custom_mutator=mutate)
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=READERS, help="what is fuzzed")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long; default 60")
    parser.add_argument("--corpus", type=Path, help="folder of inputs to go on from; default workdir/fuzz/READER")
    parser.add_argument("--input", type=Path, help="read this file once, as the fuzzer would")
    args = parser.parse_args(arguments)
    if args.input is not None:
        with tempfile.TemporaryDirectory(prefix="lungjax-fuzz-") as folder:
            print(checked(READERS[args.reader](Path(folder)), Path(folder))(args.input.read_bytes()) or "read")
    elif atheris is not None:
        fuzz(args.reader, args.corpus or Path("workdir") / "fuzz" / args.reader, args.minutes)
    else:
        print(
            "scripts/fuzz.py needs atheris: pip install -e '.[dev,fuzz]', on Linux (x86-64) with Python 3.11 to 3.13.",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
