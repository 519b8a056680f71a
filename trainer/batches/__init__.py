"""What the training loop reads: rows, batches, prefetching, cached hidden states."""
