"""Job kinds of the `data` family, one file each."""
