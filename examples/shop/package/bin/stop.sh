#!/bin/sh
# Stops the service and waits until it is gone. A process that has ended and that nobody has reaped is gone, too.
set -eu
cd "$CUTOVER_ROOTDIR"
[ -f shop.pid ] || exit 0
pid=$(cat shop.pid)
kill "$pid" 2>/dev/null || true
while grep -q '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$pid/status" 2>/dev/null; do sleep 0.02; done
rm -f shop.pid
echo "stopped process $pid"
