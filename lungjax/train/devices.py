"""The devices that JAX finds, or one sentence why it finds none."""

from __future__ import annotations

import os
from typing import Any

import jax

from lungjax.errors import InputError


def find(kind: str | None = None) -> list[Any]:
    """All devices of a kind, `cpu`, `gpu` or `tpu`; of JAX's own choice for None.

    Raises:
      InputError: there is none.
    """
    try:
        return jax.devices(kind)
    except (RuntimeError, AssertionError) as error:  # JAX asserts that what JAX_PLATFORMS asks for is there.
        asked = os.environ.get("JAX_PLATFORMS", "")
        here = _platforms()
        if here is None:
            raise InputError(
                f"JAX finds no device for JAX_PLATFORMS={asked}; unset it to let JAX choose, or install JAX for that "
                "device."
            ) from error
        raise InputError(f"there is no device {kind!r} for JAX here; there is {', '.join(here)}.") from error


def _platforms() -> list[str] | None:
    """What JAX finds by its own choice; None where it fails."""
    try:
        return sorted({device.platform for device in jax.devices()})
    except (RuntimeError, AssertionError):
        return None
