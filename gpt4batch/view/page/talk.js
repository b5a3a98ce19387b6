// A line as a conversation.

import { codeText, plainText, renderMarkdown } from "./markup.js";
import { h, icon } from "./dom.js";
import { showPicture } from "./lightbox.js";
import { source, stateName } from "./source.js";
import { failureName, say, writeBytes, writeCount, writeMoney, writeSeconds, writeTokens } from "./words.js";

const FOLDED_RESULT = 600;
const LONG_ASK = 800;
const USUAL_END = "stop";

export function stateBadge(state) {
  const name = stateName(state);
  return h("span", { class: `badge ${name}` }, say(name));
}

// An answer's place may be taken by another element: its text with marks, say.
export function conversation(line, isLive = false, instead = () => null) {
  const article = h("div", { class: "talk" });
  if (line.system?.text) article.append(h("details", { class: "more" }, h("summary", {}, say("system")), plainText(line.system.text), cutNote(line.system)));
  line.turns.forEach((turn, place) => article.append(turnElement(turn, place, line, isLive, instead(place))));
  if (line.error && hasFailed(line)) article.append(errorElement(line.error));
  if (line.more) {
    article.append(
      h("details", { class: "more" }, h("summary", {}, say("more")), codeText(line.more.text, "json"), cutNote(line.more)),
    );
  }
  return article;
}

// A line that was not run carries an error too: its mark that it has no answer yet.
function hasFailed(line) {
  return stateName(line.state) === "failed";
}

function unanswered(place, line, isLive) {
  if (!hasFailed(line)) return isLive ? "no_answer" : "not_asked";
  return line.turns.findIndex((turn) => !turn.answer) === place ? "no_answer_failed" : "not_asked_failed";
}

function turnElement(turn, place, line, isLive, other) {
  const many = line.turns.length > 1;
  return h(
    "section",
    { class: "turn" },
    h(
      "div",
      { class: "ask" },
      h(
        "div",
        { class: "label" },
        h("span", { class: "who" }, many ? say("turn", { n: place + 1, of: line.turns.length }) : say("ask")),
        turn.id ? h("span", { class: "faint mono" }, turn.id) : null,
      ),
      h("div", { class: "ask-text", tabIndex: turn.ask.text.length > LONG_ASK ? 0 : null }, turn.ask.text),
      cutNote(turn.ask),
      assets(turn.assets),
    ),
    h(
      "div",
      { class: "answer" },
      h("div", { class: "label" }, h("span", { class: "who" }, say("answer")), ...callFacts(turn)),
      other ? [other, assets(turn.answer.downloads)] : turn.answer ? answerElement(turn.answer) : h("p", { class: "faint" }, say(unanswered(place, line, isLive))),
    ),
  );
}

function callFacts(turn) {
  const facts = [];
  if (turn.seconds !== null) facts.push(writeSeconds(turn.seconds));
  if (turn.attempts > 1) facts.push(say("attempts", { n: turn.attempts }));
  if (turn.answer?.model) facts.push(turn.answer.model);
  if (turn.answer?.tokens) facts.push(writeTokens(turn.answer.tokens));
  if (turn.answer?.cost !== undefined) facts.push(say("cost_one", { cost: writeMoney(turn.answer.cost) }));
  if (turn.answer?.finish && turn.answer.finish !== USUAL_END) facts.push(say("ended_by", { finish: turn.answer.finish }));
  return facts.map((fact) => h("span", { class: "faint" }, fact));
}

function answerElement(answer) {
  const parts = answer.messages.map(messageElement);
  if (!parts.length && !answer.downloads.length) parts.push(h("p", { class: "faint" }, say("empty_answer")));
  return [parts, answer.downloads.length ? assets(answer.downloads) : null];
}

function messageElement(message) {
  if (message.kind === "json") return [codeText(message.text, "json"), cutNote(message)];
  if (message.kind === "reasoning") return h("details", { class: "tool" }, h("summary", {}, say("reasoning")), plainText(message.text), cutNote(message));
  if (message.kind === "refusal") return h("div", { class: "said" }, h("p", { class: "note" }, say("refused")), renderMarkdown(message.text), cutNote(message));
  if (message.role === "assistant" && message.recipient === "all" && message.kind !== "code") {
    return h("div", { class: "said" }, renderMarkdown(message.text), cutNote(message));
  }
  const isCall = message.role === "assistant";
  const name = (isCall ? message.recipient : message.name) || say("tool");
  const language = message.language === "unknown" ? "python" : message.language;
  const body = isCall ? codeText(message.text, language) : plainText(message.text);
  return h(
    "details",
    { class: "tool", open: isCall && message.text.length < FOLDED_RESULT },
    h("summary", {}, say(isCall ? "tool_call" : "tool_result", { name })),
    body,
    cutNote(message),
  );
}

function cutNote(part) {
  // As viewsvc counts them: an emoji is one character.
  const shown = Array.from(part.text).length;
  if (part.length <= shown) return null;
  return h("p", { class: "note" }, say("cut", { shown: writeCount(shown), length: writeCount(part.length) }));
}

function errorElement(error) {
  const facts = [failureName(error.code, error.stage)].filter(Boolean);
  if (error.attempts > 1) facts.push(say("attempts", { n: error.attempts }));
  return h(
    "div",
    { class: "failure" },
    h("div", { class: "failure-head" }, icon("warning"), h("strong", {}, facts.join(" · ") || say("failed"))),
    h("pre", { class: "failure-text", tabIndex: 0 }, error.message.text),
    cutNote(error.message),
    error.reply ? h("details", { class: "more" }, h("summary", {}, say("kept_reply")), answerElement(error.reply)) : null,
  );
}

function assets(items) {
  if (!items.length) return null;
  return h("div", { class: "assets" }, items.map((item) => assetElement(item)));
}

export function assetElement(asset) {
  const address = asset.kind === "picture" ? source.pictureAddress(asset) : null;
  if (address) {
    const image = h("img", { src: address, alt: asset.name, loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => image.closest(".thumb")?.classList.add("broken"));
    return h(
      "button",
      { class: "thumb", type: "button", title: asset.name, onclick: () => showPicture([asset], 0) },
      image,
      h("span", { class: "thumb-name" }, baseName(asset.name)),
    );
  }
  const file = source.fileAddress(asset);
  const facts = [h("span", { class: "asset-name" }, asset.name || asset.origin || "?")];
  if (asset.size !== undefined) facts.push(h("span", { class: "faint" }, writeBytes(asset.size)));
  if (asset.error) facts.push(h("span", { class: "bad" }, say("download_failed", { error: asset.error })));
  else if (asset.kind === "address") facts.push(h("span", { class: "faint" }, say("address")));
  else if (asset.kind === "missing") facts.push(h("span", { class: "faint" }, say("missing")));
  else if (!file) facts.push(h("span", { class: "faint" }, say("left_out")));
  const shown = [icon(asset.kind === "picture" ? "picture" : "file"), facts];
  return file ? h("a", { class: "file", href: file, download: "" }, shown) : h("span", { class: "file absent" }, shown);
}

export function baseName(name) {
  return name.split("/").pop();
}

export async function rawElement(run, row) {
  const raw = await source.raw(run, row);
  return h("div", { class: "raw" }, cutNote(raw), codeText(raw.text, "json"));
}

