"""The training loop and its parts: state, step, mesh, checkpoints, logs."""
