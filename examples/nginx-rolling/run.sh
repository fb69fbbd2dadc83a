#!/bin/sh
# Deploys to one instance after the other, has a version that does not come up taken back, and goes back, behind an nginx of
# its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../shop/stage.sh"

for file in cutover.yaml nginx/nginx.conf nginx/cutover/shop.version.conf nginx/cutover/shop.servers; do place "$file"; done
mkdir "$folder/nginx/temp"
for version in 1.0.0 1.1.0 1.2.0; do package "$version"; done
printf '#!/bin/sh\necho the database is missing\nexit 1\n' > "$folder/packages/1.2.0/bin/validate.sh"
cd "$folder"
start_nginx

for version in 1.0.0 1.1.0; do
    say "deploying $version: each instance leaves the upstream, changes, and joins it again"
    deploy "$version"
    visit
done
cat nginx/cutover/shop.servers

say "deploying 1.2.0, which does not come up"
deploy 1.2.0 || true
visit

say "going back to 1.0.0"
"$cutover" rollback shop/web --yes
visit
"$cutover" history shop/web
