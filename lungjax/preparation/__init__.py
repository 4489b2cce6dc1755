"""Any source to shards: formats, doctor, quarantine, parallel reading, the phantom, findings of `predict`."""
