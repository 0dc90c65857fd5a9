// How a long log fits into a browser's scroll bar. No element can be higher than some millions of
// pixels, so that of a long log is lower than its lines.

/** The highest element, in pixels. */
const MAX_HEIGHT = 8_000_000;

export class Scale {
  readonly height: number;
  readonly maxTop: number;
  readonly isExact: boolean;

  constructor(
    readonly lines: number,
    readonly rowHeight: number,
    readonly viewHeight: number,
    /** Lines may be higher than a row. So the last one can be at the top. */
    readonly wraps = false,
  ) {
    const whole = lines * rowHeight + (wraps ? viewHeight : 0);
    this.isExact = whole <= MAX_HEIGHT && !wraps;
    this.height = Math.max(viewHeight, Math.min(whole, MAX_HEIGHT));
    this.maxTop = Math.max(0, lines - (wraps ? 1 : viewHeight / rowHeight));
  }

  /** The line at the top, with a fraction, for a position of the scroll bar. */
  top(scroll: number): number {
    const most = this.height - this.viewHeight;
    return most <= 0 ? 0 : this.clamp((scroll / most) * this.maxTop);
  }

  /** The position of the scroll bar for a line at the top. */
  scroll(top: number): number {
    return this.maxTop === 0 ? 0 : (top / this.maxTop) * (this.height - this.viewHeight);
  }

  clamp(top: number): number {
    return Math.max(0, Math.min(this.maxTop, top));
  }
}
