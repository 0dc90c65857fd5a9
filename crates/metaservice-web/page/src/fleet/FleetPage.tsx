import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Chart, inWords } from "../charts/Chart";
import { Feed, lost } from "../feed";
import { count, many, plainLine } from "../format";
import type { Tone } from "../jobs";
import { isQueue, session } from "../session";
import { Head } from "../ui/Head";
import { Link } from "../ui/Link";
import { Empty } from "../ui/States";

interface Worker {
  name: string;
  state: string;
  slots: number;
  running: number;
  /** How many machines wait for a job: all, or those of each image. */
  warm: number;
  reason?: string;
  labels: string[];
}

interface Tenant {
  name: string;
  running: number;
  waiting: number;
  maxRunning?: number;
  maxWaiting?: number;
}

interface Fleet {
  workers: Worker[];
  tenants: Tenant[];
  depth: { times: number[]; waiting: number[]; running: number[] };
}

export function FleetPage(): VNode {
  const [fleet, setFleet] = useState<Fleet | "none">();
  const queue = isQueue();
  useEffect(() => {
    document.title = "Workers · metaservice";
    if (!queue) return;
    const feed = new Feed<Fleet>("/api/fleet", setFleet, { refused: () => setFleet("none") });
    return () => feed.close();
  }, [queue]);
  const known = fleet === undefined || fleet === "none" ? undefined : fleet;
  const slots = known?.workers.reduce((sum, worker) => sum + worker.slots, 0) ?? 0;
  const running = known?.workers.reduce((sum, worker) => sum + worker.running, 0) ?? 0;
  return (
    <>
      <Head>
        <h1>Workers</h1>
        <p class="summary">
          {session.value.place && `${session.value.place}: `}
          {known && `${many(known.workers.length, "worker")}, ${running} of ${many(slots, "slot")} in use`}
        </p>
        <div class="actions">
          <Link class="button" to="/">
            Jobs
          </Link>
        </div>
      </Head>
      <main id="content" class={`fleet ${lost.value.count > 0 ? "stale" : ""}`}>
        {!queue ? (
          <Empty title="There are no workers here">
            <p>This page shows the jobs of a host. Workers belong to a queue.</p>
          </Empty>
        ) : fleet === undefined ? (
          <Empty title="Reading the workers" busy />
        ) : fleet === "none" ? (
          <Empty title="The workers cannot be read">
            <p>The server does not have them, or your role does not allow it.</p>
          </Empty>
        ) : (
          <Known fleet={fleet} />
        )}
      </main>
    </>
  );
}

function Known({ fleet }: { fleet: Fleet }): VNode {
  const { depth, tenants, workers } = fleet;
  const jobs = (value: number): string => count(Math.round(value));
  return (
    <div class="fleet-parts">
      <section class="fleet-depth" aria-label="The queue over time">
        <Chart
          title="Queue"
          group="fleet"
          steps="whole"
          times={depth.times}
          format={jobs}
          series={[
            { label: "waiting", color: "--c5", values: depth.waiting },
            { label: "running", color: "--accent", values: depth.running },
          ]}
          summary={`${inWords("Waiting jobs", depth.waiting, jobs)} ${inWords("Running jobs", depth.running, jobs)}`}
        />
      </section>
      <Tenants tenants={tenants} />
      <Workers workers={workers} />
    </div>
  );
}

function Tenants({ tenants }: { tenants: Tenant[] }): VNode {
  const of = (number: number, most: number | undefined): VNode => (
    <>
      {count(number)}
      {most !== undefined && <span class="dim-text"> of {count(most)}</span>}
    </>
  );
  return (
    <section class="fleet-tenants" aria-labelledby="tenants">
      <h2 id="tenants">Tenants</h2>
      {tenants.length === 0 ? (
        <p class="none">No tenant has jobs.</p>
      ) : (
        <table class="plain-table">
          <thead>
            <tr>
              <th scope="col">Tenant</th>
              <th scope="col" class="number">
                Running
              </th>
              <th scope="col" class="number">
                Waiting
              </th>
            </tr>
          </thead>
          <tbody>
            {tenants.map(({ name, running, waiting, maxRunning, maxWaiting }) => (
              <tr key={name}>
                <th scope="row">{plainLine(name)}</th>
                <td class="number">{of(running, maxRunning)}</td>
                <td class="number">{of(waiting, maxWaiting)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

function tone(state: string): Tone {
  if (["ready", "working", "idle", "busy", "running", "active", "up"].includes(state)) return "good";
  if (["gone", "lost", "dead"].includes(state)) return "bad";
  return "odd";
}

function Workers({ workers }: { workers: Worker[] }): VNode {
  if (workers.length === 0) {
    return (
      <section class="fleet-workers">
        <Empty title="No worker has joined the queue">
          <pre>
            <code>metaservice worker --queue {session.value.place || "URL"}</code>
          </pre>
        </Empty>
      </section>
    );
  }
  return (
    <section class="fleet-workers" aria-labelledby="workers">
      <h2 id="workers">Workers</h2>
      <table class="plain-table workers-table">
        <thead>
          <tr>
            <th scope="col">Worker</th>
            <th scope="col">State</th>
            <th scope="col">Slots</th>
            <th scope="col">Warm machines</th>
            <th scope="col">Labels</th>
          </tr>
        </thead>
        <tbody>
          {workers.map((worker) => (
            <tr key={worker.name}>
              <th scope="row">{plainLine(worker.name)}</th>
              <td>
                <span class={`state ${tone(worker.state)}`}>{plainLine(worker.state)}</span>
                {worker.reason !== undefined && <p class="dim-text">{plainLine(worker.reason)}</p>}
              </td>
              <td>
                <Slots of={worker.slots} running={worker.running} />
              </td>
              <td>
                {worker.warm > 0 ? count(worker.warm) : <span class="dim-text">–</span>}
              </td>
              <td>
                <span class="names">
                  {worker.labels.map((label) => (
                    <code key={label}>{plainLine(label)}</code>
                  ))}
                </span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

/** The slots as boxes, as long as they can be counted at a glance. */
function Slots(props: { of: number; running: number }): VNode {
  const { of, running } = props;
  return (
    <span class="slots">
      {of <= 16 && (
        <svg viewBox={`0 0 ${of * 10} 12`} width={of * 10} height="12" aria-hidden="true">
          {Array.from({ length: of }, (_, slot) => (
            <rect
              key={slot}
              x={slot * 10 + 0.5}
              y="0.5"
              width="8"
              height="11"
              rx="2"
              class={slot < running ? "used" : ""}
            />
          ))}
        </svg>
      )}
      <span>
        {count(running)} of {count(of)}
      </span>
    </span>
  );
}
