"""Answers by a folder that `lungjax.train.trained.open_trained` reads: lungjax, the one that this file belongs to."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import numpy as np

from lungjax.export import signature
from lungjax.train.trained import open_trained

folder, asked_file, said_file = map(Path, sys.argv[1:])
trained = open_trained(folder)
said = signature.said(trained, signature.of(trained), np.load(asked_file))
np.savez(said_file, **said)  # pyright: ignore[reportArgumentType]
