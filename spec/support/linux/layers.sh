#!/bin/sh
# layers.sh FOLDER, in a network namespace of its own: an image of several layers, made by umoci, goes through
# Debian's docker-registry. FOLDER/layers gets listed.ext4, which fcproc builds of it; report.json, what it
# says of that; and list, what FOLDER/list-root finds where GNU tar has unpacked one layer after another into
# one folder, each after rm has done its whiteouts.
set -eu
list_root=$1/list-root
dir=$1/layers
registry=127.0.0.1:5000
image=docker://$registry/layers:1
PATH=$PWD/build/bin:$PATH:/usr/sbin:/sbin
umask 022

set_xattr() { # FILE NAME HEX
  python3 -c 'import os, sys; os.setxattr(sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]))' "$@"
}

# What a guest's shell needs, and what is hidden, replaced, changed and linked to above it.
lowest() {
  mkdir -p base/bin base/dev base/etc base/opt/emptied/in base/opt/opaque/in base/opt/replaced \
    base/tmp base/var/lib
  cd base
  cp /bin/busybox bin/busybox
  set_xattr bin/busybox security.capability 0100000200200000000000000000000000000000 # cap_net_raw+ep
  ln -s busybox bin/sh
  echo 'PRETTY_NAME="An image of layers"' >etc/os-release
  for name in changed gone kept linked; do echo "$name, lowest" >etc/$name; done
  ln etc/linked etc/lower-link
  echo hidden | tee opt/emptied/in/one opt/opaque/in/one opt/opaque/two opt/replaced/one >/dev/null
  ln -s lib var/link
  set_xattr etc/kept user.note 6100ff
  set_xattr var/lib user.note 62
  chown 70000:4000000 etc/kept var/lib
  chmod 4711 etc/kept
  chmod 1777 tmp
  find . -exec touch -h -d '1999-12-31 23:59:59Z' {} +
  cd ..
}

# umoci's own archives have full seconds, and all names of what is linked: one of GNU tar's.
fractions() {
  mkdir -p more/bin more/dev more/etc more/srv
  ln base/bin/busybox more/bin/busybox
  ln base/etc/linked more/etc/linked
  cd more
  ln bin/busybox bin/upper-link
  ln etc/linked etc/upper-link
  # Of the links only the upper names.
  tar -c -f ../more.tar --format=pax bin/busybox bin/upper-link etc/linked etc/upper-link
  tar --delete -f ../more.tar bin/busybox etc/linked
  rm bin/* etc/*
  mknod dev/zero c 1 5
  mknod dev/disk b 259 1048575
  mkfifo -m 640 srv/fifo
  echo changed >etc/changed
  set_xattr etc/changed user.note 63
  : >"srv/$(printf 'n\366t UTF-8 \377')"
  : >"srv/$(printf '%0255d' 0)"
  truncate -s 3M srv/sparse
  echo 'in the middle' | dd of=srv/sparse bs=1M seek=1 conv=notrunc status=none
  find . -exec touch -d '2001-02-03 04:05:06.123456789Z' {} +
  touch -d '1969-12-31 23:59:58Z' srv/fifo dev/zero
  touch -d '2100-01-01 00:00:00.000000001Z' srv/n* srv
  tar -r -f ../more.tar --format=pax --numeric-owner --sparse --xattrs --xattrs-include='*' .
  cd ..
}

# What umoci makes whiteouts of when it compares.
changes() {
  rm -r etc/gone opt/emptied/in opt/replaced
  ln -s emptied opt/replaced
  rm var/link
  mkdir var/link
  echo new >var/link/new
  chown 5:6 var/link/new
}

serve() {
  cat >registry.yml <<-CONFIG
	version: 0.1
	log: { level: error }
	storage: { filesystem: { rootdirectory: $PWD/registry } }
	http: { addr: "$registry" }
	CONFIG
  setpriv --pdeathsig KILL docker-registry serve registry.yml >registry.log 2>&1 &
  tries=0
  until busybox wget -q -O /dev/null "http://$registry/v2/" 2>wget.log; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] && kill -0 $! || { cat registry.log >&2; exit 1; }
    sleep 0.1
  done
}

# Unpacks it over what is in root.
apply() { # LAYER
  # umoci 0.4.7 leaves out the archive's end, after --opaque.
  { gzip -dc "$1" && head -c 2048 /dev/zero; } >layer.tar
  tar -t -P --quoting-style=literal -f layer.tar >names
  grep -a '\.wh\.' names | while read -r name; do
    case $name in
    *.wh..wh..opq) find "root/${name%.wh..wh..opq}" -mindepth 1 -delete ;;
    *) rm -rf "root/${name%.wh.*}${name##*.wh.}" ;;
    esac
  done
  # GNU tar leaves a folder where a layer has something else.
  grep -av '\.wh\.\|/$' names | while read -r name; do rm -rf "root/$name"; done
  tar -x -p --numeric-owner --xattrs --xattrs-include='*' --warning=no-timestamp --exclude='.wh.*' \
    --transform='s,^/$,./,' -f layer.tar -C root
}

rm -rf "$dir"
mkdir -p "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

lowest
fractions
umoci init --layout app
umoci new --image app
umoci insert --image app base /
umoci raw add-layer --image app more.tar
umoci unpack --image app bundle
(cd bundle/rootfs && changes)
umoci repack --image app bundle
mkdir opaque
echo 'over the mark' >opaque/three
umoci insert --image app --opaque opaque /opt/opaque

ip link set lo up
serve
skopeo copy --quiet --dest-tls-verify=false oci:app $image
fcproc --json image build $image "$dir/listed.ext4" --no-tls-verify --overlay "/list-root=$list_root" \
  >"$dir/report.json"

skopeo copy --quiet --src-tls-verify=false $image dir:pulled
mkdir root
for layer in $(sed 's/.*"layers"//' pulled/manifest.json | grep -o 'sha256:[0-9a-f]*'); do
  apply "pulled/${layer#sha256:}"
done
"$list_root" root "$dir/list"
touch "$dir/made"
