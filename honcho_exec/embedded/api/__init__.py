"""The HTTP interface of the embedded Honcho."""
