// What changed between two answers, marked word by word.

import { h } from "./dom.js";
import { say } from "./words.js";

const LONGEST_COMPARED = 100_000;
const MOST_MILLISECONDS = 400;

// The texts of both sides with their marks, or a note where they differ too much to be compared.
function markedTexts(left, right, timeout) {
  const isShort = left.length <= LONGEST_COMPARED && right.length <= LONGEST_COMPARED;
  const parts = isShort && timeout > 0 && window.Diff.diffWordsWithSpace(left, right, { timeout });
  if (!parts) return [0, 1].map(() => h("p", { class: "note" }, say("too_different")));
  return [sideText(parts, "added", "del"), sideText(parts, "removed", "ins")];
}

function sideText(parts, leftOut, mark) {
  const shown = parts.filter((part) => !part[leftOut]);
  return h("pre", { class: "plain marked", tabIndex: 0 }, shown.map((part) => (part.added || part.removed ? h(mark, {}, part.value) : part.value)));
}

function saidText(answer) {
  return (answer?.messages || []).filter((item) => item.role === "assistant" && item.recipient === "all").map((item) => item.text).join("\n\n");
}

// One pair of texts for each ask that both sides answered, and not in the same words.
export function markedTurns(lines) {
  const [left, right] = lines.map((line) => (line?.turns || []).map((turn) => (turn.answer ? saidText(turn.answer) : null)));
  const until = performance.now() + MOST_MILLISECONDS;
  return left.map((text, place) => {
    const other = right[place] ?? null;
    if (text === null || other === null || text === other) return null;
    return markedTexts(text, other, until - performance.now());
  });
}
