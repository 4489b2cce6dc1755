"""Prepares any source as shards: formats, doctor, quarantine, parallel reading, the phantom, results of `predict`."""
