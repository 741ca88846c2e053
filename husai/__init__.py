"""The Python client (`husai.client.Husai`), which knows only HTTP, and the `husai` command line."""
