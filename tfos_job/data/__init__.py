"""From GNT shards to batches of tensors."""
