#!/bin/sh
# Hosts to deploy to, on one Linux machine: each has a network namespace with an address of its own, process, mount and
# host name namespaces, a root file system that shows this machine's and keeps its changes to itself, and an sshd.
#
#   hosts.sh up FOLDER COUNT     brings hosts web-1 to web-COUNT up; FOLDER/ssh is an ssh that knows them
#   hosts.sh down FOLDER         takes them all away, with everything that runs on them
#   hosts.sh cut|heal FOLDER I   takes host I off the network, and back
#   hosts.sh crash|start FOLDER I    switches host I off, as a power cut does, and on again; its disk stays
#   hosts.sh slow|unslow FOLDER I [RATE]    limits what goes to host I, for example to 2mbit
#   hosts.sh fill|unfill FOLDER I    fills host I's disk but for 100 KiB
#   hosts.sh address FOLDER I    prints host I's address
#   hosts.sh reap                takes away what a process brought up with `OWNER=PID` and left when it was killed
#
# It needs root, iproute2, util-linux and openssh-server.
set -eu

STATE=/run/cutover-hosts
DISK=${DISK:-64m}

fail() {
    echo "hosts.sh: $*" >&2
    exit 1
}

usage() {
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

load() {
    [ -f "$folder/tag" ] || fail "there are no hosts in $folder"
    tag=$(cat "$folder/tag")
    net=$(cat "$folder/net")
    bridge=co$tag
}

name() { echo "co$tag-$1"; }
# What the other end of host I's cable is called.
port() { echo "co${tag}p$1"; }
root() { echo "$folder/$1/root"; }

up() {
    count=$1
    [ "$(id -u)" = 0 ] || fail "it needs root"
    sshd=$(command -v sshd || echo /usr/sbin/sshd)
    [ -x "$sshd" ] || fail "there is no sshd: on Debian, apt-get install openssh-server"
    mkdir -p "$folder" "$STATE"
    [ ! -e "$folder/tag" ] || fail "there are hosts in $folder already"
    # A folder in a place of its own is the lock on the number of the network.
    for number in $(seq 0 255); do
        if mkdir "$STATE/$number" 2>/dev/null; then break; fi
        [ "$number" != 255 ] || fail "all networks are taken"
    done
    tag=$number
    net=198.18.$number
    bridge=co$tag
    echo "$folder" > "$STATE/$number/folder"
    echo "${OWNER:-}" > "$STATE/$number/owner"
    echo "$tag" > "$folder/tag"
    echo "$net" > "$folder/net"

    ssh-keygen -q -t ed25519 -N '' -C cutover-hosts -f "$folder/id"
    ssh-keygen -q -t ed25519 -N '' -C cutover-hosts -f "$folder/hostkey"
    : > "$folder/known_hosts"
    cat > "$folder/ssh_config" <<CONFIG
Host *
    User deploy
    IdentityFile "$folder/id"
    IdentitiesOnly yes
    UserKnownHostsFile "$folder/known_hosts"
    GlobalKnownHostsFile /dev/null
CONFIG
    cat > "$folder/ssh" <<WRAPPER
#!/bin/sh
exec ssh -F '$folder/ssh_config' "\$@"
WRAPPER
    chmod 755 "$folder/ssh"

    ip link add "$bridge" type bridge
    ip addr add "$net.254/24" dev "$bridge"
    ip link set "$bridge" up
    for i in $(seq "$count"); do
        make "$i"
        start "$i"
    done
    for i in $(seq "$count"); do wait_for "$i"; done
}

make() {
    i=$1
    n=$(name "$i")
    mkdir -p "$folder/$i"
    mount -t tmpfs -o "size=$DISK,mode=755" "$n" "$folder/$i"
    mkdir "$folder/$i/upper" "$folder/$i/work" "$(root "$i")"
    mount -t overlay "$n" -o "lowerdir=/,upperdir=$folder/$i/upper,workdir=$folder/$i/work" "$(root "$i")"
    ip netns add "$n"
    ip link add "$(port "$i")" type veth peer name eth0 netns "$n"
    ip link set "$(port "$i")" master "$bridge" up
    ip -n "$n" addr add "$net.$i/24" dev eth0
    ip -n "$n" link set eth0 up
    ip -n "$n" link set lo up

    r=$(root "$i")
    echo "$net.$i $(cut -d' ' -f1,2 "$folder/hostkey.pub")" >> "$folder/known_hosts"
    printf 'Host web-%s\n    HostName %s\n' "$i" "$net.$i" >> "$folder/ssh_config"
    for home in root home/deploy; do
        mkdir -p "$r/$home/.ssh"
        cp "$folder/id.pub" "$r/$home/.ssh/authorized_keys"
        : > "$r/$home/.bashrc"
    done
    # The account exists on this host alone.
    echo 'deploy:x:4242:4242::/home/deploy:/bin/sh' >> "$r/etc/passwd"
    echo 'deploy:x:4242:' >> "$r/etc/group"
    echo 'deploy:*:19000:0:99999:7:::' >> "$r/etc/shadow"
    printf '127.0.0.1 localhost\n%s web-%s\n' "$net.$i" "$i" > "$r/etc/hosts"
    mkdir -p "$r/srv/app"
    chown -R 4242:4242 "$r/home/deploy" "$r/srv/app"
    cp "$folder/hostkey" "$r/etc/ssh/cutover_hostkey"
    chmod 600 "$r/etc/ssh/cutover_hostkey"
    cat > "$r/etc/ssh/cutover_sshd" <<SSHD
ListenAddress $net.$i
HostKey /etc/ssh/cutover_hostkey
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
UseDNS no
StrictModes no
PidFile none
SSHD
    # Each start is a boot of its own.
    cat > "$r/init" <<INIT
#!/bin/sh
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
cat /proc/sys/kernel/random/uuid > /run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
hostname web-$i
exec $sshd -D -e -f /etc/ssh/cutover_sshd
INIT
    chmod 755 "$r/init"
}

start() {
    i=$1
    r=$(root "$i")
    setsid ip netns exec "$(name "$i")" \
        unshare --mount --pid --fork --uts --ipc --kill-child=KILL --propagation private \
        sh -c "mount --bind /dev '$r/dev'; exec chroot '$r' /init" \
        > "$folder/$i.log" 2>&1 < /dev/null &
    echo $! > "$folder/$i.pid"
}

wait_for() {
    # Its sshd listens when somebody answers with a banner.
    for _ in $(seq 200); do
        if ssh-keyscan -T 1 -t ed25519 "$net.$1" 2> /dev/null | grep -q ed25519; then return; fi
        kill -0 "$(cat "$folder/$1.pid")" 2> /dev/null || fail "host $1 went down: $(tail -1 "$folder/$1.log")"
        sleep 0.05
    done
    fail "host $1 did not come up"
}

# Whether anything in a process group is more than a zombie.
is_running() {
    ps -eo pgid=,stat= | awk -v group="$1" '$1 == group && $2 !~ /^Z/ { found = 1 } END { exit !found }'
}

crash() {
    pid=$(cat "$folder/$1.pid" 2> /dev/null) || return 0
    # Killing the first process of a process namespace kills all of them; it is in this group.
    kill -s KILL -- "-$pid" 2> /dev/null || true
    for _ in $(seq 500); do
        is_running "$pid" || break
        sleep 0.01
    done
    rm -f "$folder/$1.pid"
}

down() {
    load
    for file in "$folder"/*.pid; do
        [ -f "$file" ] || continue
        i=$(basename "$file" .pid)
        crash "$i"
    done
    for place in "$folder"/*/root; do
        [ -d "$place" ] || continue
        i=$(basename "$(dirname "$place")")
        umount -l "$place" 2> /dev/null || true
        umount -l "$folder/$i" 2> /dev/null || true
        ip link del "$(port "$i")" 2> /dev/null || true
        ip netns del "$(name "$i")" 2> /dev/null || true
        rmdir "$folder/$i" 2> /dev/null || true
    done
    ip link del "$bridge" 2> /dev/null || true
    (cd "$folder" && rm -f tag net id id.pub hostkey hostkey.pub known_hosts ssh_config ssh ./*.log)
    rmdir "$folder" 2> /dev/null || true
    rm -rf "${STATE:?}/$tag"
}

reap() {
    for state in "$STATE"/*; do
        [ -d "$state" ] || continue
        owner=$(cat "$state/owner" 2> /dev/null) || continue
        [ -n "$owner" ] || continue
        if kill -0 "$owner" 2> /dev/null; then continue; fi
        folder=$(cat "$state/folder")
        if [ -f "$folder/tag" ]; then (down) || true; fi
        rm -rf "$state"
    done
}

[ $# -ge 1 ] || usage
action=$1
if [ "$action" = reap ]; then
    reap
    exit
fi
[ $# -ge 2 ] || usage
folder=$(realpath -m "$2")
case $action in
    up) up "${3:?how many hosts}"; exit ;;
    down) down; exit ;;
esac
load
i=${3:?the number of a host}
[ -d "$(root "$i")" ] || fail "there is no host $i in $folder"
case $action in
    cut) ip link set "$(port "$i")" down ;;
    heal) ip link set "$(port "$i")" up ;;
    crash) crash "$i" ;;
    start)
        start "$i"
        wait_for "$i"
        ;;
    slow) tc qdisc replace dev "$(port "$i")" root tbf rate "${4:?a rate}" burst 16kb latency 400ms ;;
    unslow) tc qdisc del dev "$(port "$i")" root ;;
    fill)
        free=$(df --output=avail -k "$folder/$i" | tail -1)
        fallocate -l "$((free - 100))KiB" "$folder/$i/ballast"
        ;;
    unfill) rm -f "$folder/$i/ballast" ;;
    address) echo "$net.$i" ;;
    *) usage ;;
esac
