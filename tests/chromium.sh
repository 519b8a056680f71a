#!/bin/sh
# A headless Chromium for the browser tests, where the system's package manager and rights allow. Never fails: where
# there is none, those tests are skipped and the summary says so.
for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
  command -v "$name" >/dev/null 2>&1 && exit 0
done
as_root=""
if [ "$(id -u)" -ne 0 ]; then
  as_root="sudo -n"
  $as_root true 2>/dev/null || { echo "No Chromium, and no right to install one: browser tests will be skipped."; exit 0; }
fi
if command -v apt-get >/dev/null 2>&1; then
  echo "Installing Chromium for the browser tests ..."
  { $as_root apt-get update -q && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
      --no-install-recommends chromium fonts-dejavu-core fonts-noto-cjk; } >/dev/null 2>&1 \
    || echo "Chromium could not be installed: browser tests will be skipped."
else
  echo "No Chromium, and no apt-get to install it with: browser tests will be skipped."
fi
exit 0
