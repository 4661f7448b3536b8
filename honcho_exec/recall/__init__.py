"""What is injected before a turn."""
