"""The `explain` sink: a picture of what a detector heard, found and missed."""
