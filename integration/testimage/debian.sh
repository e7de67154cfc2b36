#!/bin/sh
# Makes an OCI layout OUT/oci with the image "debian": a Debian root filesystem of four layers, about 240 MB compressed
# and 610 MB unpacked. Needs root, mmdebstrap, umoci, GNU tar.
# usage: debian.sh OUT SUITE [APT-SOURCES-FILE]
set -eu

out=$1
suite=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
layout=$out/oci
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/bundle/rootfs

# layer MESSAGE COMMAND runs the command in the image's root filesystem and adds what it changed as a layer. The mounts
# live in a namespace of their own and go with it.
layer() {
	unshare --mount --pid --fork --kill-child sh -euc '
		mount -t proc proc "$1/proc"
		cp /etc/resolv.conf "$1/etc/resolv.conf"
		chroot "$1" /bin/sh -euxc "$2"
	' sh "$root" "$2"
	umoci repack --refresh-bundle --history.created_by "$1" --image "$layout:debian" "$work/bundle"
}

umoci init --layout "$layout"
umoci new --image "$layout:debian"

mmdebstrap --variant=minbase "$suite" "$work/base.tar" "$@"
umoci raw add-layer --history.created_by "debian base" --image "$layout:debian" "$work/base.tar"
rm "$work/base.tar"
umoci unpack --image "$layout:debian" "$work/bundle"

apt='export DEBIAN_FRONTEND=noninteractive LC_ALL=C
printf "#!/bin/sh\nexit 101\n" > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get update
install() { apt-get install -y --no-install-recommends "$@"; }
clean() { apt-get clean; rm -rf /var/lib/apt/lists/* /var/cache/ldconfig /var/log/*.log; }'

# Things of layer 2 that layers 3 and 4 replace, hide or delete.
layer "python3, git" "$apt
install python3 git ca-certificates perl
clean
mkdir -p /opt/odd/opaque/sub /opt/odd/dir-to-file/sub /opt/odd/gone/deep/er
for f in opaque/a opaque/sub/b dir-to-file/sub/c gone/deep/er/d file-to-dir link-to-file replaced; do
	case \$f in link-to-file) ln -s replaced /opt/odd/\$f ;; *) echo lower \$f >/opt/odd/\$f ;; esac
done
ln /opt/odd/replaced /opt/odd/replaced-link
chown 5:6 /opt/odd && chmod 2751 /opt/odd"

layer "gcc, nginx, and things deleted" "$apt
install gcc g++ libc6-dev make nginx-light libcap2-bin vim-nox
rm -rf /usr/share/doc/perl* /usr/share/locale/de /opt/odd/gone
rm -rf /opt/odd/dir-to-file && echo a file now >/opt/odd/dir-to-file
rm /opt/odd/file-to-dir && mkdir /opt/odd/file-to-dir && echo in >/opt/odd/file-to-dir/in
rm /opt/odd/link-to-file && echo a file >/opt/odd/link-to-file
setcap cap_net_raw+ep /usr/bin/perl
clean"

sh "$here/oddities.sh" "$work/stage" "$work/odd.tar"
umoci raw add-layer --history.created_by "oddities" --image "$layout:debian" "$work/odd.tar"
umoci config --image "$layout:debian" --config.cmd /bin/bash --config.env "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
umoci gc --layout "$layout"
