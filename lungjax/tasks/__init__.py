"""A module for each objective: model, loss and metrics as pure functions for the training loop."""
