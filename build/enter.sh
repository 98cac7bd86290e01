#!/bin/sh
# Runs a command in another Debian root: enter.sh ROOT [DIRECTORY...] -- COMMAND [ARGUMENT...]
# Each DIRECTORY has the same path inside. Mounts, and the emulator that an arm64 root needs, are
# known to the command's own namespaces only (Linux 6.7); the machine stays as it was.
set -eu

if [ "$1" != --inside ]; then
    exec unshare --user --map-root-user --mount sh "$0" --inside "$PWD" "$@"
fi
directory=$2 root=$3
shift 3

if [ -e "$root/lib/ld-linux-aarch64.so.1" ] && [ "$(uname -m)" != aarch64 ]; then
    emulator=$(command -v qemu-aarch64-static) || {
        echo "an arm64 root needs qemu-aarch64-static: install Debian's qemu-user-static" >&2
        exit 1
    }
    binfmt=/proc/sys/fs/binfmt_misc
    # An ELF file, 64 bits, little-endian, for machine 0xb7; whatever its OS byte, static or not.
    # C: as the file's owner; F: the emulator is opened now, for it is not in the root.
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    mount -t binfmt_misc binfmt_misc $binfmt || {
        echo "this kernel has no binfmt_misc of a namespace's own: Linux 6.7 brought it" >&2
        exit 1
    }
    printf '%s' ":clef-arm64:M::$magic:$mask:$emulator:CF" >$binfmt/register
fi

for kernel in /dev /proc; do
    mount --rbind $kernel "$root$kernel"
done
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
    shift
done
shift
# shellcheck disable=SC2016 # the inner shell's
exec chroot "$root" /bin/sh -c 'cd "$0" 2>/dev/null || cd /; exec "$@"' "$directory" "$@"
