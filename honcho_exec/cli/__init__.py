"""The command line: `honcho-exec`, or `python -m honcho_exec`."""
