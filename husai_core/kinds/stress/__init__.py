"""Job kinds of the `stress` family, one file each."""
