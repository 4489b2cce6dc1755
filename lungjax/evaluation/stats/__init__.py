"""Statistics: intervals by bootstrap over patients, calibration of a probability."""
