"""Hermes Agent's side: the shell around the provider, the plugin that the host finds, and what installs it."""
