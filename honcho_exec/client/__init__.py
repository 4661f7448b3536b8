"""Requests to Honcho through its SDK, and what is known of its sessions."""
