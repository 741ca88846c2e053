"""The Python client (`client.api.Husai`), which knows only HTTP, and the `husai` command line."""
