#!/bin/sh
# Starts the service in the background, with its output in a file of its own.
set -eu
cd "$CUTOVER_ROOTDIR"
nohup app/shop-service serve "127.0.0.1:$PORT" "$CUTOVER_VERSION" >>shop.log 2>&1 &
echo $! >shop.pid
echo "started process $! on port $PORT"
