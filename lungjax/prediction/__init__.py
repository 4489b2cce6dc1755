"""A scan to candidates and nodules, the malignancy of each, and a probability for the patient."""
