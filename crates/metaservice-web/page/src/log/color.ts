// Colours of the guest, made for some other background, so that they can be read on this one.

import { signal } from "@preact/signals";

type Rgb = [number, number, number];

/** The least contrast, a little more than the 4.5 of WCAG, for rows with a tint. */
const CONTRAST = 5;

const scheme = matchMedia("(prefers-color-scheme: dark)");
const isDark = signal(scheme.matches);
scheme.addEventListener("change", () => {
  isDark.value = scheme.matches;
});

function parse(hex: string): Rgb {
  const number = parseInt(hex.slice(1), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

function luminance(color: Rgb): number {
  const [r, g, b] = color.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as Rgb;
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: Rgb, b: Rgb): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

/** The colour, moved towards black or white as far as reading needs. */
export function readable(hex: string, behind: string | undefined): string {
  const ground: Rgb = behind !== undefined ? parse(behind) : isDark.value ? [15, 19, 21] : [255, 255, 255];
  const end = luminance(ground) < 0.18 ? 255 : 0;
  const color = parse(hex);
  for (let share = 0; share <= 1; share += 0.1) {
    const mixed = color.map((part) => Math.round(part + (end - part) * share)) as Rgb;
    if (contrast(mixed, ground) >= CONTRAST) return `rgb(${mixed.join(" ")})`;
  }
  return `rgb(${end} ${end} ${end})`;
}
