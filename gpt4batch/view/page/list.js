// A list of any length: only the rows in sight are elements, only the pages in sight are fetched.

import { h, onIdle } from "./dom.js";

const PAGE_ROWS = 50;
const MOST_PAGES = 40;
const OVERSCAN = 8;
// Browsers draw no element much higher than this; longer lists scroll in proportion.
const HIGHEST = 8_000_000;

export class VirtualList {
  constructor({ rowHeight, label, fetchPage, renderRow, onActive, onAnswer, onTick = () => {} }) {
    Object.assign(this, { rowHeight, fetchPage, renderRow, onActive, onAnswer, onTick });
    this.total = 0;
    this.active = -1;
    this.virtualTop = 0;
    this.lastTop = 0;
    this.version = 0;
    this.isStarted = false;
    this.pages = new Map();
    this.asked = new Set();
    this.shown = new Map();
    this.window = h("div", { class: "list-window", role: "presentation" });
    this.spacer = h("div", { class: "list-spacer", role: "presentation" }, this.window);
    this.element = h(
      "div",
      { class: "list", role: "listbox", tabIndex: 0, "aria-label": label, onkeydown: (event) => this.onKey(event) },
      this.spacer,
    );
    this.element.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.anchorSoon = onIdle(() => this.anchor(), 150);
    this.fetchSoon = onIdle(() => this.fetchVisible(), 30);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.element);
  }

  remove() {
    this.observer.disconnect();
    this.isStarted = false;
    this.version += 1;
  }

  reset() {
    this.isStarted = true;
    this.pages.clear();
    this.asked.clear();
    this.version += 1;
    this.total = 0;
    this.active = -1;
    this.virtualTop = 0;
    this.element.scrollTop = 0;
    this.lastTop = 0;
    this.draw();
    return this.fetchOne(0);
  }

  refresh() {
    this.asked.clear();
    this.version += 1;
    this.stale = new Set(this.pages.keys());
    return this.fetchVisible();
  }

  get scaled() {
    return this.total * this.rowHeight > HIGHEST;
  }

  get furthest() {
    return Math.max(this.total * this.rowHeight - this.element.clientHeight, 0);
  }

  onScroll() {
    const top = this.element.scrollTop;
    const moved = top - this.lastTop;
    this.lastTop = top;
    if (!this.scaled) this.virtualTop = top;
    else if (moved !== 0) this.scrollScaled(top, moved);
    this.draw();
  }

  scrollScaled(top, moved) {
    const height = this.element.clientHeight;
    const most = this.element.scrollHeight - height;
    if (Math.abs(moved) > height * 2 || top <= 0 || top >= most - 1) {
      this.virtualTop = (top / most) * this.furthest;
    } else {
      this.virtualTop = Math.min(Math.max(this.virtualTop + moved, 0), this.furthest);
    }
    this.anchorSoon();
  }

  // Small moves are one to one, so that reading is smooth; once still, the bar is put right again.
  anchor() {
    if (!this.scaled || !this.furthest) return;
    const most = this.element.scrollHeight - this.element.clientHeight;
    this.element.scrollTop = (this.virtualTop / this.furthest) * most;
    this.lastTop = this.element.scrollTop;
    this.draw();
  }

  range() {
    const first = Math.max(Math.floor(this.virtualTop / this.rowHeight) - OVERSCAN, 0);
    const visible = Math.ceil(this.element.clientHeight / this.rowHeight) + 2 * OVERSCAN;
    return [first, Math.min(first + visible, this.total)];
  }

  draw() {
    this.spacer.style.height = `${Math.min(this.total * this.rowHeight, HIGHEST)}px`;
    const [first, last] = this.range();
    const offset = this.scaled ? this.element.scrollTop - this.virtualTop : 0;
    this.window.style.transform = `translateY(${Math.round(offset + first * this.rowHeight)}px)`;
    const kept = new Map();
    for (let place = first; place < last; place += 1) kept.set(place, this.elementAt(place));
    this.shown = kept;
    this.window.replaceChildren(...[...kept.values()].map(({ element }) => element));
    const activeId = kept.has(this.active) ? `option-${this.active}` : "";
    this.element.setAttribute("aria-activedescendant", activeId);
    this.fetchSoon();
  }

  // What is shown of the rows has changed, not the rows.
  redraw() {
    this.shown.clear();
    this.draw();
  }

  elementAt(place) {
    const entry = this.entry(place);
    const isActive = place === this.active;
    const known = this.shown.get(place);
    if (known && known.entry === entry && known.isActive === isActive) return known;
    const element = h(
      "div",
      {
        class: `row${isActive ? " active" : ""}${entry ? "" : " waiting"}`,
        id: `option-${place}`,
        role: "option",
        "aria-selected": String(isActive),
        "aria-setsize": this.total,
        "aria-posinset": place + 1,
        onclick: (event) => (event.ctrlKey || event.metaKey ? this.onTick(entry) : this.activate(place)),
      },
      entry ? this.renderRow(entry) : h("span", { class: "visually-hidden" }, "…"),
    );
    element.style.height = `${this.rowHeight}px`;
    return { element, entry, isActive };
  }

  entry(place) {
    return this.pages.get(Math.floor(place / PAGE_ROWS))?.[place % PAGE_ROWS];
  }

  async fetchVisible() {
    if (!this.isStarted) return;
    const [first, last] = this.range();
    const wanted = [];
    for (let page = Math.floor(first / PAGE_ROWS); page * PAGE_ROWS < Math.max(last, 1); page += 1) wanted.push(page);
    await Promise.all(wanted.map((page) => this.fetchOne(page)));
  }

  async fetchOne(page) {
    if (this.asked.has(page) || (this.pages.has(page) && !this.stale?.has(page))) return;
    this.asked.add(page);
    const version = this.version;
    try {
      const answer = await this.fetchPage(page * PAGE_ROWS, PAGE_ROWS);
      if (version !== this.version) return;
      this.pages.set(page, answer.rows);
      this.stale?.delete(page);
      // The page of a growing list may be filled up later.
      if (answer.rows.length === PAGE_ROWS || answer.complete) this.forgetFar(page);
      this.total = answer.total;
      this.onAnswer(answer);
      this.draw();
      this.openAwaited();
    } catch {
      // viewsvc is gone or the file is being replaced: the next refresh asks again.
    } finally {
      if (version === this.version) this.asked.delete(page);
    }
  }

  // A jump may land on a line that is not here yet.
  openAwaited() {
    const entry = this.entry(this.active);
    if (!this.isAwaited || !entry) return;
    this.isAwaited = false;
    this.onActive(this.active, entry);
  }

  forgetFar(near) {
    if (this.pages.size <= MOST_PAGES) return;
    const furthest = [...this.pages.keys()].reduce((far, page) => (Math.abs(page - near) > Math.abs(far - near) ? page : far), near);
    this.pages.delete(furthest);
  }

  activate(place) {
    if (place < 0 || place >= this.total) return;
    this.active = place;
    this.reveal(place);
    this.draw();
    this.isAwaited = !this.entry(place);
    this.onActive(place, this.entry(place));
  }

  mark(place) {
    this.active = place;
    this.isAwaited = false;
    this.draw();
  }

  reveal(place) {
    const top = place * this.rowHeight;
    const height = this.element.clientHeight;
    let target = this.virtualTop;
    if (top < target) target = top;
    else if (top + this.rowHeight > target + height) target = top + this.rowHeight - height;
    if (target !== this.virtualTop) this.scrollTo(target);
  }

  scrollTo(virtualTop) {
    this.virtualTop = Math.min(Math.max(virtualTop, 0), this.furthest);
    if (this.scaled) this.anchor();
    else {
      this.element.scrollTop = this.virtualTop;
      this.lastTop = this.element.scrollTop;
      this.draw();
    }
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(Math.floor(this.element.clientHeight / this.rowHeight) - 1, 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.total, End: this.total };
    const move = moves[event.key];
    if (move) {
      event.preventDefault();
      this.move(move);
    } else if (event.key === "Enter" && this.active >= 0) {
      event.preventDefault();
      this.onActive(this.active, this.entry(this.active), true);
    }
  }

  move(by) {
    if (!this.total) return;
    this.activate(Math.min(Math.max(this.active + by, 0), this.total - 1));
  }
}
