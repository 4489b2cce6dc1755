"""What a user of an exported folder runs, one script a format, each without lungjax where that is the point.

`python -I SCRIPT FOLDER ASKED SAID` answers the arrays of the file ASKED, `BATCH.NAME`, into the file SAID.
"""
