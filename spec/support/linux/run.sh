#!/bin/sh
# run.sh FOLDER COMMAND...: runs the command, which closes with "N passed, N failed", in the current
# folder under the kernel that prepare.sh put into FOLDER. That is a virtual machine of QEMU's own
# processor, an AMD one with virtualization, so a real KVM whatever /dev/kvm is here. It sees the files
# of this host; what it writes is gone with it. The variables FCPROC_*, LUA_PATH, LUA_CPATH and PATH
# are handed over. FCPROC_LINUX_LIMIT: seconds until it counts as hung.
set -u
folder=$1
shift
limit=${FCPROC_LINUX_LIMIT:-1500}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

quoted() {
  for word; do
    printf "'%s' " "$(printf %s "$word" | sed "s/'/'\\\\''/g")"
  done
}

{
  env | sed -n "s/'/'\\\\''/g; s/^\(FCPROC_[A-Z_]*\|LUA_C\{0,1\}PATH\|PATH\)=\(.*\)/export \1='\2'/p"
  echo "FCPROC_SPEC_LINUX=$(quoted "$folder")"
  echo "export FCPROC_SPEC_LINUX"
  echo "cd $(quoted "$PWD")"
  cat "$(dirname "$0")/machine-start"
  echo "$(quoted "$@") >/dev/ttyS1 2>&1"
  # stty waits until the line has sent everything.
  echo "stty -F /dev/ttyS1 sane; busybox poweroff -f"
} >"$dir/script"

# -M microvm hangs; -cpu qemu64 has no XSAVE, which Firecracker wants. A processor that is stuck for
# a minute is a panic, and so the machine's end.
machine() {
  timeout --foreground -k 10 "$limit" qemu-system-x86_64 -M q35 -accel tcg,thread=multi \
    -cpu EPYC,+svm,+npt -m 3072 -smp 1 -display none -no-reboot -nodefaults \
    -serial "file:$dir/console" -serial stdio \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
    -kernel "$folder/kernel/vmlinux" -initrd "$folder/machine.cpio" \
    -append "console=ttyS0 panic=-1 mitigations=off nokaslr quiet watchdog_thresh=30 softlockup_panic=1 \
      rcupdate.rcu_cpu_stall_timeout=60 sysctl.kernel.panic_on_rcu_stall=1 fcproc.script=$dir/script" </dev/null 2>"$dir/qemu" | tee "$dir/output"
}

# With two processors QEMU 7.2 locked up in some runs of ten, with one in none so far. Whatever stops
# the machine before its specs have ended gets one more try, and is told.
machine
if ! tail -n 1 "$dir/output" | grep -q "^[0-9]* passed, [0-9]* failed$"; then
  echo "the machine stopped before its specs had ended; the console's last words, and once more:"
  tr -d '\r' <"$dir/console" | tail -n 5
  machine
fi

last=$(tail -n 1 "$dir/output")
case $last in
*" passed, 0 failed") exit 0 ;;
*" passed, "*" failed") exit 1 ;;
esac
echo "the machine ended, or was ended after $limit s, before its specs did; QEMU and the console said:"
grep -v "warning: TCG doesn't support requested feature" "$dir/qemu"
tr -d '\r' <"$dir/console" | sed '/Kernel panic/q' | tail -n 30
echo "0 passed, 1 failed"
exit 1
