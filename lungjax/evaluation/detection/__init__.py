"""How well nodules are detected in whole scans: LUNA16's rules, FROC, and recall when only some slices are kept."""
