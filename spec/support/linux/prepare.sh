#!/bin/sh
# What `make test-linux` boots, made once under the given folder: "kernel" gets Debian's stock kernel
# and its modules without installing them, "images" makes the initramfs of the machine that runs
# the specs, and the guest's initramfs and ext4 root; "debian" builds the
# image of the chapter on images.
set -eu
what=$1
dir=$2
sources=$(dirname "$0")
PATH=$PATH:/usr/sbin:/sbin
umask 022

# The initramfs can only load what it holds: modules in the order of their dependencies.
modules() {
  version=$(ls "$dir/kernel/lib/modules")
  for module; do
    # "builtin NAME" for what the kernel already has.
    modprobe -d "$dir/kernel" -S "$version" --show-depends "$module" | sed -n 's/^insmod //p'
  done | awk '!seen[$1]++ { print $1 }'
}

# initramfs NAME MODULE...: busybox, the script NAME-init, and the modules, numbered.
initramfs() {
  name=$1
  shift
  tree=$(mktemp -d)
  mkdir "$tree/modules"
  cp /bin/busybox "$tree/busybox"
  install -m 755 "$sources/$name-init" "$tree/init"
  number=100
  for module in $(modules "$@"); do
    cp "$module" "$tree/modules/$number-$(basename "$module")"
    number=$((number + 1))
  done
  (cd "$tree" && find . | cpio --quiet -o -H newc) >"$dir/$name.cpio.new"
  mv "$dir/$name.cpio.new" "$dir/$name.cpio"
  rm -rf "$tree"
}

# The guest's root file system: Debian's busybox and the files of the folder guest-root.
guest_root() {
  tree=$(mktemp -d)
  (cd "$tree" && mkdir -p bin dev etc proc root run sys tmp)
  cp /bin/busybox "$tree/bin/"
  for applet in $(/bin/busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
  done
  ln -s bin "$tree/sbin"
  cp "$sources"/guest-root/* "$tree/etc/"
  rm -f "$dir/guest.ext4.new"
  truncate -s 16M "$dir/guest.ext4.new" # else mke2fs says that it makes the file
  mke2fs -q -t ext4 -d "$tree" "$dir/guest.ext4.new"
  mv "$dir/guest.ext4.new" "$dir/guest.ext4"
  rm -rf "$tree"
}

download() {
  image=$(apt-cache depends --important linux-image-amd64 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
  [ -n "$image" ] && (cd "$1" && apt-get -qq -o APT::Sandbox::User=root download "$image")
}

# Firecracker and QEMU boot the ELF in the bzImage.
vmlinux() { # BZIMAGE TARGET
  "${LUA:-lua5.4}" - "$1" "$2" <<'END'
    local kernel = require "fcproc.image.kernel"
    local made, err = kernel.kernel(arg[1], { to = arg[2] })
    if not made then error(tostring(err), 0) end
END
}

case $what in
kernel)
  mkdir -p "$dir"
  packages=$(mktemp -d)
  trap 'rm -rf "$packages" "$dir/kernel.new"' EXIT
  download "$packages" || { apt-get update -qq && download "$packages"; } || {
    echo "can't download Debian's kernel, the package that linux-image-amd64 depends on" >&2
    exit 1
  }
  rm -rf "$dir/kernel" "$dir/kernel.new"
  mkdir "$dir/kernel.new"
  # Without the drivers of real hardware, which are four fifths of it.
  dpkg --fsys-tarfile "$packages"/linux-image-*.deb |
    tar -x -C "$dir/kernel.new" --wildcards --no-wildcards-match-slash './boot/vmlinuz-*' './boot/config-*' \
      './lib/modules/*/modules.*' './lib/modules/*/kernel/arch' './lib/modules/*/kernel/crypto' \
      './lib/modules/*/kernel/fs' './lib/modules/*/kernel/lib' './lib/modules/*/kernel/net' \
      './lib/modules/*/kernel/virt' './lib/modules/*/kernel/drivers/block' \
      './lib/modules/*/kernel/drivers/crypto/ccp' './lib/modules/*/kernel/drivers/char/hw_random' \
      './lib/modules/*/kernel/drivers/nvdimm' './lib/modules/*/kernel/drivers/dax' \
      './lib/modules/*/kernel/drivers/virtio' './lib/modules/*/kernel/drivers/net/*.ko'
  vmlinux "$dir"/kernel.new/boot/vmlinuz-* "$dir/kernel.new/vmlinux"
  depmod -b "$dir/kernel.new" "$(ls "$dir/kernel.new/lib/modules")"
  mv "$dir/kernel.new" "$dir/kernel"
  ;;
debian)
  # As the chapter tells it; then what is in it as GNU tar unpacks it, and a disk that lists the same.
  rm -rf "$dir/debian"
  mkdir -p "$dir/debian/root"
  export PATH="$PWD/build/bin:$PATH"
  story=$(sed -n '/^## Debian, by mmdebstrap/,/^## An OCI/{/^```/,/^```/{/^```/d;p}}' doc/images.md)
  (cd "$dir/debian" && sh -euc "$story")
  tar -x -p --numeric-owner --xattrs --xattrs-include='*' -f "$dir/debian/debian.tar" -C "$dir/debian/root"
  "$dir/list-root" "$dir/debian/root" "$dir/debian/list"
  fcproc --json image build "tar:$dir/debian/debian.tar" "$dir/debian/listed.ext4" \
    --overlay "/list-root=$dir/list-root" >"$dir/debian/report.json"
  rm -rf "$dir/debian/root" "$dir/debian/debian.ext4" "$dir/debian/debian.tar"
  touch "$dir/debian/made"
  ;;
images)
  initramfs machine virtio_pci 9pnet_virtio 9p overlay
  initramfs guest virtio_mmio virtio_blk virtio_net virtio_balloon crc32c_generic ext4
  guest_root
  ;;
esac
