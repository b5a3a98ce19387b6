// Two runs of one input, side by side.

import { markedTurns } from "./differ.js";
import { fill, h } from "./dom.js";
import { iconButton, rowResult, rowTitle } from "./lines.js";
import { VirtualList } from "./list.js";
import { source, stateName } from "./source.js";
import { conversation, stateBadge } from "./talk.js";
import { say, writeCount, writePercent } from "./words.js";

const KINDS = ["all", "differ", "better", "worse", "same", "left", "right"];
const PAIR_HEIGHT = 64;

export class CompareView {
  constructor(go) {
    this.go = go;
    this.params = {};
    this.isMarked = true;
    this.list = new VirtualList({
      rowHeight: PAIR_HEIGHT,
      label: say("compare"),
      fetchPage: (from, count) => this.fetch(from, count),
      renderRow: pairElement,
      onActive: (_, pair, enter) => pair && this.open(pair, enter),
      onAnswer: (answer) => this.onAnswer(answer),
    });
    this.chips = h("div", { class: "chips", role: "group", "aria-label": say("filters") });
    this.selects = h("div", { class: "pair-selects" });
    this.status = h("p", { class: "status", role: "status" });
    this.detail = h("section", { class: "detail pair-detail", "aria-label": say("conversation"), tabIndex: -1 });
    this.element = h(
      "div",
      { class: "lines comparing" },
      h("section", { class: "side", "aria-label": say("compare") }, h("div", { class: "filters" }, this.selects, this.chips), h("div", { class: "status-line" }, this.status), this.list.element),
      this.detail,
    );
  }

  remove() {
    clearTimeout(this.timer);
    this.list.remove();
  }

  async fetch(from, count) {
    const { left, right, kind } = this.params;
    const answer = await source.pairs(left, right, kind, from, count);
    return { ...answer, rows: answer.pairs };
  }

  update(params, overview) {
    const before = JSON.stringify(this.params);
    this.params = { left: params.left || "0", right: params.right || "1", kind: params.kind || "all" };
    this.overview = overview;
    if (overview.runs.length < 2) {
      fill(this.element, h("p", { class: "empty wide" }, say("compare_needs_two")));
      return;
    }
    this.drawSelects(overview.runs);
    if (before === JSON.stringify(this.params)) return;
    this.list.reset();
    this.close();
  }

  refresh(overview) {
    if (overview.runs.length < 2) return;
    const drawn = overview.runs.map((run) => `${run.generation} ${run.version}`).join();
    if (this.drawn && this.drawn !== drawn) this.list.refresh();
    this.drawn = drawn;
  }

  drawSelects(runs) {
    fill(
      this.selects,
      ["left", "right"].map((side) => {
        const select = h("select", { "aria-label": say(`${side}_run`), onchange: () => this.go({ [side]: select.value }) }, runs.map((run, place) => h("option", { value: String(place) }, run.name)));
        select.value = this.params[side];
        return h("label", {}, h("span", { class: "faint" }, say(`${side}_run`)), select);
      }),
    );
  }

  onAnswer(answer) {
    this.status.textContent = answer.complete ? say(answer.total === 1 ? "count_one" : "count_all", { total: writeCount(answer.total) }) : say("pairing", { percent: writePercent(answer.progress) });
    fill(
      this.chips,
      KINDS.filter((kind) => kind === "all" || answer.counts[kind] || kind === this.params.kind).map((kind) =>
        h("button", { class: "chip", type: "button", "aria-pressed": String(kind === this.params.kind), onclick: () => this.go({ kind: kind === "all" ? "" : kind }) }, say(`kind_${kind}`), h("span", { class: "chip-count" }, writeCount(answer.counts[kind]))),
      ),
    );
    clearTimeout(this.timer);
    if (!answer.complete) this.timer = setTimeout(() => this.list.refresh(), 300);
  }

  async open(pair, enter = false) {
    const { left, right } = this.params;
    this.element.classList.add("reading");
    this.lines = await Promise.all(pair.map((entry, side) => entry && source.line(side ? right : left, entry.row)));
    this.draw();
    this.detail.scrollTop = 0;
    if (enter) this.detail.focus();
  }

  draw() {
    const { lines } = this;
    const { left, right } = this.params;
    const marked = this.isMarked ? markedTurns(lines) : [];
    const names = [left, right].map((run) => this.overview.runs[run].name);
    fill(
      this.detail,
      h(
        "header",
        { class: "detail-head" },
        iconButton("back", say("back_to_list"), () => this.close(), "only-phone"),
        h("div", { class: "detail-title" }, h("h2", {}, lines.find(Boolean).id || say("line_of", { n: writeCount(lines.find(Boolean).row + 1) }))),
        h("span", { class: "spring" }),
        h("button", { class: "quiet", type: "button", "aria-pressed": String(this.isMarked), onclick: () => this.toggleMarks() }, say("marks")),
        iconButton("up", say("previous"), () => this.list.move(-1)),
        iconButton("down", say("next"), () => this.list.move(1)),
      ),
      h(
        "div",
        { class: "sides" },
        lines.map((line, side) =>
          h(
            "article",
            { class: "one-side", "aria-label": names[side] },
            h("h3", {}, h("span", { class: "side-name" }, names[side]), line ? stateBadge(line.state) : null),
            line ? conversation(line, this.overview.runs[side ? right : left].log_records > 0, (place) => marked[place]?.[side]) : h("p", { class: "empty" }, say("absent")),
          ),
        ),
      ),
    );
  }

  toggleMarks() {
    this.isMarked = !this.isMarked;
    if (this.lines) this.draw();
  }

  close() {
    this.lines = null;
    this.element.classList.remove("reading");
    fill(this.detail, h("div", { class: "hint" }, h("p", {}, say("choose_pair")), h("p", { class: "faint" }, say("choose_line_keys"))));
  }

  leave() {
    this.close();
    this.list.element.focus();
  }

  onKey(key) {
    if (key === "j") this.list.move(1);
    else if (key === "k") this.list.move(-1);
    else if (key === "d") this.toggleMarks();
    else if (key === "Escape") this.leave();
    else return false;
    return true;
  }
}

function pairElement(pair) {
  return h("span", { class: "pair" }, rowTitle(pair.find(Boolean)), h("span", { class: "pair-sides" }, pair.map(pairSide)));
}

function pairSide(entry) {
  if (!entry) return h("span", { class: "pair-side row-answer" }, say("absent"));
  const name = stateName(entry.state);
  return h("span", { class: "pair-side" }, h("span", { class: `dot ${name}`, title: say(name) }), h("span", { class: "visually-hidden" }, say(name)), rowResult(entry));
}
