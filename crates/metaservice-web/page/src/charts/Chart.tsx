import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { clock } from "../format";
import type { Plot, Values } from "./plot";

interface Series {
  label: string;
  /** The property of the style that has its colour. */
  color: "--accent" | "--c4" | "--c5";
  values: Values;
  filled?: boolean;
}

interface Props {
  title: string;
  times: number[];
  series: Series[];
  format: (value: number) => string;
  most?: number;
  steps?: "bytes" | "whole";
  group: string;
  /** What the curves say, for those who do not see them. */
  summary: string;
}

/** A chart with its legend, which has the values under the pointer, or else the last ones. */
export function Chart(props: Props): VNode {
  const { title, times, series, format, summary } = props;
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<Plot>(undefined);
  const [state, setState] = useState<"loading" | "open" | "failed">("loading");
  const [at, setAt] = useState<number>();
  const latest = useRef(props);
  latest.current = props;
  useEffect(() => {
    let isOver = false;
    import("./plot").then(
      ({ openPlot }) => {
        if (isOver || !box.current) return;
        const { most, steps, group } = latest.current;
        plot.current = openPlot(box.current, {
          series: latest.current.series,
          format: (value) => latest.current.format(value),
          most,
          steps,
          group,
          hover: setAt,
        });
        setState("open");
      },
      () => setState("failed"),
    );
    return () => {
      isOver = true;
      plot.current?.close();
    };
  }, []);
  useEffect(() => {
    plot.current?.update(
      times,
      series.map(({ values }) => values),
    );
  }, [times, state]);
  const shown = at !== undefined && at < times.length ? at : times.length - 1;
  return (
    <figure class="chart">
      <figcaption>
        <h2>{title}</h2>
        <span class="legend" aria-hidden="true">
          {series.map(({ label, color, values }) => {
            const value = values[shown];
            return (
              <span key={label} class={`key ${color.slice(2)}`}>
                {series.length > 1 && label} <b>{typeof value === "number" ? format(value) : "–"}</b>
              </span>
            );
          })}
          {at !== undefined && <span class="at">{clock(times[shown] ?? 0).slice(0, 8)}</span>}
        </span>
        <p class="vh">{summary}</p>
      </figcaption>
      <div class="plot" ref={box} aria-hidden="true">
        {state === "failed" && <p class="hint">The chart cannot be loaded.</p>}
      </div>
    </figure>
  );
}

const numbers = (values: Values): number[] => values.filter((value) => typeof value === "number");

/** The last, the least and the most of some values, in words. */
export function inWords(what: string, values: Values, format: (value: number) => string): string {
  const known = numbers(values);
  if (known.length === 0) return `${what}: nothing is known.`;
  const most = known.reduce((a, b) => Math.max(a, b));
  const mean = known.reduce((a, b) => a + b, 0) / known.length;
  return `${what}: now ${format(known.at(-1) ?? 0)}, on average ${format(mean)}, at most ${format(most)}.`;
}
