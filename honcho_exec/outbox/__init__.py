"""The durable queue of writes that are not in Honcho yet."""
