import type { VNode } from "preact";
import { useEffect } from "preact/hooks";
import { lost } from "../feed";
import { find } from "../jobs";
import { LogTab } from "../log/LogTab";
import { go, jobPath, type Tab, TABS } from "../route";
import { Head } from "../ui/Head";
import { useKeys } from "../ui/keys";
import { Link } from "../ui/Link";
import { StateWord } from "../ui/StateWord";
import { Actions } from "./Actions";
import { DetailsTab } from "./DetailsTab";
import { useDetails } from "./useDetails";

const TITLES: Record<Tab, string> = {
  log: "Log",
  terminal: "Terminal",
  files: "Files",
  stats: "Stats",
  network: "Network",
  details: "Details",
};

/** The tabs that there are. */
const SHOWN: Tab[] = TABS.filter((tab) => tab === "log" || tab === "details");

export function JobPage(props: { name: string; tab: Tab; query: string }): VNode {
  const { name } = props;
  const tab = SHOWN.includes(props.tab) ? props.tab : "log";
  const job = find(name);
  const [known, again] = useDetails(name, job);
  useEffect(() => {
    document.title = `${name} · ${TITLES[tab]} · metaservice`;
  }, [name, tab]);
  useKeys((event) => {
    const to = SHOWN[Number(event.key) - 1];
    if (event.key === "u") go("/");
    else if (to) go(jobPath(name, to));
  });
  const facts = known.state === "known" ? known.details.job : undefined;
  const command = job?.command ?? facts?.command.join(" ");
  return (
    <div class={`job-page ${lost.value.count > 0 ? "stale" : ""}`}>
      <Head>
        <h1 title={name}>{job?.label ?? name}</h1>
        {(job ?? facts) && <StateWord job={job ?? facts ?? { state: "" }} />}
        <p class="summary" title={command}>
          <code>{command}</code>
        </p>
        {job && <Actions job={job} />}
      </Head>
      <nav class="tabs" aria-label="Views of the job">
        {SHOWN.map((each) => (
          <Link key={each} to={jobPath(name, each)} current={each === tab}>
            {TITLES[each]}
          </Link>
        ))}
      </nav>
      {tab === "log" && <LogTab name={name} job={job} />}
      {tab === "details" && <DetailsTab name={name} known={known} again={again} />}
    </div>
  );
}
