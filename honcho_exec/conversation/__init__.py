"""One conversation: its writes, its tools, and the wait for a pending sync."""
