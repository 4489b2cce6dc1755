"""A trained network as a folder for other people and other runtimes, checked to give the same predictions."""
