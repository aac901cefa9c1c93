#!/usr/bin/env bash
# Classifies the drawings in demo/pictures and, where Debian's archive can be reached, photographs that are in its
# package python3-skimage (fetched into build/, not installed).   run.sh WEFT
set -euo pipefail
weft=$(realpath "$1")
cd "$(dirname "$0")/.."

fetch_photographs() (
  mkdir -p build/demo
  cd build/demo
  [[ ! -d photographs ]] || exit 0
  rm -f -- *.deb
  apt-get download python3-skimage
  mkdir -p photographs.new
  dpkg-deb --fsys-tarfile python3-skimage_*.deb |
    tar --extract --directory photographs.new --strip-components 7 \
      './usr/lib/python3/dist-packages/skimage/data/chelsea.png' \
      './usr/lib/python3/dist-packages/skimage/data/horse.png' \
      './usr/lib/python3/dist-packages/skimage/data/motorcycle_left.png' \
      './usr/lib/python3/dist-packages/skimage/data/rocket.jpg'
  mv photographs.new photographs
) >build/demo.log 2>&1

echo "== Drawings. Each file is named after what it shows; the model was trained on photographs of 32 x 32 pixels."
"$weft" classify --top 3 demo/pictures/*.png
echo
if fetch_photographs; then
  echo "== Photographs from Debian's python3-skimage: a cat named Chelsea and the silhouette of a horse; then two that are"
  echo "   none of the model's ten classes, so that whatever it says there is wrong: a motorcycle and a rocket."
  "$weft" classify --top 3 build/demo/photographs/*
else
  echo "== Photographs skipped: could not fetch Debian's package python3-skimage (see build/demo.log)."
fi
