import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Chart, inWords } from "../charts/Chart";
import type { Values } from "../charts/plot";
import { Feed } from "../feed";
import { bytes, count, duration } from "../format";
import { jobApi } from "../server";
import type { Ending } from "../types";
import { Empty } from "../ui/States";

/** What a machine used over the life of its job. All lists have the same length. */
interface Stats {
  live: boolean;
  cpus: number;
  memoryTotal: number;
  rootTotal: number;
  /** Milliseconds since 1970. */
  times: number[];
  /** Percent of all processors. */
  cpu: Values;
  /** Bytes. */
  memory: Values;
  /** Bytes a second. */
  diskRead: Values;
  diskWritten: Values;
  networkReceived: Values;
  networkSent: Values;
  rootFree: Values;
  processes: Values;
}

const percent = (value: number): string => `${Math.round(value)} %`;
const rate = (value: number): string => `${bytes(value)}/s`;

interface Props {
  name: string;
  started: number | undefined;
  /** What is known of the end of the job. */
  ending: Ending | undefined;
}

export function StatsTab({ name, started, ending }: Props): VNode {
  const [stats, setStats] = useState<Stats | "none">();
  useEffect(() => {
    if (started === undefined) return;
    setStats(undefined);
    const feed = new Feed<Stats>(`${jobApi(name)}/stats?started=${started}`, setStats, {
      isLast: ({ live }) => !live,
      refused: () => setStats("none"),
    });
    return () => feed.close();
  }, [name, started]);
  return (
    <main id="content" class="scrolls" tabIndex={0}>
      {stats === undefined ? (
        <Empty title="Reading the stats" busy />
      ) : stats === "none" || (!stats.live && stats.times.length === 0) ? (
        <Empty title="There are no stats of this job">
          <p>The server has them of jobs that it has seen running.</p>
          {ending?.peakMemory !== undefined && (
            <p>The largest process of the command used {bytes(ending.peakMemory)} of memory.</p>
          )}
        </Empty>
      ) : stats.times.length === 0 ? (
        <Empty title="No stats yet">
          <p>They appear when the agent in the guest answers.</p>
        </Empty>
      ) : (
        <Charts stats={stats} />
      )}
    </main>
  );
}

function Charts({ stats }: { stats: Stats }): VNode {
  const { times, cpus, memoryTotal, rootTotal } = stats;
  const span = (times.at(-1) ?? 0) - (times[0] ?? 0);
  const free = stats.rootFree.at(-1);
  const processes = stats.processes.at(-1);
  const used = stats.rootFree.map((free) => (free === null ? null : rootTotal - free));
  return (
    <>
      <p class="stats-line">
        <span>
          {stats.live ? "Live" : "The job has ended"}, {duration(span)}
        </span>
        <span>
          {count(cpus)} {cpus === 1 ? "processor" : "processors"}
        </span>
        <span>{bytes(memoryTotal)} of memory</span>
        {typeof free === "number" && (
          <span>
            {bytes(free)} of {bytes(rootTotal)} free on /
          </span>
        )}
        {typeof processes === "number" && <span>{count(processes)} processes</span>}
      </p>
      <div class="charts">
        <Chart
          title="Processors"
          group="stats"
          times={times}
          most={100}
          format={percent}
          series={[{ label: "used", color: "--accent", values: stats.cpu, filled: true }]}
          summary={inWords("Processors", stats.cpu, percent)}
        />
        <Chart
          title="Memory"
          group="stats"
          times={times}
          most={memoryTotal}
          steps="bytes"
          format={bytes}
          series={[{ label: "used", color: "--accent", values: stats.memory, filled: true }]}
          summary={inWords("Memory", stats.memory, bytes)}
        />
        <Chart
          title="Disk space"
          group="stats"
          times={times}
          most={rootTotal}
          steps="bytes"
          format={bytes}
          series={[{ label: "used", color: "--accent", values: used, filled: true }]}
          summary={inWords("Disk space", used, bytes)}
        />
        <Chart
          title="Disk traffic"
          group="stats"
          times={times}
          steps="bytes"
          format={rate}
          series={[
            { label: "read", color: "--accent", values: stats.diskRead },
            { label: "written", color: "--c5", values: stats.diskWritten },
          ]}
          summary={`${inWords("Read", stats.diskRead, rate)} ${inWords("Written", stats.diskWritten, rate)}`}
        />
        <Chart
          title="Network traffic"
          group="stats"
          times={times}
          steps="bytes"
          format={rate}
          series={[
            { label: "received", color: "--accent", values: stats.networkReceived },
            { label: "sent", color: "--c5", values: stats.networkSent },
          ]}
          summary={`${inWords("Received", stats.networkReceived, rate)} ${inWords("Sent", stats.networkSent, rate)}`}
        />
      </div>
    </>
  );
}
