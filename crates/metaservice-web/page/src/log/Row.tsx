import type { VNode } from "preact";
import { memo } from "preact/compat";
import { readable } from "./color";
import { clock, count } from "../format";
import type { CachedLine } from "./lines";
import type { Span } from "../types";

interface Props {
  number: number;
  line: CachedLine | undefined;
  times: boolean;
  target: boolean;
  current: boolean;
  choose: (line: number) => void;
}

/** A line. What the guest wrote is text, never markup. */
export const Row = memo(function Row(props: Props): VNode {
  const { number, line, times } = props;
  const stderr = line?.spans.some((span) => span.e) ?? false;
  const looks = ["row", stderr && "err", props.target && "target", props.current && "current"];
  return (
    <div class={looks.filter(Boolean).join(" ")}>
      <a
        class="no"
        title="Link to this line"
        href={`#L${number + 1}`}
        tabIndex={-1}
        onClick={(event) => {
          event.preventDefault();
          props.choose(number);
        }}
      >
        {count(number + 1)}
      </a>
      {times && <span class="time">{line?.ms === undefined ? "" : clock(line.ms)}</span>}
      {stderr && <span class="vh">stderr: </span>}
      <span class="text" title={stderr ? "stderr" : undefined}>
        {line?.gone ? <i class="gone">no longer kept</i> : line && pieces(line)}
        {line?.cut && <i class="gone"> … the rest of this line is in the download</i>}
      </span>
    </div>
  );
});

/** The spans, cut where marks begin and end. */
function pieces(line: CachedLine): VNode[] {
  const marks = line.marks ?? [];
  const made: VNode[] = [];
  let at = 0;
  for (const span of line.spans) {
    const end = at + span.t.length;
    let from = at;
    for (const [begin, over] of marks) {
      if (over <= from || begin >= end) continue;
      if (begin > from) made.push(piece(span, at, from, begin, false));
      const to = Math.min(over, end);
      made.push(piece(span, at, Math.max(begin, from), to, true));
      from = to;
    }
    if (from < end) made.push(piece(span, at, from, end, false));
    at = end;
  }
  return made;
}

function piece(span: Span, at: number, from: number, to: number, marked: boolean): VNode {
  const text = span.t.slice(from - at, to - at);
  const color = span.f === undefined ? {} : { color: readable(span.f, span.b) };
  const behind = span.b === undefined ? {} : { backgroundColor: span.b };
  const look = { class: names(span.s), style: { ...color, ...behind } };
  return marked ? (
    <mark key={from}>{text}</mark>
  ) : (
    <span key={from} {...look}>
      {text}
    </span>
  );
}

/** The classes of a style. "swap" exchanges the colours of the text and behind it. */
function names(style: string | undefined): string {
  if (!style?.includes("swap")) return style ?? "";
  const words = style.split(" ");
  const swapped = words.map((word) =>
    /^f\d/.test(word) ? `b${word.slice(1)}` : /^b\d/.test(word) ? `f${word.slice(1)}` : word,
  );
  if (!words.some((word) => /^f\d/.test(word))) swapped.push("b-text");
  if (!words.some((word) => /^b\d/.test(word))) swapped.push("f-page");
  return swapped.join(" ");
}
