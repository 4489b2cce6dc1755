"""Two scans of a patient: registered, their nodules matched, and the growth of each."""
