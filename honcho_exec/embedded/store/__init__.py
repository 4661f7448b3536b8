"""The SQLite database of the embedded Honcho."""
