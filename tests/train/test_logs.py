"""Rates of the progress line; files that a full disk does not let a run open."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungjax.train import logs


def test_a_pause_within_a_window_leaves_its_steps_their_time(monkeypatch: pytest.MonkeyPatch):
    now_s = 100.0
    monkeypatch.setattr(logs.time, "perf_counter", lambda: now_s)
    with logs.Progress(steps=100, batch_size=8, show=False) as progress:
        progress.start(0, "")
        for _ in range(10):
            now_s += 1.0
            progress.add_wait(0.25)
            progress.advance()
        with progress.paused():
            now_s += 1000.0
        for _ in range(10):
            now_s += 1.0
            progress.advance()
        assert progress.rates() == {"steps_per_s": 1.0, "images_per_s": 8.0, "data_wait_share": 0.125}
        now_s += 2.0
        progress.advance()
        assert progress.rates() == {"steps_per_s": 0.5, "images_per_s": 4.0, "data_wait_share": 0.0}


def test_where_one_file_cannot_be_opened_its_own_error_is_told(tmp_path: Path):
    (tmp_path / logs.TENSORBOARD).touch()
    with pytest.raises(FileExistsError, match=logs.TENSORBOARD), logs.Writer(tmp_path, write=True) as writer:
        writer.start(0)
