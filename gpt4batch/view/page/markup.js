// Markdown that may be hostile, made into elements that are not.

import { h } from "./dom.js";
import { keepFormulas } from "./formula.js";
import { say } from "./words.js";

const LONGEST_MARKDOWN = 100_000;
const LONGEST_CODE = 20_000;
const TAGS = (
  "a blockquote br code del div em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong sub sup table tbody td th thead tr ul"
).split(" ");
const MATH_TAGS = "math annotation menclose merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none semantics".split(" ");
const ATTRIBUTES = ["href", "class", "start", "title"];
const MATH_ATTRIBUTES = (
  "accent accentunder columnalign columnlines columnspacing depth display displaystyle encoding fence form height linethickness lspace " +
  "mathvariant maxsize minsize movablelimits notation rowlines rowspacing rspace scriptlevel separator stretchy symmetric voffset width"
).split(" ");

function highlighted(code, name) {
  const known = name && code.length <= LONGEST_CODE && window.hljs.getLanguage(name);
  return known ? window.hljs.highlight(code, { language: name, ignoreIllegals: true }).value : "";
}

function alignment(tokens, place, options, _, self) {
  const align = /text-align:(\w+)/.exec(tokens[place].attrGet("style") || "");
  tokens[place].attrs = align ? [["class", `align-${align[1]}`]] : null;
  return self.renderToken(tokens, place, options);
}

function makeMarkdown() {
  const markdown = window.markdownit({ html: false, linkify: true, highlight: highlighted });
  markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
  markdown.validateLink = (address) => /^(https?:|mailto:)/i.test(address.trim());
  markdown.renderer.rules.image = (tokens, place) => {
    const token = tokens[place];
    const note = say("image_blocked", { url: token.attrGet("src") });
    return `<span class="blocked">${markdown.utils.escapeHtml(`${token.content} [${note}]`.trim())}</span>`;
  };
  keepFormulas(markdown);
  markdown.renderer.rules.th_open = alignment;
  markdown.renderer.rules.td_open = alignment;
  return markdown;
}

let sharedMarkdown = null;

export function renderMarkdown(text) {
  if (text.length > LONGEST_MARKDOWN) {
    return h("div", { class: "prose" }, h("p", { class: "note" }, say("plain")), plainText(text));
  }
  sharedMarkdown = sharedMarkdown || makeMarkdown();
  const clean = window.DOMPurify.sanitize(sharedMarkdown.render(text), {
    ALLOWED_TAGS: [...TAGS, ...MATH_TAGS],
    ALLOWED_ATTR: [...ATTRIBUTES, ...MATH_ATTRIBUTES],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
  const prose = h("div", { class: "prose" });
  prose.append(clean);
  // Too deeply nested Markdown renders to nothing: the answer must be readable all the same.
  if (!prose.textContent.trim() && text.trim()) return h("div", { class: "prose" }, plainText(text));
  for (const link of prose.querySelectorAll("a")) guardLink(link);
  for (const table of prose.querySelectorAll("table")) wrapTable(table);
  for (const code of prose.querySelectorAll("pre")) frameCode(code);
  return prose;
}

function guardLink(link) {
  if (!/^(https?:|mailto:)/i.test(link.getAttribute("href") || "")) {
    link.replaceWith(...link.childNodes);
    return;
  }
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
  link.title = link.href;
}

function wrapTable(table) {
  const frame = h("div", { class: "table-frame", tabIndex: 0, role: "group" });
  table.replaceWith(frame);
  frame.append(table);
}

function frameCode(pre) {
  pre.tabIndex = 0;
  const frame = h("div", { class: "code-frame" });
  pre.replaceWith(frame);
  frame.append(pre, copyButton(() => pre.textContent));
}

export function copyButton(text) {
  const button = h("button", { class: "copy", type: "button", onclick: () => copy(button, text()) }, say("copy"));
  return button;
}

async function copy(button, text) {
  // Browsers give no clipboard to a page that came over plain HTTP from another machine.
  const isCopied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  button.textContent = say(isCopied ? "copied" : "not_copied");
  setTimeout(() => (button.textContent = say("copy")), 1500);
}

export function plainText(text) {
  return h("pre", { class: "plain", tabIndex: 0 }, text);
}

export function codeText(text, name) {
  const code = h("code");
  const html = name === "json" && text.length <= 10 * LONGEST_CODE
    ? window.hljs.highlight(text, { language: "json" }).value
    : highlighted(text, name);
  if (html) {
    code.append(window.DOMPurify.sanitize(html, { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_DOM_FRAGMENT: true }));
  } else {
    code.textContent = text;
  }
  const frame = h("div", { class: "code-frame" }, h("pre", { tabIndex: 0 }, code));
  frame.append(copyButton(() => text));
  return frame;
}
