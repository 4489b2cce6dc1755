"""From a trained network to other people: export, and what goes with it."""
