"""Search, filters and representations of the embedded Honcho."""
