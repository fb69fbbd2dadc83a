#!/bin/sh
# Brings five hosts up, deploys to them, takes one off the network in the middle of an upgrade and brings it back, rolls
# back, and takes the hosts away. What it makes is in the folder that it is given, or in `target/ssh-fleet`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/../../target/ssh-fleet}
cutover=$(realpath "${CUTOVER:-$here/../../target/debug/cutover}")

mkdir -p "$folder"
cp -r "$here/cutover.yaml" "$here/package" "$folder/"
cd "$folder"
hosts=$folder/hosts
upgrade=
trap '[ -z "$upgrade" ] || kill "$upgrade" 2> /dev/null || true; "$here/hosts.sh" down "$hosts"' EXIT
trap 'exit 130' INT TERM
OWNER=$$ "$here/hosts.sh" up "$hosts" 5
export CUTOVER_SSH="$hosts/ssh"

say() { printf '\n=== %s\n' "$*" >&2; }

say "deploying 1.0.0 to five hosts"
"$cutover" deploy clock/web --package package --version 1.0.0

say "upgrading, with web-3 off the network for a while"
"$hosts/ssh" web-3 'touch /srv/app/busy'
# The hook that starts web-3 says so, and waits until the file is gone.
cat >> package/bin/start.sh <<'HOOK'
while [ -e "$CUTOVER_ROOTDIR/busy" ]; do
    touch "$CUTOVER_ROOTDIR/waiting"
    sleep 0.05
done
HOOK
"$cutover" deploy clock/web --package package --version 1.1.0 &
upgrade=$!
web3=$hosts/3/root/srv/app
until [ -e "$web3/waiting" ]; do
    kill -0 "$upgrade" || exit 1
    sleep 0.05
done
"$here/hosts.sh" cut "$hosts" 3
say "web-3 is off the network; its hook goes on, and ends"
rm "$web3/busy"
# Longer than it takes to notice.
sleep 4
"$here/hosts.sh" heal "$hosts" 3
say "web-3 is back"
wait "$upgrade"
upgrade=

say "rolling back"
"$cutover" rollback clock/web --yes
"$cutover" history clock/web
