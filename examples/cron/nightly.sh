#!/bin/sh
# Go on with a batch each night until every line is done. A start while the last one still runs does no harm:
# the run holds a lock on its output, and the later one ends at once with exit code 2.
set -eu
cd "${BATCH_DIR:-$HOME/batch}"

code=0
gpt4batch batchsvc -i prompts.jsonl -o out.jsonl -d downloads -q 2 -g 30 -f=true \
  --progress-interval 600 --summary summary.json >>batch.log 2>&1 || code=$?

case $code in
  0) echo "$(date) every line is done" >>batch.log ;;
  1) echo "$(date) some lines failed; they are tried again next time" >>batch.log ;;
  *) echo "$(date) gpt4batch ended with exit code $code; see $PWD/batch.log" >&2 ;; # cron mails this
esac
exit "$code"
