#!/bin/sh
# The viewer that the tests look through: OHIF as built by its makers, and the library that drives a browser. Their packages
# are taken as they are, by exact version and checksum, without the hundreds of packages that OHIF is built from.
# usage: install-viewer.sh OHIF_VERSION        (the versions that can be had: viewer.sha512)
set -eu

ohif=$1
browser_driver=playwright-core-1.64.1
here=$(cd "$(dirname "$0")" && pwd)
room=$here/../.make/viewer

give_up() {
    echo "$1; without it the tests of the viewer are skipped"
    [ "${CI:-}" != true ] || exit 1
    exit 0
}
command -v npm >/dev/null 2>&1 || give_up 'npm is not installed'
mkdir -p "$room"
cd "$room"
for name in "$browser_driver" "ohif-app-$ohif"; do
    [ ! -d "$name" ] || continue
    package=$(echo "$name" | sed 's/^ohif-app-/@ohif\/app@/; s/^playwright-core-/playwright-core@/')
    echo "installing $package"
    npm pack --silent --no-update-notifier "$package" >/dev/null || give_up "$package cannot be fetched"
    grep " $name.tgz\$" "$here/viewer.sha512" | sha512sum --check --quiet --strict - || { rm -f "$name.tgz"; exit 1; }
    rm -rf unpacked && mkdir unpacked
    tar -xzf "$name.tgz" -C unpacked --exclude='*.map'
    mv unpacked/package "$name"
    rm -rf unpacked "$name.tgz"
done
touch "installed-$ohif"
