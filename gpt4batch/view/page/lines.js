// The list of lines beside the conversation of one.

import { fill, h, icon, onIdle } from "./dom.js";
import { Found } from "./found.js";
import { VirtualList } from "./list.js";
import { source, stateName } from "./source.js";
import { drawColumns, extrasOf, TABLE_ROW_HEIGHT, tableRow } from "./table.js";
import { conversation, rawElement, stateBadge } from "./talk.js";
import { codeText } from "./markup.js";
import { causeTitle, say, writeCount, writeLines, writePercent, writeSeconds } from "./words.js";

const ROW_HEIGHT = 64;
const FILTER_STATES = ["", "done", "failed", "not_run", "partly"];

export class LinesView {
  constructor(go) {
    this.go = go;
    this.params = {};
    this.isRaw = false;
    this.generation = 0;
    this.found = new Found();
    this.openSoon = onIdle(({ row, key }) => this.go({ row, key }, true), 60);
    this.ticked = new Map();
    this.list = new VirtualList({
      rowHeight: ROW_HEIGHT,
      label: say("lines"),
      fetchPage: (from, count) => source.rows(this.params.run, this.filter(), from, count, this.params.sort),
      renderRow: (entry) => this.rowOf(entry),
      onActive: (_, entry, enter) => this.onActive(entry, enter),
      onTick: (entry) => this.tick(entry),
      onAnswer: (answer) => this.onAnswer(answer),
    });
    this.status = h("p", { class: "status", role: "status" });
    this.saves = h("div", { class: "saves" });
    this.chips = h("div", { class: "chips", role: "group", "aria-label": say("filters") });
    this.causes = h("select", { "aria-label": say("cause"), onchange: () => this.go({ cause: this.causes.value, row: "" }) });
    this.finishes = h("select", { "aria-label": say("finish"), onchange: () => this.go({ finish: this.finishes.value, row: "" }) });
    this.search = h("input", { type: "search", placeholder: say("search"), title: say("search_help"), "aria-label": say("search"), oninput: onIdle(() => this.find(), 250), onkeydown: (event) => this.onSearchKey(event) });
    this.empty = h("p", { class: "empty", hidden: true });
    this.columns = h("div", { class: "columns", role: "group", "aria-label": say("columns"), hidden: true });
    this.extras = [];
    this.tickedPanel = h("div", { class: "ticked", role: "group", "aria-label": say("ticked"), hidden: true });
    this.detail = h("section", { class: "detail", "aria-label": say("conversation"), tabIndex: -1 });
    this.element = h(
      "div",
      { class: "lines" },
      h(
        "section",
        { class: "side", "aria-label": say("lines") },
        h("div", { class: "filters" }, h("div", { class: "search" }, icon("search"), this.search), this.chips, this.causes, this.finishes),
        h("div", { class: "status-line" }, this.status, this.saves),
        this.tickedPanel,
        this.empty,
        this.columns,
        this.list.element,
      ),
      this.detail,
    );
  }

  remove() {
    clearTimeout(this.timer);
    this.found.clear();
    this.list.remove();
  }

  filter() {
    const { state, cause, finish, q, pictures } = this.params;
    return { state, cause, finish, text: q, pictures: pictures === "1" };
  }

  update(params, overview) {
    const before = this.params;
    this.params = params;
    this.refresh(overview);
    this.layOut(before);
    const changed = ["run", "state", "cause", "finish", "q", "pictures", "sort", "table"].some((name) => before[name] !== params[name]);
    if (this.search.value.trim() !== (params.q || "")) this.search.value = params.q || "";
    if (changed) this.reset();
    else if (params.row && params.row !== before.row) this.findActive();
    if (changed || before.row !== params.row) this.open();
  }

  layOut(before) {
    const isTable = this.params.table === "1";
    if (before.table === this.params.table && before.sort === this.params.sort) return;
    this.element.classList.toggle("table", isTable);
    this.columns.hidden = !isTable;
    this.list.rowHeight = isTable ? TABLE_ROW_HEIGHT : ROW_HEIGHT;
    this.list.shown.clear();
    this.drawColumns();
  }

  drawColumns() {
    drawColumns(this.columns, this.extras, this.params.sort || "", (sort) => this.go({ sort, row: "" }));
  }

  rowOf(entry) {
    const isTicked = this.ticked.has(entry.key);
    if (this.params.table !== "1") return rowElement(entry, isTicked);
    return tableRow(entry, this.extras, this.overview.finishes, isTicked ? tickMark() : null);
  }

  async reset() {
    fill(this.saves, this.tableButton(), this.saveLinks());
    await this.list.reset();
    if (this.params.row) this.findActive();
  }

  find() {
    const q = this.search.value.trim();
    if (q === (this.params.q || "")) return false;
    this.go({ q, row: "" });
    return true;
  }

  onSearchKey(event) {
    if (!["Enter", "ArrowDown"].includes(event.key) || event.isComposing) return;
    event.preventDefault();
    this.wantsFirst = true;
    if (!this.find() && this.list.total) this.openFirst();
    this.list.element.focus();
  }

  openFirst() {
    this.wantsFirst = false;
    this.list.activate(0);
  }

  tableButton() {
    const isTable = this.params.table === "1";
    return h("button", { class: "quiet small", type: "button", "aria-pressed": String(isTable), onclick: () => this.go({ table: isTable ? "" : "1", sort: "" }) }, icon("table"), say("table"));
  }

  saveLinks() {
    const { run } = this.params;
    return [
      ["save_lines", "jsonl"],
      ["save_these_csv", "csv"],
    ].map(([words, format]) => {
      const address = source.saveAddress(run, this.filter(), format);
      return address ? h("a", { class: "quiet small", href: address, download: "", title: say(words) }, icon("save"), format.toUpperCase(), h("span", { class: "visually-hidden" }, say(words))) : null;
    });
  }

  refresh(overview) {
    const run = overview.runs[this.params.run];
    this.overview = run;
    this.drawChips(run);
    this.drawCauses(run);
    this.drawFinishes(run);
    if (this.generation && run.generation !== this.generation) this.onReplaced(run);
    else if (this.generation && run.version !== this.version) this.onGrown();
    this.generation = run.generation;
    this.version = run.version;
  }

  async onGrown() {
    await this.list.refresh();
    const entry = this.line && this.lineEntry();
    if (entry && entry.state !== this.line.state) this.open();
  }

  lineEntry() {
    const entry = this.list.entry(this.list.active);
    return entry && entry.row === this.line.row ? entry : null;
  }

  async onReplaced() {
    const key = this.line?.key;
    this.list.refresh();
    if (!key) return;
    const { row } = await source.find(this.params.run, key);
    if (row !== null && String(row) !== this.params.row) this.go({ row: String(row), key }, true);
    this.open();
  }

  drawChips(run) {
    const total = run.rows;
    fill(
      this.chips,
      FILTER_STATES.filter((name) => !name || run.states[name] || this.params.state === name).map((name) => {
        const chosen = (this.params.state || "") === name;
        const count = name ? run.states[name] : total;
        return h(
          "button",
          { class: `chip ${name}`, type: "button", "aria-pressed": String(chosen), onclick: () => this.go({ state: name, cause: "", row: "" }) },
          name ? h("span", { class: `dot ${name}` }) : null,
          say(name || "all"),
          h("span", { class: "chip-count" }, writeCount(count)),
        );
      }),
      run.pictures || this.params.pictures
        ? h(
            "button",
            { class: "chip", type: "button", "aria-pressed": String(this.params.pictures === "1"), onclick: () => this.go({ pictures: this.params.pictures === "1" ? "" : "1", row: "" }) },
            icon("picture"),
            say("with_pictures"),
          )
        : null,
    );
  }

  drawCauses(run) {
    this.causes.hidden = !run.causes.length;
    const names = run.causes.map((cause) => `${cause.number} ${cause.count}`).join();
    if (this.causeNames !== names) {
      this.causeNames = names;
      fill(
        this.causes,
        h("option", { value: "" }, say("any_cause")),
        run.causes.map((cause) => h("option", { value: String(cause.number) }, `${causeTitle(cause)} (${writeCount(cause.count)})`)),
      );
    }
    this.causes.value = this.params.cause || "";
  }

  // Where all answers end in the same way there is nothing to choose.
  drawFinishes(run) {
    this.finishes.hidden = run.finishes.length < 2 && !this.params.finish;
    const names = run.finishes.map((item) => `${item.number} ${item.count}`).join();
    if (this.finishNames !== names) {
      this.finishNames = names;
      fill(
        this.finishes,
        h("option", { value: "" }, say("any_finish")),
        run.finishes.map((item) => h("option", { value: String(item.number) }, `${item.name} (${writeCount(item.count)})`)),
      );
    }
    this.finishes.value = this.params.finish || "";
  }

  onAnswer(answer) {
    const share = answer.of ? answer.scanned / answer.of : 1;
    const numbers = { total: writeCount(answer.total), of: writeCount(answer.of) };
    const isAll = answer.total === answer.of;
    if (answer.scanned < answer.of) this.status.textContent = say("searching", { ...numbers, percent: writePercent(share) });
    else this.status.textContent = say(isAll ? (answer.total === 1 ? "count_one" : "count_all") : "count_some", numbers);
    this.empty.hidden = answer.total > 0 || answer.scanned < answer.of;
    this.empty.textContent = say(answer.of ? "no_lines" : "no_lines_yet");
    if (this.wantsFirst && answer.total) this.openFirst();
    const extras = extrasOf(answer.rows);
    if (extras.some((name) => !this.extras.includes(name))) {
      this.extras = extrasOf([...answer.rows, { extra: Object.fromEntries(this.extras.map((name) => [name, ""])) }]);
      this.drawColumns();
      this.list.shown.clear();
    }
    clearTimeout(this.timer);
    if (answer.scanned < answer.of) this.timer = setTimeout(() => this.list.refresh(), 300);
  }

  onActive(entry, enter) {
    if (!entry) return;
    this.wanted = { row: String(entry.row), key: entry.key };
    this.openSoon(this.wanted);
    if (enter) this.detail.focus();
  }

  findActive() {
    const row = Number(this.params.row);
    if (this.list.entry(this.list.active)?.row === row) return;
    if (!this.filtered()) {
      this.list.mark(row);
      this.list.reveal(row);
      return;
    }
    const place = [...this.list.pages.entries()].flatMap(([page, rows]) => rows.map((entry, n) => [entry.row, page * 50 + n])).find(([known]) => known === row);
    this.list.mark(place ? place[1] : -1);
  }

  filtered() {
    const { state, cause, finish, q, pictures, sort } = this.params;
    return Boolean(state || cause || finish || q || pictures || sort);
  }

  async open() {
    const { run, row } = this.params;
    this.element.classList.toggle("reading", Boolean(row));
    if (!row) {
      this.line = null;
      fill(this.detail, h("div", { class: "hint" }, h("p", {}, say("choose_line")), h("p", { class: "faint" }, say("choose_line_keys"))));
      return;
    }
    const line = await source.line(run, Number(row)).catch(() => null);
    if (this.params.row !== row || this.params.run !== run) return;
    if (line && (await this.isMoved(line))) return;
    const isSame = this.line && this.line.key === line?.key;
    this.line = line;
    if (line) await this.draw(isSame);
    else fill(this.detail, h("p", { class: "empty" }, say("gone")));
  }

  // The file may have been put in order between the list and the line: then the row is another's.
  async isMoved(line) {
    const key = this.wanted?.row === this.params.row ? this.wanted.key : this.params.key;
    if (source.isReport || !key || key === line.key) return false;
    const { row } = await source.find(this.params.run, key);
    this.wanted = null;
    if (row === null || String(row) === this.params.row) return false;
    this.go({ row: String(row), key }, true);
    return true;
  }

  async draw(keepPlace = false) {
    const { line } = this;
    const top = this.detail.scrollTop;
    const body = this.isRaw && this.hasRaw() ? await rawElement(this.params.run, line.row) : conversation(line, this.overview.log_records > 0);
    fill(this.detail, this.head(line), body);
    this.detail.scrollTop = keepPlace ? top : 0;
    this.found.mark(body, shownHit(this.list.entry(this.list.active), this.params.q));
    this.drawFound();
    if (this.found.count && !keepPlace) this.goToFound(1);
  }

  drawFound() {
    const { count, place } = this.found;
    this.hits.hidden = !count;
    fill(
      this.hits,
      iconButton("up", say("previous_hit"), () => this.goToFound(-1)),
      h("span", { class: "faint" }, say("hits", { n: writeCount(place + 1), of: writeCount(count) })),
      iconButton("down", say("next_hit"), () => this.goToFound(1)),
    );
  }

  goToFound(by) {
    this.found.go(by);
    this.drawFound();
  }

  head(line) {
    return h(
      "header",
      { class: "detail-head" },
      iconButton("back", say("back_to_list"), () => this.go({ row: "" }), "only-phone"),
      h("div", { class: "detail-title" }, titleElements(line)),
      stateBadge(line.state),
      h("span", { class: "spring" }),
      source.isReport || !line.id
        ? null
        : (this.tickButton = h("button", { class: "quiet", type: "button", title: say("tick"), "aria-label": say("tick"), "aria-pressed": String(this.ticked.has(line.key)), onclick: () => this.tick(line) }, icon("check"))),
      (this.hits = h("span", { class: "hits", role: "group", hidden: true })),
      this.hasRaw()
        ? h("button", { class: "quiet", type: "button", "aria-pressed": String(this.isRaw), onclick: () => this.toggleRaw() }, icon("braces"), h("span", { class: "wide-only" }, say("raw")), h("span", { class: "visually-hidden phone-words" }, say("raw")))
        : null,
      iconButton("up", say("previous"), () => this.list.move(-1)),
      iconButton("down", say("next"), () => this.list.move(1)),
    );
  }

  // Ticked lines are to be run again: those that are done only with --redo, their answers kept beside.
  tick(entry) {
    if (source.isReport || !entry?.id) return;
    if (!this.ticked.delete(entry.key)) this.ticked.set(entry.key, { id: entry.id, isDone: stateName(entry.state) === "done" });
    this.drawTicked();
  }

  drawTicked() {
    const lines = [...this.ticked.values()];
    const command = runAgain(this.overview.again, lines);
    this.tickedPanel.hidden = !lines.length;
    fill(
      this.tickedPanel,
      h(
        "div",
        { class: "ticked-head" },
        h("span", {}, say("ticked_lines", { n: writeLines(lines.length) })),
        h("span", { class: "spring" }),
        h("button", { class: "quiet small", type: "button", onclick: () => (this.ticked.clear(), this.drawTicked()) }, say("untick")),
      ),
      codeText(command, ""),
    );
    this.list.redraw();
    if (this.line && this.tickButton) this.tickButton.setAttribute("aria-pressed", String(this.ticked.has(this.line.key)));
  }

  hasRaw() {
    return !source.isReport || this.line.has_raw;
  }

  toggleRaw() {
    if (!this.line || !this.hasRaw()) return;
    this.isRaw = !this.isRaw;
    this.draw();
  }

  leave() {
    this.go(this.params.row ? { row: "" } : { state: "", cause: "", finish: "", q: "", pictures: "" });
    this.list.element.focus();
  }

  onKey(key) {
    if (key === "j") this.list.move(1);
    else if (key === "k") this.list.move(-1);
    else if (key === "r") this.toggleRaw();
    else if (key === "x") this.tick(this.line);
    else if (key === "n" || key === "N") this.goToFound(key === "n" ? 1 : -1);
    else if (key === "Escape") this.leave();
    else if ("01234".includes(key)) this.go({ state: FILTER_STATES[Number(key)], cause: "", row: "" });
    else return false;
    return true;
  }
}

export function titleElements(line) {
  const place = say("line_of", { n: writeCount(line.row + 1) });
  return [h("h2", { title: line.id || place }, line.id || place), line.id ? h("span", { class: "faint" }, place) : null];
}

export function iconButton(name, label, action, extra = "") {
  return h("button", { class: `quiet ${extra}`, type: "button", title: label, "aria-label": label, onclick: action }, icon(name));
}

export function rowTitle(entry) {
  const name = entry.id || say("line_of", { n: writeCount(entry.row + 1) });
  return h("span", { class: "row-first" }, h("span", { class: "row-id" }, name), h("span", { class: "row-ask" }, entry.ask));
}

export function rowResult(entry) {
  const name = stateName(entry.state);
  if (entry.hit) return h("span", { class: "row-answer" }, entry.hit[0], h("mark", {}, entry.hit[1]), entry.hit[2]);
  if (entry.error && name === "failed") return h("span", { class: "row-error" }, entry.error);
  return h("span", { class: "row-answer" }, entry.answer || say(name));
}

// What a search found may be less than what was typed: conditions and expressions are no text.
function shownHit(entry, typed = "") {
  return entry?.hit?.[1] || (/[<>=/]/.test(typed) ? "" : typed);
}

function tickMark() {
  return h("span", { class: "tick", title: say("ticked") }, icon("check"));
}

function runAgain(again, lines) {
  const ids = lines.map(({ id }) => id).join(",");
  const quoted = /^[\w@%+=:,./-]+$/.test(ids) ? ids : `'${ids.replaceAll("'", "'\\''")}'`;
  return `${again} --only ${quoted}${lines.some(({ isDone }) => isDone) ? " --redo" : ""}`;
}

export function rowElement(entry, isTicked = false) {
  const name = stateName(entry.state);
  return [
    h("span", { class: `dot ${name}`, title: say(name) }),
    h("span", { class: "visually-hidden" }, say(name)),
    h(
      "span",
      { class: "row-body" },
      rowTitle(entry),
      rowResult(entry),
    ),
    isTicked ? tickMark() : null,
    h(
      "span",
      { class: "row-facts" },
      entry.seconds !== null && entry.seconds !== undefined ? writeSeconds(entry.seconds) : null,
      entry.pictures || entry.asks > 1 ? h("span", { class: "row-marks" }, entry.pictures ? icon("picture") : null, entry.asks > 1 ? `${entry.answers}/${entry.asks}` : null) : null,
    ),
  ];
}
