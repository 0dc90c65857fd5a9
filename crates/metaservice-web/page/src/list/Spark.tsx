import type { VNode } from "preact";

const POINTS = 60;
const HEIGHT = 16;

/** A small curve of the last values, and the last one as text. */
export function Spark(props: { values: number[]; most: number; text: string; what: string }): VNode {
  const { values, most, text, what } = props;
  const first = POINTS - values.length;
  const y = (value: number): string =>
    (HEIGHT - 1 - (Math.max(0, Math.min(most, value)) / (most || 1)) * (HEIGHT - 2)).toFixed(1);
  const line = values.map((value, index) => `${first + index},${y(value)}`).join(" ");
  return (
    <span class="spark">
      <svg viewBox={`0 0 ${POINTS - 1} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
        <line x1="0" y1={HEIGHT - 1} x2={POINTS - 1} y2={HEIGHT - 1} />
        {values.length > 1 && (
          <>
            <polygon points={`${first},${HEIGHT} ${line} ${POINTS - 1},${HEIGHT}`} />
            <polyline points={line} />
          </>
        )}
      </svg>
      <span class="vh">{what}: </span>
      <span class="spark-text">{text}</span>
    </span>
  );
}
