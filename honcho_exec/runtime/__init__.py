"""Threads, timers and counters of one process."""
