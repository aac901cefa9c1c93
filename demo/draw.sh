#!/usr/bin/env bash
# Renders demo/pictures/*.svg, which were written by hand for weft, to the *.png beside them.
# Needs rsvg-convert (Debian: librsvg2-bin).
set -euo pipefail
cd "$(dirname "$0")/pictures"
for drawing in *.svg; do
  rsvg-convert --width 256 --height 256 --background-color white "$drawing" --output "${drawing%.svg}.png"
done
