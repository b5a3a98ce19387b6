// Formulas in Markdown: \( \), \[ \] and $$ $$, as MathML, or as they were written where they cannot be read.

const PAIRS = { "\\(": "\\)", "\\[": "\\]", $$: "$$" };
const LONGEST_FORMULA = 5000;
const MOST_FORMULA_LINES = 100;
const MOST_EXPANSIONS = 500;
const MOST_FORMULAS = 400;

// Before Markdown's own rules, which take the backslashes away and underscores for emphasis.
export function keepFormulas(markdown) {
  markdown.inline.ruler.before("escape", "formula", inlineFormula);
  markdown.block.ruler.before("fence", "formula", blockFormula, { alt: ["paragraph", "reference", "blockquote", "list"] });
  const escape = markdown.utils.escapeHtml;
  const asWritten = (text) => `<code class="math">${escape(text)}</code>`;
  const drawn = (tokens, place, env) => mathOf(tokens[place].content, env, escape);
  markdown.renderer.rules.formula = (tokens, place, _, env) => drawn(tokens, place, env) || asWritten(tokens[place].content);
  markdown.renderer.rules.formula_block = (tokens, place, _, env) => drawn(tokens, place, env) || `<pre class="math-block">${asWritten(tokens[place].content)}</pre>`;
}

// The source stands in the title, to be read; what cannot be read as TeX stays as it was written.
function mathOf(written, env, escape) {
  env.formulas = (env.formulas || 0) + 1;
  if (!window.temml || env.formulas > MOST_FORMULAS) return "";
  const source = written.slice(2, -2).trim();
  const options = { displayMode: !written.startsWith("\\("), throwOnError: true, maxExpand: MOST_EXPANSIONS, maxSize: [40, 100] };
  try {
    // The page allows no inline style; what they say stands in the elements as well.
    const html = window.temml.renderToString(source, options).replace(/ style="[^"]*"/g, "");
    return `<span class="formula" title="${escape(source)}">${html}</span>`;
  } catch {
    return "";
  }
}

function inlineFormula(state, silent) {
  const close = PAIRS[state.src.slice(state.pos, state.pos + 2)];
  if (!close) return false;
  const end = nextClose(state, close, state.pos + 2);
  if (end + 2 > Math.min(state.posMax, state.pos + LONGEST_FORMULA)) return false;
  if (!state.src.slice(state.pos + 2, end).trim()) return false;
  if (!silent) state.push("formula", "code", 0).content = state.src.slice(state.pos, end + 2);
  state.pos = end + 2;
  return true;
}

// Where the next one is stays known: many formulas without an end must not each look through the text.
function nextClose(state, close, from) {
  state.formulaEnds ??= {};
  const known = state.formulaEnds[close] ?? -1;
  if (known >= from) return known;
  const found = state.src.indexOf(close, from);
  return (state.formulaEnds[close] = found < 0 ? Infinity : found);
}

function lineText(state, line) {
  return state.src.slice(state.bMarks[line] + state.tShift[line], state.eMarks[line]).trimEnd();
}

function blockFormula(state, start, endLine, silent) {
  const close = PAIRS[lineText(state, start).slice(0, 2)];
  if (!close || close === "\\)" || state.sCount[start] - state.blkIndent >= 4) return false;
  const from = state.bMarks[start] + state.tShift[start] + 2;
  if (nextClose(state, close, from) > from + LONGEST_FORMULA) return false;
  const last = Math.min(endLine, start + MOST_FORMULA_LINES);
  for (let line = start; line < last && (state.isEmpty(line) || state.sCount[line] >= state.blkIndent); line += 1) {
    const text = lineText(state, line);
    const end = text.indexOf(close, line === start ? 2 : 0);
    if (end < 0) continue;
    const content = state.getLines(start, line + 1, state.blkIndent, false).trim();
    if (end + 2 < text.length || content.length < 5) return false;
    if (!silent) addFormula(state, start, line + 1, content);
    return true;
  }
  return false;
}

function addFormula(state, start, next, content) {
  const token = state.push("formula_block", "pre", 0);
  token.block = true;
  token.map = [start, next];
  token.content = content;
  state.line = next;
}
