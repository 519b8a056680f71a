"""The input of the training loop: rows, batches, prefetching, cached hidden states."""
