#!/bin/sh
# Brings three services out by release plans, from packages on an HTTP server: with a pause and a resume, a stop, a report, and the
# way back of a whole release.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../shop/stage.sh"

for file in cutover.yaml first.yaml evening.yaml nginx/nginx.conf; do place "$file"; done
for version in 1.0.0 1.1.0; do
    package "$version"
    tar -C "$folder/packages/$version" -czf "$folder/packages/$version.tar.gz" .
done
cd "$folder"
start_nginx

# Which version answers on each port.
ask() {
    for name in web-1:8081 web-2:8082 web-3:8083 api-1:8084 jobs-1:8085; do
        printf '%s %s\n' "${name%:*}" "$(curl -s "http://127.0.0.1:$(port "${name#*:}")/" || echo stopped)"
    done
}

# Runs the plan beside what follows, and answers with its release once an instance is being changed.
begin_plan() {
    "$cutover" run "$1" --quiet &
    conductor=$!
    until [ "$("$cutover" lock shop/web 2> /dev/null | grep -c web-1)" != 0 ]; do
        kill -0 "$conductor" || exit 1
        sleep 0.05
    done
    id=$("$cutover" ls --limit 1 --output json | sed -n 's/.*"id": *"\([a-z0-9]*\)".*/\1/p' | head -n 1)
}

say "the first version of everything"
"$cutover" check first.yaml evening.yaml
"$cutover" run first.yaml
ask

say "the evening's plan, paused while web is being deployed, and resumed"
begin_plan evening.yaml
"$cutover" pause "$id"
wait "$conductor" || true
conductor=
"$cutover" show "$id"
ask
"$cutover" resume "$id"
ask

say "its report, also as a page"
"$cutover" report "$id"
"$cutover" report "$id" --html "$folder/evening.html"

say "taking all of it back, last things first"
"$cutover" rollback "$id" --yes
ask

say "the evening's plan once more, stopped while web is being deployed"
begin_plan evening.yaml
"$cutover" stop "$id" --yes
wait "$conductor" || true
conductor=
ask
