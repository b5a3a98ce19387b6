// The charts, in the page's colours.

import { h } from "./dom.js";
import { color } from "./theme.js";
import { causeKind, causeName, say, shortened, writeCount, writeMoment, writeRate, writeSeconds } from "./words.js";

const POINTS = 72;
const STEPS_TOGETHER = 3;
const STEPS_PER_DECADE = 25;
const MOST_CAUSES = 8;

export class ChartBox {
  constructor(title) {
    this.canvas = h("canvas", { role: "img" });
    this.note = h("p", { class: "empty", hidden: true });
    this.frame = h("div", { class: "chart-frame" }, this.canvas);
    this.element = h("section", { class: "card chart" }, h("h3", {}, title), this.frame, this.note);
    this.chart = null;
  }

  draw(config, label) {
    this.frame.hidden = !config;
    this.note.hidden = Boolean(config);
    this.canvas.setAttribute("aria-label", label);
    if (!config) {
      this.note.textContent = label;
      this.remove();
    } else if (this.chart) {
      this.chart.data = config.data;
      this.chart.options = config.options;
      this.chart.update("none");
    } else {
      this.chart = new window.Chart(this.canvas, config);
    }
  }

  remove() {
    this.chart?.destroy();
    this.chart = null;
  }
}

function axis(extra = {}) {
  const { ticks = {}, grid = {}, ...rest } = extra;
  return {
    border: { display: false },
    grid: { color: color("line"), drawTicks: false, ...grid },
    ticks: { color: color("muted"), font: { size: 11, family: color("font") }, padding: 6, maxRotation: 0, autoSkipPadding: 16, ...ticks },
    ...rest,
  };
}

function options(extra) {
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    interaction: { mode: "index", intersect: false },
    ...extra,
    plugins: {
      legend: { display: false },
      tooltip: { displayColors: false, padding: 10, cornerRadius: 6, backgroundColor: color("tip"), titleColor: color("tip-ink"), bodyColor: color("tip-ink"), ...extra.tooltip },
    },
  };
}

export function pacePoints(timeline) {
  if (!timeline.at.length) return [];
  const start = timeline.at[0];
  const end = timeline.at.at(-1) + timeline.step;
  const width = Math.max(Math.ceil((end - start) / POINTS / timeline.step), 1) * timeline.step;
  const points = [];
  for (let at = start; at < end; at += width) points.push({ x: at, y: 0 });
  timeline.at.forEach((at, place) => (points[Math.floor((at - start) / width)].y += timeline.calls[place] / width));
  return points.length > 1 ? points : [...points, { x: points[0].x + width, y: points[0].y }];
}

const ROUND_SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800];

export function roundTimes(from, to) {
  const step = ROUND_SECONDS.find((seconds) => (to - from) / seconds <= 6) || (to - from) / 6;
  const zone = new Date(from * 1000).getTimezoneOffset() * 60;
  const times = [];
  for (let at = Math.ceil((from - zone) / step) * step + zone; at <= to; at += step) times.push(at);
  return times;
}

export function paceChart(timeline) {
  const points = pacePoints(timeline);
  const isLong = points.at(-1).x - points[0].x > 86_400;
  const isShort = points.at(-1).x - points[0].x < 300;
  const style = isShort ? { timeStyle: "medium" } : isLong ? { month: "short", day: "numeric", hour: "2-digit" } : { hour: "2-digit", minute: "2-digit" };
  return {
    type: "line",
    data: {
      datasets: [{ data: points, borderColor: color("accent"), backgroundColor: color("accent-wash"), fill: true, borderWidth: 1.6, pointRadius: 0, tension: 0 }],
    },
    options: options({
      scales: {
        x: axis({ type: "linear", min: points[0].x, max: points.at(-1).x, grid: { display: false }, afterBuildTicks: (scale) => (scale.ticks = roundTimes(scale.min, scale.max).map((value) => ({ value }))), ticks: { callback: (value) => writeMoment(value, style) } }),
        y: axis({ beginAtZero: true, ticks: { maxTicksLimit: 5 } }),
      },
      tooltip: {
        callbacks: {
          title: (items) => writeMoment(items[0].parsed.x, { timeStyle: "medium", dateStyle: "short" }),
          label: (item) => `${writeRate(item.parsed.y)} ${say("pace").toLowerCase()}`,
        },
      },
    }),
  };
}

export function latencyBins(latency) {
  const step = (seconds) => Math.floor(Math.round(Math.log10(seconds) * STEPS_PER_DECADE) / STEPS_TOGETHER);
  const first = step(latency.at[0]);
  const bins = Array.from({ length: step(latency.at.at(-1)) - first + 1 }, (_, place) => ({
    from: 10 ** (((first + place) * STEPS_TOGETHER - 0.5) / STEPS_PER_DECADE),
    to: 10 ** (((first + place + 1) * STEPS_TOGETHER - 0.5) / STEPS_PER_DECADE),
    count: 0,
  }));
  latency.at.forEach((seconds, place) => (bins[step(seconds) - first].count += latency.count[place]));
  return bins;
}

export function latencyChart(latency) {
  const bins = latencyBins(latency);
  return {
    type: "bar",
    data: {
      labels: bins.map((bin) => writeSeconds(bin.from)),
      datasets: [{ data: bins.map((bin) => bin.count), backgroundColor: color("accent-soft"), hoverBackgroundColor: color("accent"), borderRadius: 3, barPercentage: 1, categoryPercentage: 0.9, maxBarThickness: 60 }],
    },
    options: options({
      scales: { x: axis({ grid: { display: false } }), y: axis({ beginAtZero: true, ticks: { maxTicksLimit: 5, precision: 0 } }) },
      tooltip: {
        callbacks: {
          title: (items) => `${writeSeconds(bins[items[0].dataIndex].from)} – ${writeSeconds(bins[items[0].dataIndex].to)}`,
          label: (item) => `${writeCount(item.parsed.y)} ${say("calls_axis")}`,
        },
      },
    }),
  };
}

export function causeChart(causes, onCause) {
  const shown = causes.slice(0, MOST_CAUSES);
  return {
    type: "bar",
    data: {
      labels: shown.map((cause) => shortened(causeName(cause))),
      datasets: [{ data: shown.map((cause) => cause.count), backgroundColor: color("failed-soft"), hoverBackgroundColor: color("failed"), borderRadius: 3, maxBarThickness: 22 }],
    },
    options: options({
      indexAxis: "y",
      onClick: (_, items) => items.length && onCause(shown[items[0].index]),
      scales: { x: axis({ beginAtZero: true, ticks: { precision: 0, maxTicksLimit: 5 } }), y: axis({ grid: { display: false }, ticks: { autoSkip: false, color: color("ink") } }) },
      tooltip: { callbacks: { label: (item) => `${writeCount(item.parsed.x)} ${say("lines").toLowerCase()}`, afterLabel: (item) => causeKind(shown[item.dataIndex]) } },
    }),
  };
}
