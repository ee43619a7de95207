#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs checkmoe into a folder of its own, and builds and runs a plug-in with nothing else.
# Usage: install.sh CMAKE BUILD COMPILER SOURCE
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$1" --install "$2" --prefix "$folder/prefix" > "$folder/log" || { cat "$folder/log"; exit 1; }
export PKG_CONFIG_PATH="$folder/prefix/share/pkgconfig"
checkmoe=$folder/prefix/bin/checkmoe
cd "$folder"
test "$(pkg-config --variable=abi_version checkmoe)" -ge 1
"$3" -O2 -fPIC -shared $(pkg-config --cflags checkmoe) -o plain.so "$4"
"$checkmoe" run --quiet --set smoke --require plain --plugin plain.so
"$checkmoe" new-plugin mine # finds the installed header without pkg-config
PKG_CONFIG_PATH= CC="$3" sh mine/build.sh
code=0
"$checkmoe" run --quiet --set smoke --check numerics --plugin mine/mine.so > out || code=$?
test $code -eq 1 && grep -q "not written yet" out
