"""The one training loop and what it stands on: state, step, mesh, checkpoint, logs."""
