// One picture, as large as the window.

import { fill, h, icon } from "./dom.js";
import { source } from "./source.js";
import { say } from "./words.js";

let openLightbox = null;

export function showPicture(pictures, place, extra = () => null) {
  openLightbox?.remove();
  const dialog = (openLightbox = h("dialog", { class: "lightbox", "aria-label": say("pictures") }));
  let current = place;
  const show = (to) => {
    current = Math.min(Math.max(to, 0), pictures.length - 1);
    const asset = pictures[current];
    fill(
      dialog,
      h("div", { class: "lightbox-head" }, h("span", { class: "asset-name" }, asset.name), extra(asset, close), saveLink(asset), lightboxButton("close", say("close"), close)),
      h("img", { src: source.pictureAddress(asset), alt: asset.name }),
      pictures.length > 1
        ? h("div", { class: "lightbox-moves" }, lightboxButton("back", say("previous_picture"), () => show(current - 1)), `${current + 1} / ${pictures.length}`, lightboxButton("next", say("next_picture"), () => show(current + 1)))
        : null,
    );
  };
  const close = () => dialog.close();
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && close());
  dialog.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) show(current + move);
    event.stopPropagation();
  });
  document.body.append(dialog);
  show(place);
  dialog.showModal();
}

function lightboxButton(name, label, action) {
  return h("button", { class: "quiet", type: "button", title: label, "aria-label": label, onclick: action }, icon(name));
}

function saveLink(asset) {
  const address = source.fileAddress(asset);
  return address ? h("a", { class: "quiet", href: address, download: "", title: say("save_file"), "aria-label": say("save_file") }, icon("save")) : null;
}
