"""The commands of `husai`, grouped as a reader looks for them."""
