import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { lost } from "../feed";
import { plain, plainLine } from "../format";
import { find } from "../jobs";
import { FilesTab } from "../files/FilesTab";
import { attemptOf } from "../log/api";
import { LogTab } from "../log/LogTab";
import { go, jobPath, type Tab, TABS } from "../route";
import { Head } from "../ui/Head";
import { useKeys } from "../ui/keys";
import { Link } from "../ui/Link";
import { Empty } from "../ui/States";
import { StateWord } from "../ui/StateWord";
import { Actions } from "./Actions";
import { NetworkTab } from "../network/NetworkTab";
import { StatsTab } from "../stats/StatsTab";
import { TerminalTab } from "../terminal/TerminalTab";
import { attemptsOf } from "./attempts";
import { DetailsTab } from "./DetailsTab";
import { useDetails } from "./useDetails";
import { sentence } from "./words";

const TITLES: Record<Tab, string> = {
  log: "Log",
  terminal: "Terminal",
  files: "Files",
  stats: "Stats",
  network: "Network",
  details: "Details",
};

export function JobPage(props: { name: string; tab: Tab; query: string }): VNode {
  const { name } = props;
  const { tab } = props;
  const tabs = useRef<HTMLElement>(null);
  const job = find(name);
  const [known, again] = useDetails(name, job);
  useEffect(() => {
    // On a small screen they do not fit side by side.
    tabs.current
      ?.querySelector('[aria-current="page"]')
      ?.scrollIntoView({ block: "nearest", inline: "nearest" });
    document.title = `${plainLine(name)} · ${TITLES[tab]} · metaservice`;
  }, [name, tab]);
  useKeys((event) => {
    const to = TABS[Number(event.key) - 1];
    if (event.key === "u") go("/");
    else if (to) go(jobPath(name, to));
  });
  const details = known.state === "known" ? known.details : undefined;
  const facts = details?.job;
  const why = job?.state === "waiting" ? details?.why : undefined;
  const attempts = attemptsOf(job, details);
  const asked = attemptOf(props.query);
  // The address of the last attempt has no number.
  const attempt = asked === attempts.length ? undefined : asked;
  const started = job?.startedMs ?? facts?.startedMs;
  // A machine that is kept has ended its command, and has shells all the same.
  const runs = job ? !job.ended && job.state !== "silent" : known.state === "known" && !known.details.ended;
  const [terminal, setTerminal] = useState(tab === "terminal");
  useEffect(() => setTerminal((before) => before || tab === "terminal"), [tab]);
  const isMissing = !job && known.state === "none" && known.code === "NotFound";
  const command = plainLine(job?.command ?? facts?.command.join(" ") ?? "");
  return (
    <div class={`job-page ${lost.value.count > 0 ? "stale" : ""}`}>
      <Head>
        <h1 title={name}>{plainLine(job?.label ?? name)}</h1>
        {(job ?? facts) && <StateWord job={job ?? facts ?? { state: "" }} />}
        <p class="summary" title={command}>
          <code>{command}</code>
        </p>
        {job && <Actions job={job} />}
      </Head>
      <p class="why" role="status">
        {why !== undefined && `The job waits. ${sentence(plain(why))}`}
      </p>
      <nav class="tabs" ref={tabs} aria-label="Views of the job">
        {TABS.map((each) => (
          <Link key={each} to={jobPath(name, each)} current={each === tab}>
            {TITLES[each]}
          </Link>
        ))}
      </nav>
      {isMissing && tab !== "log" && <Missing name={name} />}
      {tab === "log" && (
        <LogTab key={attempt} name={name} job={job} attempt={attempt} attempts={attempts} />
      )}
      {!isMissing && terminal && (
        <TerminalTab
          key={started}
          name={name}
          started={runs ? started : undefined}
          shown={tab === "terminal"}
        />
      )}
      {tab === "files" && (
        <FilesTab name={name} started={runs ? started : undefined} query={props.query} details={details} />
      )}
      {!isMissing && tab === "stats" && (
        <StatsTab name={name} started={started} ending={facts?.ending} />
      )}
      {!isMissing && tab === "network" && <NetworkTab name={name} started={started} spec={details?.spec} />}
      {!isMissing && tab === "details" && <DetailsTab known={known} attempts={attempts} again={again} />}
    </div>
  );
}

function Missing({ name }: { name: string }): VNode {
  return (
    <main id="content">
      <Empty title={`There is no job named ${plainLine(name)}`}>
        <p>It was removed, or it never ran here.</p>
      </Empty>
    </main>
  );
}
