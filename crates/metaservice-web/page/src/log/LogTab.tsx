import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { bytes, count, duration, many } from "../format";
import { listing, now } from "../jobs";
import { Refused } from "../server";
import { isQueue } from "../session";
import type { Attempt, Job, LogLength } from "../types";
import { useKeys } from "../ui/keys";
import { logApi } from "./api";
import { ChooseAttempt } from "./ChooseAttempt";
import { LogView, type Match } from "./LogView";
import { Search } from "./Search";
import { type Opened, useLog } from "./useLog";

interface Props {
  name: string;
  job: Job | undefined;
  /** Which of the attempts. Without a number, it is the last one. */
  attempt: number | undefined;
  attempts: Attempt[];
}

export function LogTab({ name, job, attempt, attempts }: Props): VNode {
  const log = { name, attempt };
  const [opened, again] = useLog(log);
  const [follow, setFollow] = useState(location.hash === "");
  const [times, setTimes] = useState(false);
  const [wrap, setWrap] = useState(false);
  const [pattern, setPattern] = useState<string>();
  const [current, setCurrent] = useState<Match>();
  const view = useRef<LogView>(null);
  // A new job of this name has replaced the one whose log is open.
  const newer = useRef(0);
  useEffect(() => {
    if (attempt !== undefined || opened.state !== "open" || !job || job.startedMs <= opened.started) return;
    if (newer.current === job.startedMs) return;
    newer.current = job.startedMs;
    again();
  });
  // A job that waits has no log yet.
  useEffect(() => {
    if (opened.state === "none") again();
  }, [job?.state, job?.startedMs]);
  useKeys((event) => {
    if (event.key === "f") setFollow(!follow);
    else if (event.key === "t") setTimes(!times);
    else if (event.key === "z") setWrap(!wrap);
  });
  return (
    <>
      <main id="content">
        <div class="toolbar">
          {opened.state === "open" && (
            <Search
              log={log}
              started={opened.started}
              length={opened.length}
              top={() => view.current?.top ?? 0}
              show={setCurrent}
              setPattern={setPattern}
            />
          )}
          <div class="tools">
            {attempts.length > 1 && <ChooseAttempt log={log} attempts={attempts} />}
            <Toggle text="Follow" on={follow} set={setFollow} />
            <Toggle text="Times" on={times} set={setTimes} />
            <Toggle text="Wrap" on={wrap} set={setWrap} />
            <a class="button" href={logApi(log, "/download")} download>
              Download
            </a>
          </div>
        </div>
        <Body opened={opened} again={again} name={name} waits={isQueue() && job?.state === "waiting"}>
          {opened.state === "open" && (
            <LogView
              key={opened.started}
              ref={view}
              log={log}
              started={opened.started}
              length={opened.length}
              times={times}
              wrap={wrap}
              follow={follow}
              pattern={pattern}
              current={current}
              setFollow={setFollow}
              failed={(error) => {
                if (error instanceof Refused && error.code === "Gone") again();
              }}
            />
          )}
        </Body>
      </main>
      <Foot length={opened.state === "open" ? opened.length : undefined} job={job} attempt={attempt} />
    </>
  );
}

function Toggle(props: { text: string; on: boolean; set: (on: boolean) => void }): VNode {
  return (
    <button type="button" aria-pressed={props.on} onClick={() => props.set(!props.on)}>
      {props.text}
    </button>
  );
}

function Body(props: {
  opened: Opened;
  again: () => void;
  name: string;
  waits: boolean;
  children: VNode | false;
}): VNode {
  const { opened, again, name } = props;
  if (opened.state === "none" && props.waits) {
    return (
      <div class="empty" role="status">
        <h2>The job waits</h2>
        <p>Its log begins when a worker takes the job.</p>
      </div>
    );
  }
  if (opened.state === "loading") {
    return (
      <div class="empty" role="status" aria-busy="true">
        <h2>Opening the log</h2>
      </div>
    );
  }
  if (opened.state === "none") {
    const titles: Record<string, string> = {
      NotFound: `There is no job named ${name}`,
      NoLog: "No log of this job is kept",
    };
    return (
      <div class="empty" role="alert">
        <h2>{titles[opened.code] ?? "The log cannot be read"}</h2>
        <p>
          {opened.code === "NotFound"
            ? "It was removed, or it never ran on this host."
            : `The server says: ${opened.message}.`}
        </p>
        <button type="button" onClick={again}>
          Try again
        </button>
      </div>
    );
  }
  const { length } = opened;
  if (length.lines === 0) {
    return (
      <div class="empty" role="status">
        {length.state === "open" ? (
          <>
            <h2>Nothing yet</h2>
            <p>The command has written nothing. Its first line appears here.</p>
          </>
        ) : (
          <>
            <h2>The log is empty</h2>
            <p>The command has written nothing.</p>
          </>
        )}
      </div>
    );
  }
  return <>{props.children}</>;
}

/** What is known of the log as a whole. */
function Foot(props: {
  length: LogLength | undefined;
  job: Job | undefined;
  attempt: number | undefined;
}): VNode {
  const { length, attempt } = props;
  // The times and the status of the job are those of its last attempt.
  const job = attempt === undefined ? props.job : undefined;
  const what = attempt === undefined ? "The job" : `Attempt ${attempt}`;
  // It has its height before there is a log.
  if (!length) return <footer class="foot">&nbsp;</footer>;
  const isKnown = listing.value.known && job !== undefined;
  const took = isKnown && job.startedMs > 0 ? (job.endedMs ?? now.value) - job.startedMs : undefined;
  const state =
    length.state === "complete"
      ? job?.status === undefined
        ? `${what} has ended`
        : `${what} has ended with exit status ${job.status}`
      : length.state === "broken"
        ? "The log can no longer be read"
        : `${what} writes its log`;
  return (
    <footer class="foot">
      <span role="status" class={length.state}>
        {state}
      </span>
      <span>{many(length.lines, "line")}</span>
      <span>{bytes(length.bytes)}</span>
      {length.missed > 0 && <span class="odd">{bytes(length.missed)} before them are no longer kept</span>}
      {length.first > 0 && length.missed === 0 && (
        <span class="odd">begins at line {count(length.first + 1)}</span>
      )}
      {took !== undefined && took >= 0 && <span>{duration(took)}</span>}
    </footer>
  );
}
