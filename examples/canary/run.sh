#!/bin/sh
# Deploys a canary, changes its share, promotes it, goes back, and takes another one back while it waits, behind a HAProxy
# of its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../shop/stage.sh"

for file in cutover.yaml haproxy.cfg maps/share.map; do place "$file"; done
for version in 1.0.0 1.1.0 1.2.0; do package "$version"; done
cd "$folder"
start_haproxy

say "deploying 1.0.0"
begin 1.0.0
id=$(asked_to promote)
"$cutover" promote "$id"
wait "$conductor"
visit

say "deploying 1.1.0 to one instance, with 20% of the traffic"
begin 1.1.0
id=$(asked_to promote)
visit
say "a share of 10%"
"$cutover" weight "$id" 10%
visit
say "promoting it"
"$cutover" promote "$id"
wait "$conductor"
visit

say "going back"
"$cutover" rollback shop/web --yes
visit

say "deploying 1.2.0, and taking it back while it waits"
begin 1.2.0
id=$(asked_to promote)
"$cutover" rollback shop/web --yes
# The release that was taken back has failed.
wait "$conductor" || true
conductor=
visit
"$cutover" history shop/web
