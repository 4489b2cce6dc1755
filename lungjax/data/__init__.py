"""Shards to batches: records, the data set folder, splits, loader, augmentation."""
