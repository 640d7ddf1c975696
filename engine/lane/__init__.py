"""A lane: blocks in, events out, without threads, clocks or I/O."""
