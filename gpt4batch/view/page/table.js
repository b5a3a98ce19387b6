// The list as a table: a column for each fact of a line, sorted by its numbers.

import { fill, h } from "./dom.js";
import { stateName } from "./source.js";
import { say, writeCount, writeSeconds } from "./words.js";

const NUMBERS = ["seconds", "attempts", "length", "tokens"];
const MOST_EXTRAS = 4;

export const TABLE_ROW_HEIGHT = 34;

// The keys of `extra` that the lines at hand have are columns too.
export function extrasOf(entries) {
  const names = new Set(entries.flatMap((entry) => Object.keys(entry?.extra || {})));
  return [...names].slice(0, MOST_EXTRAS);
}

export function drawColumns(element, extras, sort, onSort) {
  const next = (name) => (sort === `-${name}` ? name : sort === name ? "" : `-${name}`);
  const arrow = (name) => (sort === `-${name}` ? " ↓" : sort === name ? " ↑" : "");
  element.parentElement?.style.setProperty("--extras", extras.length);
  fill(
    element,
    h("span"),
    ["id", "ask", "answer"].map((name) => h("span", {}, say(`column_${name}`))),
    NUMBERS.map((name) => h("button", { class: "column number", type: "button", "aria-pressed": String(sort.endsWith(name)), title: say("sort_by", { name: say(`column_${name}`) }), onclick: () => onSort(next(name)) }, say(`column_${name}`), arrow(name))),
    h("span", {}, say("column_finish")),
    extras.map((name) => h("span", { class: "mono" }, name)),
  );
}

export function tableRow(entry, extras, finishes, tick) {
  const name = stateName(entry.state);
  const failed = name === "failed" && entry.error;
  const count = (value) => h("span", { class: "number" }, value === null || value === undefined ? "" : writeCount(value));
  return [
    h("span", { class: `dot ${name}`, title: say(name) }),
    h("span", { class: "row-id" }, h("span", { class: "visually-hidden" }, say(name)), entry.id || say("line_of", { n: writeCount(entry.row + 1) }), tick),
    h("span", {}, entry.ask),
    h("span", { class: failed ? "row-error" : "" }, entry.hit ? [entry.hit[0], h("mark", {}, entry.hit[1]), entry.hit[2]] : failed || entry.answer || ""),
    h("span", { class: "number" }, writeSeconds(entry.seconds)),
    count(entry.attempts),
    count(entry.length),
    count(entry.tokens || null),
    h("span", {}, finishes.find((item) => item.number === entry.finish)?.name || ""),
    extras.map((key) => h("span", {}, entry.extra?.[key] ?? "")),
  ];
}
