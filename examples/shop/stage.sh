# What the runs of the examples with this service share. Sourced by a `run.sh` that has set `here` to its folder.
#
# The run's folder, its first argument or `target/EXAMPLE`, stands for `/srv/shop` and `/etc/haproxy`, its
# `nginx` for `/etc/nginx`. PORTS, such as `8080=18080 9999=19999`, puts others in the place of the ports in the files.

folder=${1:-$here/../../target/$(basename "$here")}
cutover=$(realpath "${CUTOVER:-$here/../../target/debug/cutover}")
service=$(realpath "${SHOP_SERVICE:-$here/../../target/debug/shop-service}")
PATH=$PATH:/usr/sbin

if [ -e "$folder/.cutover" ]; then
    echo "$folder has an earlier run in it: remove it first" >&2
    exit 2
fi
mkdir -p "$folder"
folder=$(realpath "$folder")
balancer=
conductor=

leave() {
    for process in $conductor $balancer; do kill "$process" 2> /dev/null || true; done
    for file in "$folder"/*/shop.pid; do
        [ ! -e "$file" ] || kill "$(cat "$file")" 2> /dev/null || true
    done
    [ -z "$balancer" ] || wait "$balancer" 2> /dev/null || true
}
trap leave EXIT
trap 'exit 130' INT TERM

say() { printf '\n=== %s\n' "$*" >&2; }

# The port in the place of this one.
port() {
    for pair in ${PORTS:-}; do
        [ "${pair%=*}" != "$1" ] || { echo "${pair#*=}"; return; }
    done
    echo "$1"
}

# Puts a file of the example into the run's folder.
place() {
    mkdir -p "$(dirname "$folder/$1")"
    cp "$here/$1" "$folder/$1"
    sed -i -e "s|/srv/shop|$folder|g" -e "s|/etc/haproxy|$folder|g" -e "s|/etc/nginx|$folder/nginx|g" "$folder/$1"
    for pair in ${PORTS:-}; do
        sed -i "s/\b${pair%=*}\b/${pair#*=}/g" "$folder/$1"
    done
}

# Makes a package of a version.
package() {
    mkdir -p "$folder/packages"
    cp -r "$here/../shop/package" "$folder/packages/$1"
    cp "$service" "$folder/packages/$1/"
}

start_haproxy() {
    haproxy -W -db -f "$folder/haproxy.cfg" 2> "$folder/balancer.log" &
    balancer=$!
    await_balancer
}

start_nginx() {
    nginx -p "$folder/nginx" -c "$folder/nginx/nginx.conf" 2> "$folder/balancer.log" &
    balancer=$!
    await_balancer
}

await_balancer() {
    # Any answer will do: nothing is deployed yet.
    until curl -s -o "$folder/answer" "http://127.0.0.1:$(port 8080)/"; do
        kill -0 "$balancer" || { cat "$folder/balancer.log" >&2; exit 1; }
        sleep 0.05
    done
}

# Sends fifty requests and counts the answers.
visit() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
        curl -s "http://127.0.0.1:$(port 8080)/" "http://127.0.0.1:$(port 8080)/"
    done | sort | uniq -c
}

deploy() {
    version=$1
    shift
    "$cutover" deploy shop/web --package "packages/$version" --version "$version" "$@"
}

# Deploys beside what follows.
begin() {
    "$cutover" deploy shop/web --package "packages/$1" --version "$1" &
    conductor=$!
}

# Waits until what was begun asks for an order of this kind, and answers with the release's id.
asked_to() {
    id=
    while [ -z "$id" ]; do
        # A process that has ended stays a zombie until it is waited for.
        grep -q '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$conductor/status" || exit 1
        sleep 0.1
        id=$("$cutover" lock shop/web 2> /dev/null | sed -n "s/.*cutover $1 \([a-z0-9]*\).*/\1/p")
    done
    echo "$id"
}
