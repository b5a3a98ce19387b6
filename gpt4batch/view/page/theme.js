// Light or dark: as the system has it, or as chosen.

import { recall, remember } from "./words.js";

const THEME_KEY = "gpt4batch.theme";
const THEMES = ["auto", "light", "dark"];
let chosenTheme = THEMES.includes(recall(THEME_KEY)) ? recall(THEME_KEY) : "auto";

export function theme() {
  return chosenTheme;
}

export function applyTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = chosenTheme === "auto" ? (dark ? "dark" : "light") : chosenTheme;
}

export function switchTheme() {
  chosenTheme = THEMES[(THEMES.indexOf(chosenTheme) + 1) % THEMES.length];
  remember(THEME_KEY, chosenTheme);
  applyTheme();
}

export function onSystemTheme(action) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    applyTheme();
    action();
  });
}

export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
