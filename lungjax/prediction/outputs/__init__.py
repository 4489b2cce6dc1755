"""What is written of a scan: JSON and CSV, mask, DICOM, contact sheet, page."""
