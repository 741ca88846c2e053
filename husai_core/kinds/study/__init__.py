"""Job kinds of the `study` family, one file each."""
