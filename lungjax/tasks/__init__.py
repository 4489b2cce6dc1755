"""One file an objective: model, loss and metrics, given to the loop as pure functions."""
