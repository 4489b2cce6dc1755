"""lungjax: from a folder of LIDC-IDRI CT scans to a pretrained, calibrated lung-nodule model.

Research software, not a medical device.
"""

__version__ = "0.1.0"
