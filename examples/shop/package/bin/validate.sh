#!/bin/sh
# Succeeds when the service answers with the version that was deployed.
set -eu
exec "$CUTOVER_ROOTDIR/app/shop-service" check "127.0.0.1:$PORT" "$CUTOVER_VERSION"
