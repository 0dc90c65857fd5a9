// The terminal's screen. This module and xterm.js are loaded when a terminal is opened.

import { FitAddon } from "@xterm/addon-fit";
import { type ITheme, Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { defineAdoptedStyle } from "./adopted";

export type Screen = { terminal: Terminal; fit: () => void; close: () => void };

/** Sequences that would set the title, make a link, or reach the clipboard. */
const IGNORED = [0, 1, 2, 8, 52];

const COLORS = [
  "black",
  "red",
  "green",
  "yellow",
  "blue",
  "magenta",
  "cyan",
  "white",
  "brightBlack",
  "brightRed",
  "brightGreen",
  "brightYellow",
  "brightBlue",
  "brightMagenta",
  "brightCyan",
  "brightWhite",
] as const satisfies (keyof ITheme)[];

/** The colours of the page. */
function theme(): ITheme {
  const style = getComputedStyle(document.documentElement);
  const color = (name: string): string => style.getPropertyValue(name).trim();
  const made: ITheme = {
    background: color("--page"),
    foreground: color("--ink"),
    cursor: color("--accent"),
    cursorAccent: color("--page"),
    selectionBackground: color("--selection"),
    scrollbarSliderBackground: color("--line"),
    scrollbarSliderHoverBackground: color("--dim"),
    scrollbarSliderActiveBackground: color("--dim"),
  };
  for (const [number, name] of COLORS.entries()) made[name] = color(`--c${number}`);
  return made;
}

/** Makes a terminal in this element, with its size. */
export function openScreen(box: HTMLElement): Screen {
  defineAdoptedStyle();
  const root = getComputedStyle(document.documentElement);
  const terminal = new Terminal({
    theme: theme(),
    fontFamily: root.getPropertyValue("--mono").trim(),
    fontSize: Math.round(parseFloat(root.fontSize) * 0.8125),
    scrollback: 5_000,
    // The colours of a guest are made for some other background.
    minimumContrastRatio: 4.5,
    cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
    macOptionIsMeta: true,
    linkHandler: { activate: () => {} },
  });
  for (const sequence of IGNORED) terminal.parser.registerOscHandler(sequence, () => true);
  const fitting = new FitAddon();
  terminal.loadAddon(fitting);
  terminal.open(box);
  const fit = (): void => {
    // A hidden terminal keeps its size.
    if (box.clientWidth > 0 && box.clientHeight > 0) fitting.fit();
  };
  fit();
  const observer = new ResizeObserver(fit);
  observer.observe(box);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const recolor = (): void => {
    terminal.options.theme = theme();
  };
  scheme.addEventListener("change", recolor);
  const close = (): void => {
    observer.disconnect();
    scheme.removeEventListener("change", recolor);
    terminal.dispose();
  };
  return { terminal, fit, close };
}
