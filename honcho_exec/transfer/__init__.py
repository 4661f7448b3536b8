"""Memory in, out and away: import, export, push and purge."""
