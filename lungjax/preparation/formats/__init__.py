"""One file a source format: each finds its scans and reads one as a `Scan`."""
