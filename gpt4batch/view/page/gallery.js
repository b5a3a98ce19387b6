// All pictures, page by page.

import { fill, h, icon } from "./dom.js";
import { showPicture } from "./lightbox.js";
import { iconButton } from "./lines.js";
import { source } from "./source.js";
import { baseName } from "./talk.js";
import { say, writeCount } from "./words.js";

const PAGE_PICTURES = 60;

export class GalleryView {
  constructor(go) {
    this.go = go;
    this.grid = h("div", { class: "grid" });
    this.pager = h("nav", { class: "pager", "aria-label": say("pictures") });
    this.element = h("div", { class: "gallery" }, this.pager, this.grid);
  }

  remove() {}

  update(params, overview) {
    this.params = params;
    this.page = Number(params.page || 0);
    this.refresh(overview, true);
  }

  refresh(overview, force = false) {
    const run = overview.runs[this.params.run];
    const drawn = `${run.generation} ${run.pictures}`;
    if (!force && drawn === this.drawn) return;
    this.drawn = drawn;
    this.load();
  }

  async load() {
    const { run } = this.params;
    const from = this.page * PAGE_PICTURES;
    const { total, pictures } = await source.pictures(run, from, PAGE_PICTURES);
    this.pictures = pictures;
    this.last = Math.max(Math.ceil(total / PAGE_PICTURES) - 1, 0);
    fill(
      this.pager,
      h("span", { class: "status" }, total ? say("picture_range", { from: writeCount(from + 1), to: writeCount(from + pictures.length), total: writeCount(total) }) : say("no_pictures")),
      total > PAGE_PICTURES
        ? [iconButton("back", say("previous_page"), () => this.turn(-1)), iconButton("next", say("next_page"), () => this.turn(1))]
        : null,
    );
    fill(this.grid, pictures.map((picture, place) => this.tile(picture, place)));
  }

  turn(by) {
    const page = Math.min(Math.max(this.page + by, 0), this.last);
    if (page !== this.page) this.go({ page: page ? String(page) : "" });
  }

  tile(picture, place) {
    const address = picture.kind === "picture" ? source.pictureAddress(picture) : null;
    const image = address ? h("img", { src: address, alt: picture.name, loading: "lazy", decoding: "async" }) : null;
    image?.addEventListener("error", () => image.closest(".tile-picture")?.classList.add("broken"));
    return h(
      "figure",
      {},
      image
        ? h("button", { class: "tile-picture", type: "button", title: picture.name, onclick: () => this.open(place) }, image)
        : h("div", { class: "tile-picture absent" }, icon("picture"), h("span", {}, say(picture.kind === "address" ? "address" : source.isReport ? "left_out" : "missing"))),
      h(
        "figcaption",
        {},
        h("button", { class: "link", type: "button", title: say("open_line"), onclick: () => this.openLine(picture) }, picture.id || say("line_of", { n: writeCount(picture.row + 1) })),
        h("span", { class: "faint" }, say(picture.side === "ask" ? "picture_ask" : "picture_answer")),
        h("span", { class: "faint file-name", title: picture.name }, baseName(picture.name)),
      ),
    );
  }

  open(place) {
    const shown = this.pictures.filter((picture) => picture.kind === "picture" && source.pictureAddress(picture));
    showPicture(shown, shown.indexOf(this.pictures[place]), (picture, close) =>
      h("button", { class: "link", type: "button", onclick: () => (close(), this.openLine(picture)) }, say("open_line")),
    );
  }

  openLine(picture) {
    this.go({ view: "lines", state: "", cause: "", q: "", pictures: "", row: String(picture.row) });
  }

  onKey(key) {
    if (key === "ArrowRight" || key === "j") this.turn(1);
    else if (key === "ArrowLeft" || key === "k") this.turn(-1);
    else return false;
    return true;
  }
}
