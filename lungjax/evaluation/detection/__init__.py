"""How well nodules are found in whole scans: LUNA16's rules, FROC, narrowing."""
