// How the run went, or goes: at a glance.

import { causeChart, ChartBox, latencyChart, paceChart } from "./charts.js";
import { fill, h, icon } from "./dom.js";
import { codeText } from "./markup.js";
import { source } from "./source.js";
import { causeKind, causeName, say, writeCount, writeFailedPercent, writeLines, writeMoment, writeMoney, writePercent, writeRate, writeSeconds } from "./words.js";

const STATE_NAMES = ["done", "failed", "partly", "not_run"];
const RECENT = 60;
const QUIET = 600;

function isLive(run) {
  return run.log_records > 0 && run.now - run.modified < QUIET;
}

export class OverviewView {
  constructor(go) {
    this.go = go;
    this.head = h("div", { class: "run-head" });
    this.progress = h("section", { class: "card progress", "aria-label": say("progress") });
    this.tiles = h("div", { class: "tiles" });
    this.pace = new ChartBox(say("pace"));
    this.latency = new ChartBox(say("latency"));
    this.causes = new ChartBox(say("causes"));
    this.table = h("div", { class: "card causes" });
    this.runs = h("div");
    this.element = h(
      "div",
      { class: "overview" },
      this.head,
      this.runs,
      this.progress,
      this.tiles,
      h("div", { class: "charts" }, this.pace.element, this.latency.element),
      h("div", { class: "charts" }, this.causes.element, this.table),
    );
  }

  remove() {
    for (const box of [this.pace, this.latency, this.causes]) box.remove();
  }

  update(params, overview) {
    this.params = params;
    this.refresh(overview);
  }

  refresh(overview) {
    const run = overview.runs[this.params.run];
    const drawn = JSON.stringify([isLive(run), run.generation, run.version, run.complete, run.read, overview.runs.length, run.has_input]);
    fill(this.head, this.headElements(run));
    if (drawn === this.drawn && this.params.run === this.drawnRun) return;
    this.drawn = drawn;
    this.drawnRun = this.params.run;
    fill(this.runs, overview.runs.length > 1 ? this.runsTable(overview.runs) : null);
    fill(this.progress, this.progressElements(run));
    fill(this.tiles, this.tileElements(run));
    this.drawCharts(run);
  }

  headElements(run) {
    const saves = [
      run.states.failed ? [source.saveAddress(this.params.run, { state: "failed" }, "jsonl"), "save_failed"] : [null],
      [source.saveAddress(this.params.run, {}, "csv"), "save_csv"],
    ].filter(([address]) => address);
    return [
      h("div", {}, h("h1", {}, run.name), h("p", { class: "run-status" }, this.statusElements(run))),
      h("div", { class: "run-saves" }, saves.map(([href, words]) => h("a", { class: "button", href, download: "" }, icon("save"), say(words)))),
    ];
  }

  statusElements(run) {
    const ago = Math.max(run.now - run.modified, 0);
    if (!run.complete) return say("indexing", { percent: writePercent(run.size ? run.read / run.size : 1) });
    if (isLive(run)) return [h("span", { class: "pulse" }), say("running", { ago: writeSeconds(Math.max(ago, 1)) })];
    if (run.log_records) return say("halted", { ago: writeSeconds(ago) });
    const when = writeMoment(run.last || run.modified);
    const open = run.states.not_run + run.states.partly;
    if (open) return say("stopped", { when, n: writeLines(open) });
    return say(run.last ? "finished" : "written", { when });
  }

  runsTable(runs) {
    return h(
      "div",
      { class: "card runs" },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, [say("output"), say("lines"), ...STATE_NAMES.map((name) => say(name)), say("median")].map((name) => h("th", { scope: "col" }, name)))),
        h(
          "tbody",
          {},
          runs.map((run, place) =>
            h(
              "tr",
              { class: String(place) === this.params.run ? "chosen" : "" },
              h("th", { scope: "row" }, h("button", { class: "link", type: "button", onclick: () => this.go({ run: String(place) }) }, run.name)),
              h("td", {}, writeCount(run.rows)),
              STATE_NAMES.map((name) => h("td", {}, writeCount(run.states[name]))),
              h("td", {}, run.latency ? writeSeconds(run.latency.p50) : "–"),
            ),
          ),
        ),
      ),
    );
  }

  progressElements(run) {
    const total = run.rows;
    const share = total ? run.states.done / total : 0;
    const bar = h("div", { class: "bar", role: "img", "aria-label": say("progress_of", { done: writeCount(run.states.done), total: writeCount(total) }) });
    for (const name of STATE_NAMES) {
      if (!run.states[name]) continue;
      const part = h("span", { class: `part ${name}` });
      part.style.flexGrow = String(run.states[name] / total);
      bar.append(part);
    }
    return [
      h("div", { class: "progress-head" }, h("span", { class: "big" }, total ? writePercent(share) : "–"), h("span", { class: "faint" }, say("progress_of", { done: writeCount(run.states.done), total: writeCount(total) }))),
      bar,
      h(
        "div",
        { class: "legend" },
        STATE_NAMES.map((name) =>
          h("button", { class: "legend-item", type: "button", disabled: !run.states[name], onclick: () => this.go({ view: "lines", state: name, cause: "", q: "", row: "" }) }, h("span", { class: `dot ${name}` }), say(name), h("strong", {}, writeCount(run.states[name]))),
        ),
      ),
      this.againElement(run),
    ];
  }

  againElement(run) {
    const count = run.rows - run.states.done;
    if (!run.again || !count || !run.complete || isLive(run)) return null;
    const notes = [run.has_input ? null : say("again_input"), say("again_flags")].filter(Boolean);
    return h("div", { class: "again" }, h("p", {}, say("again", { n: writeLines(count) })), codeText(run.again, ""), h("p", { class: "note" }, notes.join(" ")));
  }

  tileElements(run) {
    const { latency } = run;
    const span = run.last - run.first;
    const tiles = [[say("failures"), writeCount(run.states.failed), run.rows ? say("of_all", { percent: writeFailedPercent(run.states.failed, run.rows) }) : "", run.states.failed ? "bad" : "good"]];
    const answered = latency?.calls || 0;
    if (run.calls) tiles.push([say("calls"), writeCount(run.calls), run.calls > answered ? say("calls_answered", { n: writeCount(answered), others: writeCount(run.calls - answered) }) : ""]);
    if (run.tokens) tiles.push([say("tokens"), writeCount(run.tokens.input + run.tokens.output), this.tokensNote(run.tokens)]);
    if (run.cost !== null) tiles.push([say("cost"), writeMoney(run.cost), say("cost_each", { cost: writeMoney(run.cost / Math.max(run.rows, 1)) })]);
    if (latency) {
      const recent = this.recentPace(run);
      if (span > 0) tiles.push([say("pace"), writeRate(recent ?? latency.calls / span), say(recent === null ? "pace_note" : "pace_now")]);
      tiles.push([say("median"), writeSeconds(latency.p50), say("percentiles", { p90: writeSeconds(latency.p90), p99: writeSeconds(latency.p99) })]);
      tiles.push(this.timeTile(run, span, recent));
    }
    return tiles.filter(Boolean).map(([name, value, note, kind]) => h("div", { class: `card tile ${kind || ""}` }, h("span", { class: "tile-name" }, name), h("span", { class: "tile-value" }, value), h("span", { class: "tile-note" }, note)));
  }

  tokensNote(tokens) {
    const counts = Object.fromEntries(Object.entries(tokens).map(([name, count]) => [name, writeCount(count)]));
    return say("tokens_all", { in: counts.input, cached: counts.cached, out: counts.output, reasoning: counts.reasoning });
  }

  recentPace(run) {
    if (!isLive(run) || !run.timeline.at.length) return null;
    const since = run.now - RECENT;
    let calls = 0;
    run.timeline.at.forEach((at, place) => (calls += at >= since ? run.timeline.calls[place] : 0));
    return calls / Math.max(Math.min(RECENT, run.now - run.first), 1);
  }

  timeTile(run, span, recent) {
    const left = run.states.not_run + run.states.partly;
    const perLine = run.latency.calls / Math.max(run.states.done + run.states.failed, 1);
    if (recent && run.has_input && left) return [say("time_left"), say("about", { time: writeSeconds((left * perLine) / recent) }), ""];
    return span > 0 ? [say("duration"), writeSeconds(span), `${writeMoment(run.first, { timeStyle: "short" })} – ${writeMoment(run.last, { timeStyle: "short" })}`] : null;
  }

  drawCharts(run) {
    const { timeline, latency, causes } = run;
    this.pace.draw(timeline.at.length ? paceChart(timeline) : null, timeline.at.length ? say("pace") : say("no_timings"));
    this.latency.element.hidden = !latency && !timeline.at.length;
    this.latency.draw(latency ? latencyChart(latency) : null, latency ? say("latency") : say("no_timings"));
    this.causes.frame.style.height = `${Math.min(causes.length, 8) * 34 + 40}px`;
    this.causes.draw(causes.length ? causeChart(causes, (cause) => this.showCause(cause)) : null, causes.length ? say("causes") : say("no_failures"));
    this.table.hidden = !causes.length;
    fill(this.table, causes.length ? this.causeTable(causes) : null);
  }

  showCause(cause) {
    this.go({ view: "lines", state: "failed", cause: String(cause.number), q: "", row: "" });
  }

  causeTable(causes) {
    return h(
      "div",
      { class: "table-frame", tabIndex: 0, role: "group", "aria-label": say("causes") },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, [say("cause"), say("kind"), say("lines_count"), say("example")].map((name) => h("th", { scope: "col" }, name)))),
        h(
          "tbody",
          {},
          causes.map((cause) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, h("button", { class: "link", type: "button", onclick: () => this.showCause(cause) }, causeName(cause))),
              h("td", { class: "cause-kind" }, causeKind(cause)),
              h("td", { class: "number" }, writeCount(cause.count)),
              h("td", {}, h("button", { class: "link", type: "button", onclick: () => this.go({ view: "lines", state: "failed", cause: String(cause.number), q: "", row: String(cause.row) }) }, say("line_of", { n: writeCount(cause.row + 1) }))),
            ),
          ),
        ),
      ),
    );
  }

  onKey() {
    return false;
  }
}
