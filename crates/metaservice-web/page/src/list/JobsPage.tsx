import type { RefObject, VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { lost } from "../feed";
import { many, plainLine } from "../format";
import { filter, listing } from "../jobs";
import { reason } from "../server";
import { isQueue, may, session, signOut } from "../session";
import { say } from "../ui/Flash";
import { Head } from "../ui/Head";
import { isTyping } from "../ui/keys";
import { Link } from "../ui/Link";
import { type Item, Menu } from "../ui/Menu";
import { Empty } from "../ui/States";
import { JobRow } from "./JobRow";
import { counts, group, type Group, GROUPS, order, shown, sortBy, type SortKey } from "./order";
import { PruneDialog } from "./PruneDialog";
import { followUsage } from "./usage";

type Rows = RefObject<HTMLTableSectionElement | null>;

export function JobsPage(): VNode {
  const search = useRef<HTMLInputElement>(null);
  const rows = useRef<HTMLTableSectionElement>(null);
  useEffect(() => {
    document.title = "Jobs · metaservice";
    return followUsage();
  }, []);
  useListKeys(search, rows);
  return (
    <>
      <ListHead search={search} />
      <main id="content" class={`jobs ${lost.value.count > 0 ? "stale" : ""}`}>
        <Groups />
        <List rows={rows} />
      </main>
    </>
  );
}

function useListKeys(search: RefObject<HTMLInputElement | null>, rows: Rows): void {
  useEffect(() => {
    const keys = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { target } = event;
      if (document.querySelector("dialog[open]") || event.defaultPrevented) return;
      const typing = isTyping(target);
      if (event.key === "/" && !typing) {
        event.preventDefault();
        search.current?.focus();
      } else if (event.key === "Escape") {
        filter.value = "";
        group.value = "all";
      } else if (event.key === "ArrowDown" || (event.key === "j" && !typing)) {
        event.preventDefault();
        move(rows.current, 1);
      } else if (event.key === "ArrowUp" || (event.key === "k" && !typing)) {
        event.preventDefault();
        move(rows.current, -1);
      }
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  }, []);
}

function ListHead(props: { search: RefObject<HTMLInputElement | null> }): VNode {
  const { known, jobs, more } = listing.value;
  const [prunes, setPrunes] = useState(false);
  const ended = jobs.filter((job) => job.ended).length;
  const waiting = jobs.filter((job) => job.state === "waiting" && !job.ended).length;
  const silent = jobs.filter((job) => job.state === "silent" && !job.ended).length;
  const live = jobs.length - ended - waiting - silent;
  const states = [`${live} running`, `${ended} ended`];
  if (waiting > 0) states.splice(1, 0, `${waiting} waiting`);
  if (silent > 0) states.push(silent === 1 ? "1 does not answer" : `${silent} do not answer`);
  const { can, place, user, role } = session.value;
  const items: Item[] = [];
  if (can.remove && may("admin") && ended > 0) {
    items.push({ text: "Remove ended jobs…", act: () => setPrunes(true), danger: true });
  }
  // A proxy signs its users in and out.
  if (can.signOut) {
    items.push({
      text: "Sign out",
      act: () =>
        void signOut().catch((error) => say(`You are not signed out: ${reason(error)}.`, true)),
    });
  }
  return (
    <Head>
      <h1>Jobs</h1>
      <p class="summary">
        {place && `${place}: `}
        {known && states.join(", ")}
        {more > 0 && `, ${many(more, "older one")} not listed`}
        {user !== null && ` · ${plainLine(user)} (${role})`}
      </p>
      <div class="field">
        <input
          ref={props.search}
          type="search"
          placeholder="Filter"
          aria-label="Filter jobs by name, state, command or image"
          aria-keyshortcuts="/"
          value={filter.value}
          onInput={(event) => {
            filter.value = event.currentTarget.value;
          }}
        />
        <kbd aria-hidden="true">/</kbd>
      </div>
      <div class="actions">
        {isQueue() && (
          <Link class="button" to="/workers">
            Workers
          </Link>
        )}
        {can.run && may("operate") && (
          <Link class="button primary" to="/run">
            Run a job
          </Link>
        )}
        {items.length > 0 && <Menu label="More" items={items} />}
      </div>
      {prunes && <PruneDialog close={() => setPrunes(false)} />}
    </Head>
  );
}

/** Chooses the jobs by their state. */
function Groups(): VNode | null {
  const { known, jobs } = listing.value;
  if (!known || jobs.length === 0) return null;
  const names = (Object.keys(GROUPS) as Group[]).filter(
    (name) =>
      counts.value[name] > 0 || name === group.value || ["running", "failed", "succeeded"].includes(name),
  );
  return (
    <div class="groups" role="group" aria-label="Show jobs by state">
      {names.map((name) => (
        <button
          key={name}
          type="button"
          aria-pressed={group.value === name}
          onClick={() => {
            group.value = name;
          }}
        >
          {GROUPS[name]} <span class="count">{counts.value[name]}</span>
        </button>
      ))}
    </div>
  );
}

function List(props: { rows: Rows }): VNode {
  const { known, jobs } = listing.value;
  if (!known) return <Empty title="Loading the jobs" busy />;
  if (jobs.length === 0) {
    const verb = isQueue() ? "submit" : "run -d --name build";
    return (
      <Empty title="No jobs yet">
        <p>Start one here, or in a terminal. It appears at once.</p>
        <pre>
          <code>metaservice {verb} -- make test</code>
        </pre>
      </Empty>
    );
  }
  if (shown.value.length === 0) {
    const words = filter.value.trim();
    return (
      <Empty title={words ? `No job matches “${words}”` : "No job is in this state"}>
        <button
          type="button"
          onClick={() => {
            filter.value = "";
            group.value = "all";
          }}
        >
          Show all jobs
        </button>
      </Empty>
    );
  }
  const queue = isQueue();
  return (
    <table class={queue ? "joblist of-queue" : "joblist"}>
      <thead>
        <tr>
          <Column by="state">State</Column>
          <Column by="name">Name</Column>
          <Column by="command">Command</Column>
          <Column by="cpu">CPU</Column>
          <Column by="memory">Memory</Column>
          <Column by="image">Image</Column>
          {queue && (
            <>
              <Column by="tenant">Tenant</Column>
              <Column by="worker">Worker</Column>
            </>
          )}
          <Column by="started" kind="c-age number">
            Started
          </Column>
          <Column by="took" kind="c-took number">
            Took
          </Column>
        </tr>
      </thead>
      <tbody ref={props.rows}>
        {shown.value.map((job) => (
          <JobRow key={`${job.name} ${job.startedMs}`} job={job} />
        ))}
      </tbody>
    </table>
  );
}

function Column(props: { by: SortKey; kind?: string; children: string }): VNode {
  const { key, down } = order.value;
  const isSorted = key === props.by;
  return (
    <th
      scope="col"
      class={props.kind ?? `c-${props.by}`}
      aria-sort={isSorted ? (down ? "descending" : "ascending") : undefined}
    >
      <button type="button" onClick={() => sortBy(props.by)}>
        {props.children}
        <svg class="chevron" viewBox="0 0 12 12" aria-hidden="true">
          <path d={isSorted && !down ? "M3 7.5l3-3 3 3" : "M3 4.5l3 3 3-3"} />
        </svg>
      </button>
    </th>
  );
}

/** Moves the focus to another job. */
function move(rows: HTMLTableSectionElement | null, by: number): void {
  const links = [...(rows?.querySelectorAll<HTMLAnchorElement>("th a") ?? [])];
  const at = links.findIndex((link) => link === document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by;
  links[Math.max(0, Math.min(links.length - 1, next))]?.focus();
}
