"""The memory provider."""
