#!/bin/sh
# Deploys to blue, then to green, and goes back, behind a HAProxy of its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../shop/stage.sh"

for file in cutover.yaml haproxy.cfg maps/live.map; do place "$file"; done
for version in 1.0.0 1.1.0; do package "$version"; done
cd "$folder"
start_haproxy

say "deploying 1.0.0: no colour is live, so the first of the file gets the traffic"
deploy 1.0.0
visit

say "what deploying 1.1.0 will do"
deploy 1.1.0 --dry-run

say "deploying 1.1.0 to green, and switching to it"
deploy 1.1.0
visit

say "going back: blue still runs 1.0.0, so it is validated and gets the traffic"
"$cutover" rollback shop/web --yes
visit
cat maps/live.map
"$cutover" history shop/web
