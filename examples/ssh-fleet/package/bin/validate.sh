#!/bin/sh
# Succeeds when the clock has told the time.
until [ -s "$CUTOVER_ROOTDIR/time" ]; do sleep 0.05; done
echo "it is $(cat "$CUTOVER_ROOTDIR/time") on $(hostname), version $CUTOVER_VERSION"
