#!/bin/sh
# Starts the service. Replace the last line by the start of yours; leave no process in the foreground.
set -eu
echo "start version $CUTOVER_VERSION on $CUTOVER_INSTANCE_ID: $(cat "$CUTOVER_ROOTDIR/app/hello.txt")"
echo "$CUTOVER_VERSION" > "$CUTOVER_ROOTDIR/running"
