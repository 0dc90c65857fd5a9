import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { listing } from "../jobs";
import { go, jobPath } from "../route";
import { get, jobApi, post, reason } from "../server";
import { isQueue, may, session } from "../session";
import type { Details, JobSpec } from "../types";
import { Copy } from "../ui/Copy";
import { say } from "../ui/Flash";
import { Head } from "../ui/Head";
import { Empty, Problem } from "../ui/States";
import { sentence } from "../job/words";
import { commandLine } from "./commandLine";
import { BLANK, describe, type Errors, type Fields, fieldsOf, type Rest, restNames } from "./form";
import { CommandFields, MachineFields, NetworkFields } from "./sections";

type Loaded =
  | { state: "loading" }
  | { state: "ready"; fields: Fields; rest: Rest | undefined; unknown: string[] }
  | { state: "failed"; message: string };

/** Reads the description of the job that this one is like. */
function useStart(from: string | undefined): [Loaded, () => void] {
  const blank: Loaded = { state: "ready", fields: BLANK, rest: undefined, unknown: [] };
  const [loaded, setLoaded] = useState<Loaded>(from === undefined ? blank : { state: "loading" });
  const [round, setRound] = useState(0);
  useEffect(() => {
    if (from === undefined) return;
    get<Details>(jobApi(from)).then(
      ({ spec, job }) => {
        const description: JobSpec = spec ?? { version: 1, command: job.command };
        // The values of variables are not kept: they can be secrets.
        const unknown = (job.env ?? []).filter((name) => description.env?.[name] === undefined);
        const fields = fieldsOf(description);
        fields.env = [fields.env, ...unknown.map((name) => `${name}=`)].filter(Boolean).join("\n");
        setLoaded({ state: "ready", fields, rest: description, unknown });
      },
      (error: unknown) => setLoaded({ state: "failed", message: reason(error) }),
    );
  }, [from, round]);
  return [loaded, () => setRound(round + 1)];
}

export function RunPage(props: { query: string }): VNode {
  const from = new URLSearchParams(props.query).get("from") ?? undefined;
  const [loaded, again] = useStart(from);
  useEffect(() => {
    document.title = "Run a job · metaservice";
  }, []);
  return (
    <>
      <Head>
        <h1>Run a job</h1>
        <p class="summary">{from !== undefined && <>as {from}, with changes</>}</p>
      </Head>
      <main id="content" class="run">
        {!session.value.can.run || !may("operate") ? (
          <Empty title="You cannot run jobs here">
            <p>Your role does not allow it.</p>
          </Empty>
        ) : loaded.state === "loading" ? (
          <Empty title={`Reading the description of ${from}`} busy />
        ) : loaded.state === "failed" ? (
          <Problem title="The job cannot be read" message={loaded.message} again={again} />
        ) : (
          <Form first={loaded.fields} rest={loaded.rest} unknown={loaded.unknown} />
        )}
      </main>
    </>
  );
}

function Form(props: { first: Fields; rest: Rest | undefined; unknown: string[] }): VNode {
  const [fields, setFields] = useState(props.first);
  const [rest, setRest] = useState(props.rest);
  const [tried, setTried] = useState(false);
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  const { spec, errors } = describe(fields, rest);
  const name = fields.name.trim() === "" ? undefined : fields.name.trim();
  const set = (change: Partial<Fields>): void => {
    setFields((before) => ({ ...before, ...change }));
    setFailed("");
  };
  const isTaken = name !== undefined && listing.value.jobs.some((job) => job.name === name && !job.ended);
  const all: Errors = isTaken ? { ...errors, name: "A job of this name runs. Write another name, or none." } : errors;
  const shown: Errors = tried ? all : pick(all, fields);
  const submit = async (): Promise<void> => {
    setTried(true);
    if (Object.keys(all).length > 0) {
      requestAnimationFrame(() => document.querySelector<HTMLElement>('.run [aria-invalid="true"]')?.focus());
      return;
    }
    setBusy(true);
    setFailed("");
    try {
      const response = await post("/api/jobs", { spec: name === undefined ? spec : { ...spec, name } });
      const made = (await response.json()) as { name: string };
      go(jobPath(made.name));
      say(`${made.name} was ${isQueue() ? "submitted" : "started"}.`);
    } catch (error) {
      setFailed(reason(error));
      setBusy(false);
    }
  };
  const kept = restNames(rest);
  const line = commandLine(spec, name, isQueue());
  return (
    <form
      class="form"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <div class="form-fields">
        <CommandFields fields={fields} errors={shown} set={set} unknown={props.unknown} />
        <MachineFields fields={fields} errors={shown} set={set} />
        <NetworkFields fields={fields} errors={shown} set={set} />
        {kept.length > 0 && (
          <section class="group">
            <h2>Also of the other job</h2>
            <p class="hint">
              These parts of its description are kept: <b>{kept.join(", ")}</b>.
            </p>
            <div>
              <button type="button" onClick={() => setRest(undefined)}>
                Leave them out
              </button>
            </div>
          </section>
        )}
      </div>
      <aside class="form-result" aria-label="The same on the command line">
        <div class="part-head">
          <h2>The same on the command line</h2>
          <Copy text={() => `${line}\n`} what="the command line" />
        </div>
        <pre class="block" tabIndex={0}>
          <code>{line}</code>
        </pre>
        <p class="problem" role="alert">
          {failed
            ? `The job was not started: ${sentences(failed)}`
            : tried && Object.keys(all).length > 0 && "The job was not started. Correct the marked fields."}
        </p>
        <button type="submit" class="primary" disabled={busy}>
          {busy ? "Starting" : "Run the job"}
        </button>
      </aside>
    </form>
  );
}

/** An error of the tool, and its hint. */
function sentences(failed: string): string {
  const [error = "", ...hints] = failed.split(" hint: ");
  return [error, ...hints.map(sentence)].join(". ").replace(/\.?$/, ".");
}

/** The errors of fields in which something is written. */
function pick(errors: Errors, fields: Fields): Errors {
  const written = Object.entries(errors).filter(([name]) => {
    const value = fields[name as keyof Fields];
    return typeof value === "string" && value.trim() !== "";
  });
  return Object.fromEntries(written);
}
