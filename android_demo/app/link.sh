#!/usr/bin/env bash
# link.sh AAPT2 FRAMEWORK BUNDLES OUT: what Gradle does with newer tools. Resources and manifest into OUT/app.ap_, R.java into OUT/r,
# and into OUT/assets the app's own with what it needs of each bundle in the folder BUNDLES, if that is there.
set -euo pipefail
cd "$(dirname "$0")"
aapt2=$1 framework=$2 bundles=$3 out=$4
rm -rf "$out" && mkdir -p "$out/assets"
ln -s "$PWD"/src/main/assets/* "$out/assets"
for manifest in "$bundles"/*/manifest.json; do
  [ -e "$manifest" ] || continue
  bundle=$(dirname "$(realpath "$manifest")")
  mkdir "$out/assets/$(basename "$bundle")"
  ln -s "$bundle"/{manifest.json,golden.json,tokenizer.safetensors,model.tflite,model.pte} "$out/assets/$(basename "$bundle")"
done
# Gradle takes these from build.gradle.kts.
sdks='<uses-sdk android:minSdkVersion="26" android:targetSdkVersion="36" />'
sed "s|<manifest |<manifest package=\"io.pocketbert.app\" |; s|<application|$sdks&|" src/main/AndroidManifest.xml > "$out/AndroidManifest.xml"
"$aapt2" compile --dir src/main/res -o "$out/res.zip"
"$aapt2" link -o "$out/app.ap_" -I "$framework" --manifest "$out/AndroidManifest.xml" \
  -A "$out/assets" -0 .pte -0 .tflite -0 .safetensors --java "$out/r" "$out/res.zip"
