"""lungjax: from a folder of LIDC-IDRI CT scans to a pretrained, calibrated lung-nodule model.

Research software, not a medical device.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lungjax.prediction.api import Model

__version__ = "0.1.0"


def load(model: Path | str) -> Model:
    """A trained segmenter, for NumPy volumes.

        model = lungjax.load("workdir/segment")
        mask = model.mask(hu, spacing_mm=(2.5, 0.8, 0.8))

    Args:
      model: a run's workdir or an exported folder.

    Raises:
      InputError: it is neither, or no segmenter.
    """
    from lungjax.prediction.api import Model  # JAX is imported only by those who ask for a network.

    return Model(Path(model))
