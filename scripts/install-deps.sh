#!/usr/bin/env bash
# Installs Debian's packages that the tests and the benchmark use: real registries and tools to compare plyfs with.
# Does nothing where all are there. plyfs itself needs none of them.
set -euo pipefail

packages=(
  acl attr btrfs-progs ca-certificates curl debootstrap docker-registry e2fsprogs file fio fish fuse-overlayfs fuse3 gcc git groff-base jq
  libcap2-bin make mandoc mmdebstrap pigz podman buildah runc crun skopeo strace tar uidmap umoci xfsprogs xz-utils zsh zstd
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "install-deps: no apt-get here; install by hand what the tests use: ${missing[*]}" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "install-deps: missing ${missing[*]}; run as root, or: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "install-deps: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --no-install-recommends -y "${missing[@]}" >/dev/null
