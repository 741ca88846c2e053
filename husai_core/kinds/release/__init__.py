"""Job kinds of the `release` family, one file each."""
