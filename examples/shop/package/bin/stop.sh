#!/bin/sh
# Stops the service and waits until it is gone.
set -eu
cd "$CUTOVER_ROOTDIR"
[ -f shop.pid ] || exit 0
pid=$(cat shop.pid)
kill "$pid" 2>/dev/null || true
while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
rm -f shop.pid
echo "stopped process $pid"
