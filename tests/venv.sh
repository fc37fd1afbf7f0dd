#!/usr/bin/env bash
# Installs tests/requirements.txt into target/venv, once for each content of that file. Where PyPI can't be
# reached it says so and ends well: the tests that need it skip.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${CARGO_TARGET_DIR:-target}/venv
stamp=$venv/requirements.txt
cmp -s tests/requirements.txt "$stamp" && exit 0
echo "installing tests/requirements.txt into $venv"
rm -f "$stamp"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
if "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement tests/requirements.txt; then
  cp tests/requirements.txt "$stamp"
else
  echo "SKIPPED: PyPI does not give what tests/requirements.txt names: the tests that use it skip"
fi
