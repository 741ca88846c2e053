"""Job kinds of the `train` family, one file each."""
