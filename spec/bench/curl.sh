# The same fleet as a shell script with curl would start it: a look every 10 ms for the socket, three
# requests, and the state asked for until it is Running. Prints what bench-bare-vms prints.
#
#     curl.sh FOLDER FIRECRACKER KERNEL N
set -eu
folder=$1 firecracker=$2 kernel=$3 n=$4

put() {
    curl -sS -f -o /dev/null --unix-socket "$1" -X PUT "http://localhost/$2" \
        -H 'Content-Type: application/json' -d "$3"
}

start() {
    sock=$folder/$1.sock
    until [ -S "$sock" ]; do sleep 0.01; done
    put "$sock" machine-config '{"vcpu_count":1,"mem_size_mib":16}'
    put "$sock" boot-source "{\"boot_args\":\"\",\"kernel_image_path\":\"$kernel\"}"
    put "$sock" actions '{"action_type":"InstanceStart"}'
    until curl -sS --unix-socket "$sock" http://localhost/ | grep -q '"state":"Running"'; do
        sleep 0.01
    done
}

mkdir -p "$folder"
sleep 0.05 # as in fleet.lua
began=$(date +%s%N)
pids=
for i in $(seq "$n"); do
    "$firecracker" --api-sock "$folder/$i.sock" >"$folder/$i.console" 2>&1 </dev/null &
    pids="$pids $!"
done
starts=
for i in $(seq "$n"); do
    start "$i" &
    starts="$starts $!"
done
for pid in $starts; do wait "$pid"; done
up=$(date +%s%N)
kill -KILL $pids
for pid in $pids; do wait "$pid" 2>/dev/null || :; done
for i in $(seq "$n"); do rm "$folder/$i.sock" "$folder/$i.console"; done
gone=$(date +%s%N)
awk -v a="$began" -v b="$up" -v c="$gone" \
    'BEGIN { printf "{\"up\":%.6f,\"down\":%.6f}\n", (b - a) / 1e9, (c - b) / 1e9 }'
