"""Job kinds of the `benchmark` family, one file each."""
