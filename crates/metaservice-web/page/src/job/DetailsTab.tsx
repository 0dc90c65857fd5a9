import type { VNode } from "preact";
import { dateTime, many, plain } from "../format";
import { jobPath } from "../route";
import { quote } from "../run/shell";
import type { Attempt, Details } from "../types";
import { logAddress } from "../log/api";
import { Copy } from "../ui/Copy";
import { Link } from "../ui/Link";
import { Empty, Problem } from "../ui/States";
import { Artifacts } from "./Artifacts";
import { asText, sections } from "./facts";
import { Part } from "./Part";
import type { Known } from "./useDetails";
import { sentence, verdict } from "./words";

export function DetailsTab(props: { known: Known; attempts: Attempt[]; again: () => void }): VNode {
  const { known, attempts, again } = props;
  return (
    <main id="content" class="scrolls">
      {known.state === "loading" ? (
        <Empty title="Reading the details" busy />
      ) : known.state === "none" ? (
        <Problem title="The details cannot be read" message={known.message} again={again} />
      ) : (
        <Found details={known.details} attempts={attempts} />
      )}
    </main>
  );
}

function Found({ details, attempts }: { details: Details; attempts: Attempt[] }): VNode {
  const { job, artifacts, error, spec } = details;
  const console = details.console ?? [];
  const found = verdict(details);
  const command = job.command.map(quote).join(" ");
  const env = job.env ?? [];
  return (
    <div class="details">
      <section class={`verdict ${found.tone}`} aria-label="What became of the job">
        <h2>{plain(found.says)}</h2>
        {details.why !== undefined && <p>{sentence(plain(details.why))}</p>}
        {error !== undefined && <p class="error">{sentence(plain(error))}</p>}
        {found.help !== undefined && <p>{found.help}</p>}
        <div class="tools">
          <Link class="button" to={jobPath(job.name)}>
            Log
          </Link>
          <Copy
            text={() => asText(details, found.says, command)}
            what="all details as text"
            label="Copy all"
          />
        </div>
      </section>
      <Part title="Command" tools={<Copy text={() => command} what="the command" />}>
        <pre class="block">
          <code>{plain(command) || "the command of the image"}</code>
        </pre>
      </Part>
      {artifacts.length > 0 && <Artifacts name={job.name} started={job.startedMs} artifacts={artifacts} />}
      {console.length > 0 && (
        <Part
          title="Last lines of the console"
          tools={<Copy text={() => `${console.join("\n")}\n`} what="the console" />}
        >
          <pre class="block" tabIndex={0} role="region" aria-label="Last lines of the console">
            <code>{plain(console.join("\n"))}</code>
          </pre>
        </Part>
      )}
      <div class="grid">
        {sections(details).map(({ title, facts }) => (
          <Part key={title} title={title}>
            <dl class="facts">
              {facts.map(([name, value]) => (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>{value}</dd>
                </div>
              ))}
            </dl>
          </Part>
        ))}
        <Part title="Environment">
          {env.length === 0 ? (
            <p class="none">The command has no variables of its own.</p>
          ) : (
            <>
              <ul class="names">
                {env.map((name) => (
                  <li key={name}>
                    <code>{plain(name)}</code>
                  </li>
                ))}
              </ul>
              <p class="none">The values are not shown: they can be secrets.</p>
            </>
          )}
        </Part>
      </div>
      {attempts.length > 0 && <Attempts name={job.name} attempts={attempts} />}
      {spec && <Description text={JSON.stringify(spec, null, 2)} />}
    </div>
  );
}

function Attempts({ name, attempts }: { name: string; attempts: Attempt[] }): VNode {
  const last = attempts.length;
  return (
    <Part title={many(last, "attempt")}>
      <ul class="lines columns-5">
        {attempts.map(({ number, worker, startedMs, outcome }) => (
          <li key={number}>
            <b>{number}</b>
            <span class="grow">{worker !== undefined && plain(worker)}</span>
            <span class="dim-text">{startedMs !== undefined && dateTime(startedMs)}</span>
            <span>{plain(outcome ?? (number < last ? "ended without a result" : startedMs ? "runs" : ""))}</span>
            <Link
              class="button"
              label={`Log of attempt ${number}`}
              to={logAddress({ name, attempt: number === last ? undefined : number })}
            >
              Log
            </Link>
          </li>
        ))}
      </ul>
    </Part>
  );
}

function Description(props: { text: string }): VNode {
  return (
    <Part title="Description" tools={<Copy text={() => props.text} what="the description" />}>
      <details>
        <summary>What the job was started with, for --spec</summary>
        <pre class="block">
          <code>{plain(props.text)}</code>
        </pre>
      </details>
    </Part>
  );
}
