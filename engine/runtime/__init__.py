"""The runner: threads, queues, supervision and shutdown around lanes."""
