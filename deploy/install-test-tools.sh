#!/bin/sh
# The servers and tools that the tests run against: a real Redis, a real PACS, and the field's own checkers.
# Installed with apt when root or passwordless sudo allow it; no service is started. Otherwise says what to install.
set -eu

missing=''
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }
need redis-server redis-server
need Orthanc orthanc
need storescu dcmtk
need strace strace
need ip iproute2
need mount mount
need openssl openssl
need dciodvfy dicom3tools
need systemd-analyze systemd
need chromium chromium
need node nodejs
need npm npm
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing="$missing orthanc-dicomweb"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then as_root=''
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then as_root='sudo'
else
    echo "The tests need these packages; without them their tests are skipped:$missing"
    echo "    sudo apt-get install$missing"
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi
command -v apt-get >/dev/null 2>&1 || { echo "apt-get is not there; install by hand:$missing"; exit 1; }

echo "installing for the tests:$missing (no service is started)"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
    trap '$as_root rm -f "$policy"' EXIT
fi
$as_root apt-get update -qq
# shellcheck disable=SC2086  # a list of words
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
