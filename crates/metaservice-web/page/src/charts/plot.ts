// A chart by uPlot. This module and uPlot are loaded when a chart is shown. uPlot sets its styles by
// the object model, which the policy of the page allows.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export type Values = (number | null)[];

export interface PlotOptions {
  /** A name, and the property of the style that has its colour. */
  series: { label: string; color: string; filled?: boolean }[];
  format: (value: number) => string;
  /** The top of the scale; without one, that of the values. */
  most?: number | undefined;
  /** The steps of the scale: those of bytes, or those of things that are counted. */
  steps?: "bytes" | "whole" | undefined;
  /** Charts of one group show the same time. */
  group: string;
  /** Called with the index of the time under the pointer. */
  hover: (index: number | undefined) => void;
}

export interface Plot {
  update: (times: number[], series: Values[]) => void;
  close: () => void;
}

const STEPS = {
  bytes: Array.from({ length: 50 }, (_, power) => 2 ** power),
  whole: Array.from({ length: 8 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat(),
};

function options(box: HTMLElement, chart: PlotOptions): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const color = (name: string): string => style.getPropertyValue(name).trim();
  const size = Math.round(parseFloat(style.fontSize) * 0.75);
  const axis: uPlot.Axis = {
    stroke: color("--dim"),
    font: `${size}px system-ui, sans-serif`,
    grid: { stroke: color("--line"), width: 1 },
    ticks: { show: false },
  };
  return {
    width: Math.max(1, box.clientWidth),
    height: Math.max(1, box.clientHeight),
    legend: { show: false },
    padding: [8, 8, 0, 0],
    cursor: {
      sync: { key: chart.group },
      points: { size: 6 },
      y: false,
    },
    scales: {
      y: {
        range: (_plot, _low, high) => [
          0,
          chart.most ?? Math.max(high * 1.1, chart.steps === "bytes" ? 1024 : 1),
        ],
      },
    },
    series: [
      {},
      ...chart.series.map((series): uPlot.Series => ({
        label: series.label,
        stroke: color(series.color),
        width: 1.5,
        points: { show: false },
        ...(series.filled && { fill: color("--tint") }),
      })),
    ],
    axes: [
      { ...axis, space: size * 7, values: TIMES },
      {
        ...axis,
        size: size * 6,
        space: size * 3,
        ...(chart.steps && { incrs: STEPS[chart.steps] }),
        values: (_plot, splits) => splits.map((value) => chart.format(value)),
      },
    ],
    hooks: {
      setCursor: [(plot) => chart.hover(plot.cursor.idx ?? undefined)],
    },
  };
}

/** Times in 24 hours, with the day where it changes. */
const TIMES: uPlot.Axis.Values = [
  [86_400, "{D} {MMM}", null, null, null, null, null, null, 0],
  [60, "{HH}:{mm}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
];

/** Makes a chart in this element, with its size. */
export function openPlot(box: HTMLElement, chart: PlotOptions): Plot {
  let data: uPlot.AlignedData = [[], ...chart.series.map(() => [])];
  let plot = new uPlot(options(box, chart), data, box);
  const isZoomed = (): boolean => {
    const [times] = data;
    const { min, max } = plot.scales["x"] ?? {};
    if (typeof min !== "number" || typeof max !== "number" || times.length === 0) return false;
    return min > (times[0] ?? 0) || max < (times.at(-1) ?? 0);
  };
  const observer = new ResizeObserver(() => {
    if (box.clientWidth > 0) plot.setSize({ width: box.clientWidth, height: box.clientHeight });
  });
  observer.observe(box);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const recolor = (): void => {
    plot.destroy();
    plot = new uPlot(options(box, chart), data, box);
  };
  scheme.addEventListener("change", recolor);
  return {
    update(times, series) {
      const zoomed = isZoomed();
      data = [times.map((ms) => ms / 1000), ...series];
      plot.setData(data, !zoomed);
      // With new values the scale of the values changes, that of the time stays.
      if (zoomed) plot.redraw();
    },
    close() {
      observer.disconnect();
      scheme.removeEventListener("change", recolor);
      plot.destroy();
    },
  };
}
