#!/bin/sh
# Stops the service. It runs again when a deployment is tried again, so it succeeds where nothing is running.
set -eu
echo "stop version $CUTOVER_VERSION on $CUTOVER_INSTANCE_ID"
rm -f "$CUTOVER_ROOTDIR/running"
