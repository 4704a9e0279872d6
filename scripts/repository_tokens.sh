#!/usr/bin/env bash
# A tokenizer and token files made of this repository's own text, so that a short training run needs
# no download: FOLDER/tokenizer.json, train.{bin,idx,json}, validation.{bin,idx,json}.
#
#   scripts/repository_tokens.sh GRIST FOLDER
set -euo pipefail

grist=$(realpath "$1")
mkdir -p "$2"
folder=$(realpath "$2")
cd "$(dirname "$0")/.."

rm -f "$folder"/{train,validation}.jsonl
git ls-files -z '*.md' '*.h' '*.cpp' '*.py' '*.sh' | python3 -c '
import json, sys
for i, name in enumerate(sorted(filter(None, sys.stdin.read().split("\0")))):
    with open(name, encoding="utf-8") as file:
        line = json.dumps({"id": name, "text": file.read()})
    with open(sys.argv[1] + ("validation" if i % 10 == 0 else "train") + ".jsonl", "a") as out:
        print(line, file=out)
' "$folder/"

"$grist" tokenizer train --input "$folder/train.jsonl" --vocab-size 1024 --output "$folder"
for part in train validation; do
  "$grist" prepare --input "$folder/$part.jsonl" --tokenizer "$folder/tokenizer.json" \
    --output "$folder/$part"
done
rm "$folder"/{train,validation}.jsonl
