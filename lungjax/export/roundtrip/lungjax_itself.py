"""Runs a folder that `lungjax.train.trained.open_trained` opens, with the lungjax that this file belongs to."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import numpy as np

from lungjax.export import signature
from lungjax.train.trained import open_trained

folder, input_file, output_file = map(Path, sys.argv[1:])
trained = open_trained(folder)
outputs = signature.run_network(trained, signature.network_signature(trained), np.load(input_file))
np.savez(output_file, **outputs)  # pyright: ignore[reportArgumentType]
