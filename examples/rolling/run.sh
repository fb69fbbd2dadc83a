#!/bin/sh
# Deploys in batches with gates between them, has a version that does not come up taken back, and goes back, behind a HAProxy
# of its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../shop/stage.sh"

for file in cutover.yaml haproxy.cfg bin/smoke.sh; do place "$file"; done
for version in 1.0.0 1.1.0 1.2.0; do package "$version"; done
printf '#!/bin/sh\necho the database is missing\nexit 1\n' > "$folder/packages/1.2.0/bin/validate.sh"
cd "$folder"
start_haproxy

for version in 1.0.0 1.1.0; do
    say "deploying $version: one instance, then the gates"
    begin "$version"
    id=$(asked_to approve)
    visit
    "$cutover" approve "$id" --comment "it does"
    wait "$conductor"
    conductor=
    visit
done

say "deploying 1.2.0, which does not come up"
deploy 1.2.0 || true
visit

say "going back to 1.0.0"
"$cutover" rollback shop/web --yes
visit
"$cutover" history shop/web
