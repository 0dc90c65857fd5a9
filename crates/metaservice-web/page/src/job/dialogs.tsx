// The actions that ask first.

import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { go } from "../route";
import { jobApi, post } from "../server";
import { Ask } from "../ui/Dialog";
import { say } from "../ui/Flash";

export interface Target {
  name: string;
  startedMs: number;
}

type Props = Target & { close: () => void };

async function kill({ name, startedMs }: Target, what: "command" | "machine"): Promise<void> {
  const response = await post(`${jobApi(name)}/kill`, { startedMs, what });
  const body = (await response.json().catch(() => ({}))) as { killed?: string };
  // A guest that does not take the order loses its machine.
  if (what === "command" && body.killed === "machine")
    say("The guest did not answer, so the machine was ended.");
}

export function StopDialog(props: Props): VNode {
  const { name, startedMs } = props;
  return (
    <Ask
      title={`Stop ${name}?`}
      verb="Stop the command"
      busy="Stopping"
      close={props.close}
      act={async () => {
        await post(`${jobApi(name)}/signal`, { startedMs, signal: 15 });
        say(`${name} was asked to end. If it does not, use Kill.`);
      }}
    >
      <p>
        The main process of its command gets signal TERM, so that it can save its work and end. It can take
        its time, or ignore this.
      </p>
    </Ask>
  );
}

export function KillDialog(props: Props & { waits?: boolean; kept?: boolean }): VNode {
  const verb = props.waits ? "Cancel the job" : props.kept ? "End the machine" : "Kill the command";
  return (
    <Ask
      title={
        props.waits
          ? `Cancel ${props.name}?`
          : props.kept
            ? `End the machine of ${props.name}?`
            : `Kill ${props.name}?`
      }
      verb={verb}
      busy={props.waits ? "Cancelling" : props.kept ? "Ending" : "Killing"}
      close={props.close}
      act={() => kill(props, "command")}
    >
      <p>
        {props.waits
          ? "It does not start. It stays in the list as cancelled."
          : props.kept
            ? "The command has ended. The files of the guest are lost; the log is kept."
            : "All processes of its command get signal TERM, and after 5 seconds signal KILL. What they wrote is kept."}
      </p>
    </Ask>
  );
}

export function ForceDialog(props: Props): VNode {
  return (
    <Ask
      title={`End the machine of ${props.name} by force?`}
      verb="End the machine"
      busy="Ending"
      close={props.close}
      act={() => kill(props, "machine")}
    >
      <p>
        The machine ends at once, without its guest. What the guest has not sent is lost. Use this if the
        guest does not answer.
      </p>
    </Ask>
  );
}

export function RemoveDialog(props: Props): VNode {
  const { name, startedMs } = props;
  return (
    <Ask
      title={`Remove ${name}?`}
      verb="Remove the job"
      busy="Removing"
      close={props.close}
      act={async () => {
        await post(`${jobApi(name)}/remove`, { startedMs });
        go("/");
        say(`${name} was removed.`);
      }}
    >
      <p>Its log, its result and its description are deleted. Fetched artifacts stay where they are.</p>
    </Ask>
  );
}

const SIGNALS: [number, string, string][] = [
  [15, "TERM", "asks the program to end"],
  [2, "INT", "as Ctrl-C in a terminal"],
  [1, "HUP", "many services read their configuration again"],
  [3, "QUIT", "ends with a core file or a trace"],
  [10, "USR1", "what the program makes of it"],
  [12, "USR2", "what the program makes of it"],
  [19, "STOP", "stops the process until CONT"],
  [18, "CONT", "continues a stopped process"],
  [9, "KILL", "ends the process at once"],
];

export function SignalDialog(props: Props): VNode {
  const { name, startedMs } = props;
  const [signal, setSignal] = useState(15);
  const word = SIGNALS.find(([number]) => number === signal)?.[1] ?? "";
  return (
    <Ask
      title={`Send a signal to ${name}`}
      verb={`Send ${word}`}
      busy="Sending"
      harmless
      close={props.close}
      act={async () => {
        await post(`${jobApi(name)}/signal`, { startedMs, signal });
        say(`Signal ${word} was sent to the main process of ${name}.`);
      }}
    >
      <fieldset class="radios">
        <legend class="vh">Signal</legend>
        {SIGNALS.map(([number, word, effect]) => (
          <label key={number}>
            <input
              type="radio"
              name="signal"
              checked={number === signal}
              onChange={() => setSignal(number)}
            />
            <b>{word}</b>
            <span>{effect}</span>
          </label>
        ))}
      </fieldset>
    </Ask>
  );
}
