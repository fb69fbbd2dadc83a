#!/bin/sh
# Deploys to one colour, then to the other, and goes back, behind an nginx of its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../shop/stage.sh"

for file in cutover.yaml nginx/nginx.conf nginx/cutover/shop.split.conf nginx/cutover/shop.version.conf \
    nginx/cutover/shop-blue.servers nginx/cutover/shop-green.servers; do
    place "$file"
done
mkdir "$folder/nginx/temp"
for version in 1.0.0 1.1.0; do package "$version"; done
cd "$folder"
start_nginx

say "deploying 1.0.0: nginx sends everything to blue, where nothing runs yet, so green is deployed to"
deploy 1.0.0
visit

say "deploying 1.1.0 to blue, and switching to it"
deploy 1.1.0
visit

say "going back: green still runs 1.0.0"
"$cutover" rollback shop/web --yes
visit
cat nginx/cutover/shop.split.conf
"$cutover" history shop/web
