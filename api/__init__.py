"""The HTTP interface: routes, keys, problem documents, waiting clients and metrics."""
