"""The commands of `honcho-exec`, one module each."""
