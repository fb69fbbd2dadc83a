#!/bin/sh
set -e
cd "$CUTOVER_ROOTDIR"
rm -f time
setsid sh clock/clock.sh "$CUTOVER_ROOTDIR" > clock.log 2>&1 < /dev/null &
echo $! > clock.pid
echo "the clock of $CUTOVER_INSTANCE_ID runs as process $!"
