// Where the page's data comes from: viewsvc over HTTP, or the report it is part of.

const STATES = ["done", "failed", "not_run", "partly"];

export function stateName(number) {
  return STATES[number];
}

export function filterQuery(filter) {
  const query = new URLSearchParams();
  if (filter.state) query.set("state", filter.state);
  if (filter.cause) query.set("cause", filter.cause);
  if (filter.finish) query.set("finish", filter.finish);
  if (filter.text) query.set("q", filter.text);
  if (filter.pictures) query.set("pictures", "1");
  return query;
}

async function askServer(name, query) {
  const response = await fetch(`api/${name}?${query}`);
  if (!response.ok) throw new Error(`${response.status}`);
  return response.json();
}

class ServerSource {
  isReport = false;

  overview() {
    return askServer("overview", "");
  }

  rows(run, filter, from, count, sort = "") {
    const query = filterQuery(filter);
    if (sort) query.set("sort", sort);
    query.set("run", run);
    query.set("from", from);
    query.set("count", count);
    return askServer("rows", query);
  }

  line(run, row) {
    return askServer("line", new URLSearchParams({ run, row }));
  }

  raw(run, row) {
    return askServer("raw", new URLSearchParams({ run, row }));
  }

  find(run, key) {
    return askServer("find", new URLSearchParams({ run, key }));
  }

  pictures(run, from, count) {
    return askServer("pictures", new URLSearchParams({ run, from, count }));
  }

  pairs(left, right, kind, from, count) {
    return askServer("pairs", new URLSearchParams({ left, right, kind, from, count }));
  }

  saveAddress(run, filter, format) {
    const query = filterQuery(filter);
    query.set("run", run);
    query.set("as", format);
    return `api/save?${query}`;
  }

  pictureAddress(asset) {
    return asset.url || null;
  }

  fileAddress(asset) {
    return asset.url ? `${asset.url}&save` : null;
  }
}

class ReportSource {
  isReport = true;

  constructor(data) {
    this.data = data;
  }

  async overview() {
    return { runs: this.data.runs.map((run) => run.overview), report: this.data.report };
  }

  chosen(run, filter) {
    const text = (filter.text || "").toLowerCase();
    const states = filter.state ? filter.state.split(",").map((name) => STATES.indexOf(name)) : null;
    return this.data.runs[run].lines.filter(
      ({ summary, line }) =>
        (!states || states.includes(summary.state)) &&
        (!filter.cause || summary.cause === Number(filter.cause)) &&
        (!filter.finish || summary.finish === Number(filter.finish)) &&
        (!filter.pictures || summary.pictures > 0) &&
        (!text || this.textOf(summary, line).includes(text)),
    );
  }

  textOf(summary, line) {
    const parts = [summary.id, line.system?.text, line.error?.message.text];
    for (const turn of line.turns) {
      parts.push(turn.id, turn.ask.text, ...(turn.answer?.messages || []).map((item) => item.text));
    }
    return parts.join("\n").toLowerCase();
  }

  async rows(run, filter, from, count, sort = "") {
    const chosen = sorted(this.chosen(run, filter), sort);
    const of = this.data.runs[run].lines.length;
    const rows = chosen.slice(from, from + count).map(({ summary }) => summary);
    return { generation: 1, version: 1, total: chosen.length, of, scanned: of, complete: true, rows };
  }

  entry(run, row) {
    const entry = this.data.runs[run].lines.find(({ summary }) => summary.row === row);
    if (!entry) throw new Error("404");
    return entry;
  }

  async line(run, row) {
    return this.entry(run, row).line;
  }

  async raw(run, row) {
    return this.entry(run, row).raw;
  }

  async pictures(run, from, count) {
    const all = this.data.runs[run].pictures;
    return { total: all.length, pictures: all.slice(from, from + count) };
  }

  saveAddress() {
    return null;
  }

  pictureAddress(asset) {
    return this.data.files[asset.url] || null;
  }

  fileAddress() {
    return null;
  }
}

function sorted(entries, sort) {
  if (!sort) return entries;
  const name = sort.replace("-", "");
  const sign = sort.startsWith("-") ? -1 : 1;
  return entries.toSorted((one, other) => sign * ((one.summary[name] ?? 0) - (other.summary[name] ?? 0)));
}

export function openSource() {
  const embedded = document.getElementById("report-data");
  return embedded ? new ReportSource(JSON.parse(embedded.textContent)) : new ServerSource();
}

export const source = openSource();
