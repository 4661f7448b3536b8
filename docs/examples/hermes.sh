#!/bin/sh
# Give Hermes Agent a memory. Run this in the environment in which Hermes Agent and honcho_exec are installed.
set -eu

honcho-exec install
hermes config set memory.provider honcho_exec

# Memory is kept on this machine now. `hermes memory setup honcho_exec` asks whether to use a server instead.

# Bring an earlier conversation in, and find what was said.
printf '%s\n' '{"role": "user", "content": "My sister Noor lives in Marseille."}' | hermes honcho_exec ingest -
hermes honcho_exec search "Where does the sister live?"
hermes honcho_exec status
