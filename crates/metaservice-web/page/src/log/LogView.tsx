import { Component, createRef, type VNode } from "preact";
import { count, many } from "../format";
import type { LogOf } from "./api";
import { Lines } from "./lines";
import { Row } from "./Row";
import { Scale } from "./scroll";
import type { LogLength } from "../types";
import { say } from "../ui/Flash";
import * as wrapped from "./wrapped";

/** A line that a search has found. */
export interface Match {
  line: number;
}

interface Props {
  log: LogOf;
  started: number;
  length: LogLength;
  times: boolean;
  wrap: boolean;
  follow: boolean;
  pattern: string | undefined;
  /** The match that is shown. Another value shows it again. */
  current: Match | undefined;
  setFollow: (follow: boolean) => void;
  failed: (error: unknown) => void;
}

interface State {
  /** The line at the top, with a fraction. */
  top: number;
  height: number;
  rowHeight: number;
  /** The line that the address names. */
  target: number | undefined;
  /** How many lines passed unseen in the last seconds. */
  skipped: number;
  tick: number;
}

/** How long it is said that lines passed unseen. */
const SKIPPED_MS = 2_500;

function hashLine(): number | undefined {
  const number = /^#L(\d{1,15})$/.exec(location.hash)?.[1];
  return number === undefined ? undefined : Math.max(0, Number(number) - 1);
}

/** The lines of a log that fit on the screen. */
export class LogView extends Component<Props, State> {
  override state: State = {
    top: 0,
    height: 0,
    rowHeight: 20,
    target: hashLine(),
    skipped: 0,
    tick: 0,
  };
  #scroller = createRef<HTMLDivElement>();
  #box = createRef<HTMLDivElement>();
  /** The first line in the box. */
  #first = 0;
  #observer: ResizeObserver | undefined;
  /** Where this component has put the scroll bar. */
  #placed = 0;
  #lines = this.#fresh();
  /** How many lines are shown while the log is followed: those that have arrived. */
  #followed = 0;
  #skipTimer: number | undefined;
  #placedTarget = false;

  #fresh(): Lines {
    const changed = (): void => this.setState((state) => ({ tick: state.tick + 1 }));
    return new Lines(this.props.log, this.props.started, changed, this.props.failed);
  }

  override componentDidMount(): void {
    const scroller = this.#scroller.current;
    if (!scroller) return;
    const measure = (): void => {
      const root = parseFloat(getComputedStyle(document.documentElement).fontSize);
      this.setState({ height: scroller.clientHeight, rowHeight: Math.round(root * 1.25) });
    };
    this.#observer = new ResizeObserver(measure);
    this.#observer.observe(scroller);
    measure();
    scroller.addEventListener("wheel", this.#wheel, { passive: false });
    addEventListener("hashchange", this.#hash);
    scroller.focus({ preventScroll: true });
    if (this.state.target !== undefined) this.props.setFollow(false);
  }

  override componentWillUnmount(): void {
    this.#observer?.disconnect();
    this.#scroller.current?.removeEventListener("wheel", this.#wheel);
    removeEventListener("hashchange", this.#hash);
    clearTimeout(this.#skipTimer);
  }

  override componentDidUpdate(before: Props): void {
    const { current, length, wrap } = this.props;
    if (wrap !== before.wrap && !this.props.follow) this.setState({ top: Math.floor(this.state.top) });
    if (current !== undefined && current !== before.current) this.#show(current.line);
    const { target } = this.state;
    if (!this.#placedTarget && target !== undefined && this.state.height > 0 && length.lines > 0) {
      if (length.lines > target || length.state !== "open") {
        this.#placedTarget = true;
        this.#show(target);
      }
    }
    this.#place();
    this.#settle();
  }

  /** Wrapped lines: puts the first one in place. Below the last one there is no room. */
  #settle(): void {
    const { wrap, follow, length } = this.props;
    const rendered = this.#rendered();
    if (!wrap || !rendered || this.state.height === 0) return;
    if (follow) return wrapped.shift(rendered, 0);
    const { top } = this.#view();
    wrapped.shift(rendered, top - Math.floor(top));
    const { line, hasRoom } = wrapped.bottomLine(rendered);
    if (hasRoom && line === length.lines - 1) this.props.setFollow(true);
  }

  #rendered(): wrapped.Rendered | undefined {
    const box = this.#box.current;
    return box ? { box, first: this.#first } : undefined;
  }

  /** The line at the top now, with a fraction, also while the log is followed. */
  #now(): number {
    const rendered = this.props.wrap && this.props.follow ? this.#rendered() : undefined;
    return rendered ? wrapped.topLine(rendered) : this.#view().top;
  }

  /** The line at the top, for a search that begins there. */
  get top(): number {
    return Math.floor(this.#now());
  }

  /** The log as it is shown: how many lines it has, and the first of them. */
  #view(): { scale: Scale; top: number } {
    const { length, follow, wrap } = this.props;
    const { height, rowHeight } = this.state;
    const rows = Math.max(1, height / rowHeight);
    if (follow) this.#advance(length.lines, Math.ceil(rows));
    const scale = new Scale(follow ? this.#followed : length.lines, rowHeight, height, wrap);
    return { scale, top: follow ? scale.maxTop : scale.clamp(this.state.top) };
  }

  /** Shows the newest lines when they have arrived. The ones in between are skipped. */
  #advance(lines: number, rows: number): void {
    this.#lines.length = this.props.length;
    this.#lines.pattern = this.props.pattern;
    if (this.#followed > lines) this.#followed = lines;
    const end = Math.min(lines, this.#lines.arrived);
    if (end > this.#followed) {
      const skipped = end - this.#followed - rows;
      if (this.#followed > 0 && skipped > 0) this.#tellSkipped(skipped);
      this.#followed = end;
    }
    this.#lines.want(Math.max(0, lines - rows - 1), lines);
  }

  #tellSkipped(skipped: number): void {
    clearTimeout(this.#skipTimer);
    this.#skipTimer = setTimeout(() => this.setState({ skipped: 0 }), SKIPPED_MS);
    queueMicrotask(() => this.setState((state) => ({ skipped: state.skipped + skipped })));
  }

  #place(): void {
    const scroller = this.#scroller.current;
    if (!scroller) return;
    const { scale, top } = this.#view();
    const scroll = scale.scroll(top);
    if (Math.abs(scroller.scrollTop - scroll) >= 1) scroller.scrollTop = scroll;
    this.#placed = scroller.scrollTop;
  }

  #scrollTo(top: number): void {
    const { length, wrap } = this.props;
    const scale = new Scale(length.lines, this.state.rowHeight, this.state.height, wrap);
    const next = scale.clamp(top);
    this.props.setFollow(next >= scale.maxTop - 0.1 && length.lines > 0);
    this.setState({ top: next });
  }

  /** Shows a line in the upper third. */
  #show(line: number): void {
    this.props.setFollow(false);
    const before = this.props.wrap ? 1 : this.state.height / this.state.rowHeight / 3;
    this.setState({ top: Math.max(0, line - before) });
  }

  #scrolled = (): void => {
    const scroller = this.#scroller.current;
    if (!scroller || Math.abs(scroller.scrollTop - this.#placed) < 1) return;
    const { scale } = this.#view();
    const to = scale.top(scroller.scrollTop);
    const moved = to - scale.top(this.#placed);
    this.#placed = scroller.scrollTop;
    this.#scrollTo(this.props.wrap && to > 0 ? this.#now() + moved : to);
  };

  /** One pixel of the scroll bar of a long log is many lines, so the wheel does not move it. */
  #wheel = (event: WheelEvent): void => {
    if (this.#view().scale.isExact || event.ctrlKey || event.deltaY === 0) return;
    event.preventDefault();
    const top = this.#now();
    const rendered = this.props.wrap && event.deltaY > 0 ? this.#rendered() : undefined;
    const height = rendered ? wrapped.topHeight(rendered) : this.state.rowHeight;
    const unit = event.deltaMode === 0 ? 1 / height : event.deltaMode === 1 ? 1 : 20;
    this.#scrollTo(top + event.deltaY * unit);
  };

  #keys = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { scale } = this.#view();
    const top = this.#now();
    const page = this.#page(top);
    const moves: Record<string, number> = {
      ArrowUp: top - 1,
      k: top - 1,
      ArrowDown: top + 1,
      j: top + 1,
      PageUp: top - page,
      PageDown: top + page,
      " ": top + (event.shiftKey ? -page : page),
      Home: 0,
      g: 0,
      End: scale.maxTop + this.props.length.lines,
      G: scale.maxTop + this.props.length.lines,
    };
    const next = moves[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.#scrollTo(next);
  };

  /** How many lines a page has. */
  #page(top: number): number {
    const rendered = this.props.wrap ? this.#rendered() : undefined;
    const lines = rendered
      ? wrapped.bottomLine(rendered).line - Math.floor(top)
      : Math.floor(this.state.height / this.state.rowHeight) - 2;
    return Math.max(1, lines);
  }

  #hash = (): void => {
    const target = hashLine();
    this.setState({ target });
    if (target !== undefined) this.#show(target);
  };

  #choose = (line: number): void => {
    history.replaceState(null, "", `#L${line + 1}`);
    say(`The address of this page leads to line ${count(line + 1)} now.`);
    const top = this.#now();
    this.props.setFollow(false);
    this.setState({ target: line, top });
  };

  override render(): VNode {
    const { length, times, wrap, follow, current, pattern } = this.props;
    const { rowHeight, height, target, skipped } = this.state;
    this.#lines.length = length;
    this.#lines.pattern = pattern;
    const { scale, top } = this.#view();
    const fits = Math.ceil(height / rowHeight);
    const first = wrap && follow ? Math.max(0, scale.lines - fits) : Math.floor(top);
    this.#first = first;
    const last = Math.min(scale.lines, first + fits + 1);
    if (!follow) {
      this.#followed = length.lines;
      this.#lines.want(first, last);
    }
    const rows: VNode[] = [];
    for (let number = first; number < last; number += 1) {
      rows.push(
        <Row
          key={number}
          number={number}
          line={this.#lines.at(number)}
          times={times}
          target={number === target}
          current={number === current?.line}
          choose={this.#choose}
        />,
      );
    }
    const digits = count(scale.lines).length;
    return (
      <div class="viewport">
        <div
          ref={this.#scroller}
          class="log"
          role="region"
          aria-label={`Log of ${this.props.log.name}`}
          tabIndex={0}
          onScroll={this.#scrolled}
          onKeyDown={this.#keys}
        >
          <div class={wrap ? "space wraps" : "space"} style={{ height: `${scale.height}px` }}>
            <div
              ref={this.#box}
              class={wrap ? `rows wraps ${follow ? "at-end" : ""}` : "rows"}
              style={{
                height: `${Math.max(0, Math.min(height, scale.height))}px`,
                "--digits": Math.max(4, digits),
              }}
            >
              <div style={wrap ? {} : { transform: `translateY(${-(top - first) * rowHeight}px)` }}>
                {rows}
              </div>
            </div>
          </div>
        </div>
        {skipped > 0 && (
          <p class="pill" role="status">
            Following. {many(skipped, "line")} passed too fast to show; scroll up to read them.
          </p>
        )}
      </div>
    );
  }
}
