// The page: its head, its views by address, its pulse while a run is on.

import { CompareView } from "./compare.js";
import { fill, h, icon } from "./dom.js";
import { GalleryView } from "./gallery.js";
import { isTyping, showHelp, VIEW_KEYS } from "./keys.js";
import { LinesView } from "./lines.js";
import { OverviewView } from "./overview.js";
import { source } from "./source.js";
import { applyTheme, onSystemTheme, switchTheme, theme } from "./theme.js";
import { language, say, switchLanguage, writeCount, writeMoment } from "./words.js";

const VIEWS = { overview: OverviewView, lines: LinesView, pictures: GalleryView, compare: CompareView };
const FAST = 1000;
const SLOW = 4000;

const app = document.getElementById("app");
const main = h("main", { id: "content", tabIndex: -1 });
const head = h("header", { class: "top" });
const banner = h("div", { class: "banner", role: "status", hidden: true });
let overview = null;
let view = null;
let viewName = "";
let pulse = 0;

function readAddress() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const params = Object.fromEntries(new URLSearchParams(query));
  const name = path in VIEWS ? path : "overview";
  const run = overview && Number(params.run) < overview.runs.length ? params.run : "0";
  return { ...params, view: name, run: run || "0" };
}

function addressOf(params) {
  const { view: name, ...rest } = params;
  if (rest.run === "0") delete rest.run;
  const query = new URLSearchParams(Object.entries(rest).filter(([, value]) => value));
  return `#/${name}${query.size ? `?${query}` : ""}`;
}

function go(changes, isQuiet = false) {
  const before = readAddress();
  const isOther = changes.view && changes.view !== before.view;
  const kept = isOther ? { run: before.run } : before;
  // A row without its key is another line's: the key says which line a saved address means.
  const key = "row" in changes ? { key: "" } : {};
  const address = addressOf({ ...kept, ...key, ...changes });
  if (address === location.hash) return;
  if (isQuiet) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  show();
}

function show() {
  if (!overview) return;
  const params = readAddress();
  if (params.view !== viewName) {
    view?.remove();
    view = new VIEWS[params.view](go);
    viewName = params.view;
    fill(main, view.element);
  }
  document.title = `${overview.runs[params.run].name} · gpt4batch`;
  drawHead(params);
  view.update(params, overview);
}

function rebuild() {
  view?.remove();
  view = null;
  viewName = "";
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  drawBanner();
  show();
}

function views() {
  return Object.keys(VIEWS).filter((name) => name !== "compare" || !source.isReport);
}

function drawHead(params) {
  const runs = overview.runs;
  const select = h("select", { "aria-label": say("output"), onchange: () => go({ run: select.value, row: "", cause: "", finish: "", page: "" }) }, runs.map((run, place) => h("option", { value: String(place) }, run.name)));
  select.value = params.run;
  const isCompare = params.view === "compare";
  fill(
    head,
    h("a", { class: "skip", href: "#content", onclick: (event) => (event.preventDefault(), main.focus()) }, say("skip")),
    h("span", { class: "brand" }, h("span", { class: "mark", "aria-hidden": "true" }), h("span", { class: "brand-name" }, "gpt4batch")),
    runs.length > 1 && !isCompare ? select : null,
    h(
      "nav",
      { "aria-label": say("views") },
      views().map((name) => h("a", { href: addressOf({ view: name, run: params.run }), "aria-current": name === params.view ? "page" : null, onclick: (event) => (event.preventDefault(), go({ view: name })) }, say(name))),
    ),
    h("span", { class: "spring" }),
    h("button", { class: "quiet small", type: "button", title: say("switch_language_hint"), onclick: changeLanguage, lang: language() === "zh" ? "en" : "zh-CN" }, say("switch_language")),
    headButton("theme", say("theme", { theme: say(`theme_${theme()}`) }), changeTheme),
    headButton("help", say("help"), showHelp),
  );
}

function headButton(name, label, action) {
  return h("button", { class: "quiet", type: "button", title: label, "aria-label": label, onclick: action }, icon(name));
}

function changeLanguage() {
  switchLanguage();
  rebuild();
}

function changeTheme() {
  switchTheme();
  rebuild();
}

function drawBanner(ended = false) {
  const { report } = overview || {};
  banner.hidden = !ended && !report;
  if (ended) banner.textContent = say("ended");
  else if (report) fill(banner, reportNote(report));
}

function reportNote(report) {
  const parts = [say("report_made", { when: writeMoment(report.made) })];
  const counts = Object.fromEntries(Object.entries(report).map(([name, value]) => [name, writeCount(value)]));
  if (report.lines_shown === report.lines) parts.push(say("report_whole"));
  else parts.push(say("report_part", { shown: counts.lines_shown, total: counts.lines, failed: counts.failed_shown, all_failed: counts.failed }));
  if (report.pictures) parts.push(say("report_pictures", { shown: counts.pictures_shown, total: counts.pictures }));
  if (report.cut) parts.push(say("report_cut", { n: counts.cut }));
  parts.push(say("report_raw"));
  return parts.join(" ");
}

async function beat() {
  clearTimeout(pulse);
  if (!document.hidden) {
    try {
      overview = await source.overview();
      drawBanner();
      if (view) view.refresh(overview);
      else show();
    } catch {
      drawBanner(true);
    }
  }
  if (!source.isReport) pulse = setTimeout(beat, isBusy() ? FAST : SLOW);
}

function isBusy() {
  return !overview || overview.runs.some((run) => !run.complete || run.log_records || run.now - run.modified < 30);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (isTyping(event)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (runKey(event.key)) event.preventDefault();
  else if (isFree(event) && view?.list) view.list.onKey(event);
}

// Nothing that has keys of its own is being used: then they move the list.
function isFree(event) {
  return !event.defaultPrevented && [document.body, main].includes(document.activeElement);
}

function runKey(key) {
  if (key in VIEW_KEYS && views().includes(VIEW_KEYS[key])) go({ view: VIEW_KEYS[key] });
  else if (key === "?") showHelp();
  else if (key === "t") changeTheme();
  else if (key === "z") changeLanguage();
  else if (key === "/") search();
  else return Boolean(view?.onKey(key));
  return true;
}

function search() {
  if (viewName !== "lines") go({ view: "lines" });
  view.search.focus();
  view.search.select();
}

applyTheme();
onSystemTheme(rebuild);
document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
app.append(head, banner, main);
addEventListener("popstate", show);
addEventListener("hashchange", show);
addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", () => document.hidden || beat());
beat();
