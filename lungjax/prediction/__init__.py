"""A scan to candidates, nodules, their classes and the patient's answer."""
