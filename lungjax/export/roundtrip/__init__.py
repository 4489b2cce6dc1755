"""Scripts that run an exported folder as its users would, one for each format, without lungjax where that is the point.

`python -I SCRIPT FOLDER INPUTS OUTPUTS` reads arrays named `BATCH.NAME` from the file INPUTS and writes the network's
outputs to the file OUTPUTS.
"""
