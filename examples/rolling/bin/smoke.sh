#!/bin/sh
# Passes when the shop answers. 0 passes a gate, 75 has it asked again, everything else fails it.
set -eu
curl -sf http://127.0.0.1:8080/
