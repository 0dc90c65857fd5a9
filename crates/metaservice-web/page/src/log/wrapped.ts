// Lines that are wrapped have heights that only the browser knows. These functions measure those
// that are on the screen.

/** The box of the lines, and the number of the first line in it. */
export interface Rendered {
  box: HTMLElement;
  first: number;
}

const rowsOf = (box: HTMLElement): Element[] => [...(box.firstElementChild?.children ?? [])];

/** The line at the top of the box, with a fraction. */
export function topLine({ box, first }: Rendered): number {
  const edge = box.getBoundingClientRect().top;
  for (const [index, row] of rowsOf(box).entries()) {
    const { top, bottom, height } = row.getBoundingClientRect();
    if (bottom > edge + 0.5) return first + index + Math.max(0, Math.min(0.999, (edge - top) / height));
  }
  return first;
}

/** The height of the line at the top, in pixels. */
export function topHeight(rendered: Rendered): number {
  const index = Math.floor(topLine(rendered)) - rendered.first;
  return Math.max(1, rowsOf(rendered.box)[index]?.getBoundingClientRect().height ?? 1);
}

/** The last line that is shown, and whether it leaves room below. */
export function bottomLine({ box, first }: Rendered): { line: number; hasRoom: boolean } {
  const edge = box.getBoundingClientRect().bottom;
  const rows = rowsOf(box);
  const below = rows.findIndex((row) => row.getBoundingClientRect().bottom > edge + 0.5);
  const index = below < 0 ? rows.length - 1 : below;
  return { line: first + index, hasRoom: below < 0 };
}

/** Moves the lines up by a part of the first one. */
export function shift({ box }: Rendered, part: number): void {
  const inner = box.firstElementChild;
  const height = inner?.firstElementChild?.getBoundingClientRect().height ?? 0;
  if (inner instanceof HTMLElement) inner.style.transform = `translateY(${-part * height}px)`;
}
