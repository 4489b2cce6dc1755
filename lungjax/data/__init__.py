"""Reads shards as batches: records, the data set folder, splits, loader, augmentation."""
