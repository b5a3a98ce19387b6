#!/usr/bin/env bash
# The demo and the quick part of the suite with Python 3.14, which Debian has in forky: in a root of
# its own, which goes away afterwards. Where that cannot be had (no root, no mmdebstrap, no
# network), it says so and passes: the other Pythons are tried by the gate itself.
set -euo pipefail
cd "$(dirname "$0")/.."

SUITE=${SUITE:-forky}
# Where this system's own packages come from.
MIRROR=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | head -n 1)}
TESTS=(tests/test_records.py tests/test_journal.py tests/test_retry.py tests/test_flags.py
  tests/test_conversation.py tests/test_streams.py tests/test_transport.py)

skip() {
  echo "Python 3.14 was NOT tried: $1"
  exit 0
}

[ "$(id -u)" = 0 ] || skip "a root of its own needs the rights of root"
command -v mmdebstrap >/dev/null || skip "there is no mmdebstrap here"
[ -n "$MIRROR" ] || skip "this system's packages come from nowhere that is known"
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root" "$root.log"' EXIT

# A mirror that is kept as it was on some day is past its date, and still signed.
mmdebstrap --variant=apt --aptopt='Acquire::Check-Valid-Until "false"' \
  --include=python3.14,python3.14-venv,make,ca-certificates \
  "$SUITE" "$root" "$MIRROR" >"$root.log" 2>&1 ||
  skip "mmdebstrap of $SUITE failed: $(tail -n 1 "$root.log")"

mkdir "$root/source"
git ls-files -z | tar --null --files-from=- -cf - | tar -xf - -C "$root/source"
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
  [ ! -e "$file" ] || cp --dereference "$file" "$root$file"
done

# The mounts are of this namespace, and gone with it.
unshare --mount bash -euo pipefail -c '
  mount -t proc proc "$0/proc"
  mount --rbind /dev "$0/dev"
  chroot "$0" /bin/sh -euc "
    cd /source
    python3.14 --version
    make demo PYTHON=python3.14
    .venv/bin/pytest -q -n 3 $*"
' "$root" "${TESTS[@]}"
echo "Python 3.14 was tried"
