"""JSON and CSV that nobody should have sent: read, or refused by one sentence of ours, whatever stands in them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import patches
import pytest
import strange_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strange_files import IN_A_RUN, TABLES, refusal

from lungjax import tables
from lungjax.data import manifest
from lungjax.preparation.run import prepare

FEW = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=1500, derandomize=False)
CELLS = st.one_of(
    st.text(max_size=12), st.sampled_from(["nan", "inf", "-1", "1e400", "9" * 30, "True", "../x", "", '"', "0.5", ";"])
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    prepare(patches.write(folder / "nodules.npz", patients=3), folder / "data", workers=1)
    return folder / "data"


def changed(content: Any, data: st.DataObject) -> str:
    return json.dumps(strange_files.changed_json(content, data.draw(st.randoms())))


def fuzz_manifest(folder: Path, data: st.DataObject) -> None:
    whole = json.loads((folder / "manifest.json").read_text())
    whole.pop("sha256")
    (folder / "manifest.json").write_text(changed(whole, data))
    refusal(lambda: strange_files.read_dataset(folder))


def fuzz_index(folder: Path, data: st.DataObject) -> None:
    rows = list(csv.reader((folder / "index.csv").read_text().splitlines()))
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.integers(0, len(rows) - 1))
        rows[row][data.draw(st.integers(0, len(rows[row]) - 1))] = data.draw(CELLS)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    strange_files.write_index(folder, text.getvalue().encode(errors="replace"))
    refusal(lambda: strange_files.read_dataset(folder))


@pytest.mark.parametrize("fuzz", [fuzz_manifest, fuzz_index])
@FEW
@given(drawn=st.data())
def test_data_sets_are_read_or_refused(data: Path, tmp_path: Path, fuzz: Callable, drawn: st.DataObject):
    fuzz(Path(shutil.copytree(data, tmp_path / "copy", dirs_exist_ok=True)), drawn)


@pytest.mark.exhaustive
@pytest.mark.parametrize("fuzz", [fuzz_manifest, fuzz_index])
@MANY
@given(drawn=st.data())
def test_data_sets_are_read_or_refused_many_times(data: Path, tmp_path: Path, fuzz: Callable, drawn: st.DataObject):
    fuzz(Path(shutil.copytree(data, tmp_path / "copy", dirs_exist_ok=True)), drawn)


def test_marks_in_the_index_alone_are_no_place_to_crop(data: Path, tmp_path: Path):
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    index = manifest.read_index(copy)
    index.loc[0, ["row_min", "row_max", "column_min", "column_max"]] = 0, 40, 0, 40  # Larger than the crop.
    strange_files.write_index(copy, index.to_csv(index=False, na_rep="nan").encode())
    refused = refusal(lambda: strange_files.read_dataset(copy))
    assert "index.csv has marks in its row 0, where the shard has none" in refused


@pytest.mark.parametrize("name", IN_A_RUN)
@FEW
@given(drawn=st.data())
def test_files_of_a_run_are_read_or_refused(tmp_path: Path, name: str, drawn: st.DataObject):
    contents, read = IN_A_RUN[name]
    for whole in contents:
        (tmp_path / name).write_text(json.dumps(whole))
        assert refusal(lambda: read(tmp_path)) == ""
        (tmp_path / name).write_text(changed(whole, drawn))
        refusal(lambda: read(tmp_path))


@FEW
@given(drawn=st.data())
def test_reports_are_gone_on_with_or_refused(tmp_path: Path, drawn: st.DataObject):
    whole = strange_files.report()
    (tmp_path / "report.json").write_text(json.dumps(whole))
    assert strange_files.read_report(tmp_path) == json.loads(json.dumps(whole))
    (tmp_path / "report.json").write_text(changed(whole, drawn))
    refusal(lambda: strange_files.read_report(tmp_path))


@pytest.mark.parametrize("name", IN_A_RUN)
@pytest.mark.parametrize("content", [b"[" * 10**5, b"", b"null", b"[1]", b"\xff", b"9" * 10**5, b'"x"'])
def test_what_is_no_object_is_refused(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    assert refusal(lambda: IN_A_RUN[name][1](tmp_path)).startswith(f"{tmp_path / name} is damaged (")


@pytest.mark.parametrize("name", TABLES)
@FEW
@given(
    rows=st.lists(st.lists(CELLS, max_size=6), max_size=6),
    between=st.sampled_from([",", ";", "\t", "\x00", "\n", '"']),
    ending=st.sampled_from(["\n", "\r\n", "\r", "\u2028"]),
    raw=st.binary(max_size=8),
)
def test_tables_are_read_or_refused(
    tmp_path: Path, name: str, rows: list[list[str]], between: str, ending: str, raw: bytes
):
    header, read = TABLES[name]
    text = ending.join([header, *(between.join(row) for row in rows)])
    (tmp_path / "table.csv").write_bytes(text.encode(errors="replace") + raw)
    refusal(lambda: read(tmp_path / "table.csv"))


def test_a_quotation_mark_without_end_is_refused(tmp_path: Path):
    (tmp_path / "table.csv").write_text('a,b\n1,"2\n' + "x,y\n" * 50_000)
    assert "table.csv, line" in refusal(lambda: list(tables.read(tmp_path / "table.csv", ("a", "b"))))
