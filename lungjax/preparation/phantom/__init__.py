"""A phantom LIDC-IDRI: real DICOM files around the readers' real contours; no download needed.

anatomy -> body, vessels, lesions -> image -> header -> writer; `selection` says which scans.
"""

from lungjax.preparation.phantom.writer import write

__all__ = ["write"]
