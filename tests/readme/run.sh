#!/usr/bin/env bash
# Runs the commands of every ```sh block of the README as they stand, in a folder that looks like the repository.
#   run.sh SOURCE_DIR BIN_DIR WORK_DIR
set -euo pipefail
source=$1 bin=$2 work=$3

rm -rf "$work"
mkdir -p "$work"
cd "$work"
ln -s "$source"/* .
rm -f build
awk -v language=sh -v all=1 -f "$source/tests/readme/blocks.awk" "$source/README.md" >"$work/commands"
PATH=$bin:$PATH bash -euxo pipefail "$work/commands"
