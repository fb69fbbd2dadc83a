#!/bin/sh
set -e
cd "$CUTOVER_ROOTDIR"
if [ -f clock.pid ] && kill "$(cat clock.pid)" 2> /dev/null; then
    while kill -0 "$(cat clock.pid)" 2> /dev/null; do sleep 0.05; done
    echo "the clock has stopped"
fi
rm -f clock.pid
