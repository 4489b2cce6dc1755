"""The loop never waits for the newest step: what it reads of the device is `IN_FLIGHT` steps old.

`jax.transfer_guard` does not see reads on a CPU, where they are no transfers. So every way to read a value that
is replicated over the eight devices of the tests, as all that a step returns is, is watched instead.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import patches as made
import pytest
import runs

from lungjax.preparation.run import prepare
from lungjax.train import loop, step, watch

Read = tuple[int, int | None]
"""The step dispatched last, and the step whose result was read; None for an array that no step returned."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Read]:
    """Every read of a value on a device, and every wait for one, from the first training step on."""
    seen: list[Read] = []
    returned: list[list[Any]] = []

    def note(tree: Any) -> None:
        if returned:
            for leaf in jax.tree.leaves(tree):
                of = [n for n, arrays in enumerate(returned, start=1) if any(leaf is array for array in arrays)]
                seen.append((len(returned), of[0] if of else None))

    array, wait = type(jax.numpy.zeros(())), jax.block_until_ready
    value: Any = array._value  # pyright: ignore[reportAttributeAccessIssue]  Where all conversions to NumPy end.
    ready = array.block_until_ready
    monkeypatch.setattr(array, "_value", property(lambda self: (note(self), value.fget(self))[1]))
    monkeypatch.setattr(array, "block_until_ready", lambda self: (note(self), ready(self))[1])
    monkeypatch.setattr(jax, "block_until_ready", lambda tree: (note(tree), wait(tree))[1])
    make = step.make_train_step

    def watched(*args: Any, **more: Any) -> Any:
        train_step = make(*args, **more)

        def dispatch(*inputs: Any) -> Any:
            outputs = train_step(*inputs)
            returned.append(jax.tree.leaves(outputs))
            return outputs

        return dispatch

    monkeypatch.setattr(step, "make_train_step", watched)
    return seen


def test_no_step_waits_for_the_one_before(slices_dataset: Path, tmp_path: Path, reads: list[Read]):
    config = runs.small_config("segment", slices_dataset)
    config.steps = 7
    config.log_every = 3
    config.eval_every = config.checkpoint_every = 100  # Both wait, as they must; the last step has both.
    assert loop.train_and_evaluate(config, tmp_path)
    before_the_end = {(at, of) for at, of in reads if at < config.steps}
    assert before_the_end == {(at, at - watch.IN_FLIGHT) for at in range(3, 7)}
    assert (7, 7) in reads  # What waits is seen.


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches")
    np.savez_compressed(folder / "patches.npz", allow_pickle=True, **made.columns(patients=60))
    prepare(folder / "patches.npz", folder / "prepared", workers=1)
    return folder / "prepared"


@pytest.mark.parametrize("name", ["segment", "simclr", "classify", "diagnose"])
def test_a_step_has_taken_up_nothing_that_lies_on_the_device(
    slices_dataset: Path, patches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """Compiling would read it back, which the guard of the loop forbids on a GPU, and does not see on a CPU."""
    if name in ("segment", "simclr"):
        config = runs.small_config(name, slices_dataset)
    else:
        config = runs.load_config(name)
        config.data.path, config.data.batch_size = str(patches), 8
    make, constants = step.make_train_step, []

    def traced(*args: Any, **more: Any) -> Callable[..., Any]:
        train_step = make(*args, **more)

        def dispatch(*inputs: Any) -> Any:
            constants.append(train_step.trace(*inputs).jaxpr.consts)  # pyright: ignore[reportFunctionMemberAccess]
            raise KeyboardInterrupt  # Enough.

        return dispatch

    monkeypatch.setattr(step, "make_train_step", traced)
    with pytest.raises(KeyboardInterrupt):
        loop.train_and_evaluate(config, tmp_path)
    assert [const for const in constants[0] if isinstance(const, jax.Array)] == []
