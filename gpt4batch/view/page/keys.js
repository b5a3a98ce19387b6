// The keys, and the page that tells them.

import { h, icon } from "./dom.js";
import { say } from "./words.js";

export const VIEW_KEYS = { o: "overview", l: "lines", p: "pictures", c: "compare" };

const TOLD = [
  [["o", "l", "p", "c"], "key_views"],
  [["↓", "↑", "j", "k"], "key_move"],
  [["PgDn", "PgUp", "Home", "End"], "key_page"],
  [["Enter"], "key_open"],
  [["←", "→"], "key_pictures"],
  [["Esc"], "key_close"],
  [["/"], "key_search"],
  [["n", "N"], "key_hits"],
  [["0", "1", "2", "3", "4"], "key_states"],
  [["x"], "key_tick"],
  [["r"], "key_raw"],
  [["d"], "key_marks"],
  [["t"], "key_theme"],
  [["z"], "key_language"],
  [["?"], "key_help"],
];

export function showHelp() {
  if (document.querySelector("dialog.help")) return;
  const dialog = h(
    "dialog",
    { class: "help", "aria-label": say("keys_title") },
    h("div", { class: "help-head" }, h("h2", {}, say("keys_title")), h("button", { class: "quiet", type: "button", "aria-label": say("close"), title: say("close"), onclick: () => dialog.close() }, icon("close"))),
    h("dl", {}, TOLD.map(([keys, words]) => h("div", {}, h("dt", {}, keys.map((key) => h("kbd", {}, key))), h("dd", {}, say(words))))),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}

export function isTyping(event) {
  const { target } = event;
  return target instanceof HTMLInputElement || target instanceof HTMLSelectElement || target instanceof HTMLTextAreaElement;
}
