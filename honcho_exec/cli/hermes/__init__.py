"""Commands that install the plugin into Hermes Agent and migrate from its own."""
