// How a job ended, in words.

import { bytes, duration } from "../format";
import type { Tone } from "../jobs";
import type { Details, Ending } from "../types";

const SIGNALS: Record<number, string> = {
  1: "HUP",
  2: "INT",
  3: "QUIT",
  4: "ILL",
  6: "ABRT",
  7: "BUS",
  8: "FPE",
  9: "KILL",
  10: "USR1",
  11: "SEGV",
  12: "USR2",
  13: "PIPE",
  14: "ALRM",
  15: "TERM",
  18: "CONT",
  19: "STOP",
  24: "XCPU",
  25: "XFSZ",
  31: "SYS",
};

export function signalName(number: number): string {
  const name = SIGNALS[number];
  return name === undefined ? `signal ${number}` : `signal ${number} (${name})`;
}

/** Text as a sentence. */
export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** What a job came to: one sentence, and what helps to find out why. */
export interface Verdict {
  tone: Tone;
  says: string;
  help?: string;
}

const ENDS: Record<string, string> = {
  killed: "The command was killed.",
  "machine-gone": "The machine ended before the command did.",
  "not-started": "The machine did not start.",
  "never-fetched": "The guest never fetched its command.",
  "agent-dead": "The agent in the guest has sent nothing for too long.",
  "no-guest": "No guest has sent anything for too long.",
  forced: "The machine was ended by force.",
  cancelled: "The job was cancelled before the guest fetched its command.",
  left: "The service of the job has ended. A later one can serve the job.",
  unread: "The reader of the log is gone, so the job was ended.",
  abandoned: "The job was abandoned: it was interrupted twice.",
};

/** Whether the verdict says it in words. */
export function isKnownEnd(end: string | undefined): boolean {
  return end !== undefined && ENDS[end] !== undefined;
}

const HELP: Record<string, string> = {
  "machine-gone": "The last lines of the console often say why: a panic of the kernel, or a power-off.",
  "not-started": "The error and the messages of the job say why.",
  "never-fetched": "Check in the last lines of the console whether the guest has booted, and how far.",
  "agent-dead": "The guest may have no memory left, or its kernel has stopped: see the console.",
};

export function verdict({ job, ended, end, error, why }: Details): Verdict {
  const { state, status, ending } = job;
  if (state === "succeeded") return { tone: "good", says: "The command has succeeded: exit status 0." };
  if (!ended && state === "waiting" && why !== undefined) return { tone: "calm", says: "The job waits." };
  if (!ended && state === "waiting")
    return { tone: "calm", says: "The guest has not fetched the command yet." };
  if (!ended && state === "running") return { tone: "live", says: "The command runs." };
  if (!ended && state === "unresponsive") {
    return {
      tone: "odd",
      says: "The command runs, as far as is known. The agent in the guest does not answer.",
    };
  }
  if (state === "cancelled") return { tone: "odd", says: "The job was cancelled." };
  if (state === "lost") {
    return {
      tone: "odd",
      says: ENDS[end ?? ""] ?? "The job has no result: the process that served it has ended.",
      ...helpOf(end, ending),
    };
  }
  const says =
    end !== undefined && end !== "result" && ENDS[end] !== undefined && ending?.reason !== "timed-out"
      ? ENDS[end]
      : ending
        ? endingWords(ending)
        : status !== undefined
          ? `The command has failed: exit status ${status}.`
          : error !== undefined
            ? "The job has no result."
            : "It is not known how the job ended.";
  const kept = state === "kept" ? " The machine is kept: use the terminal and the files." : "";
  return {
    tone: state === "failed" || state === "kept" || state === "exception" ? "bad" : "odd",
    says: says + kept,
    ...helpOf(end, ending),
  };
}

function endingWords(ending: Ending): string {
  const { reason, exitCode, signal, wallMs, failure } = ending;
  const message = failure?.message ? `: ${failure.message}` : "";
  switch (reason) {
    case "exited":
      return `The command has failed: exit status ${exitCode ?? 1}.`;
    case "signaled":
      return `The command was ended by ${signalName(signal ?? 0)}.`;
    case "killed":
      return "The command was killed, as the host asked.";
    case "timed-out":
      return `The command was killed after its timeout${wallMs === undefined ? "" : `, ${duration(wallMs)}`}.`;
    case "not-found":
      return `The command was not started: there is no such program${message}.`;
    case "not-executable":
      return `The command was not started: it cannot be executed${message}.`;
    case "unsupported":
      return `The command was not started: the agent cannot do what the job asks for${message}.`;
    case "lost":
      return "The agent in the guest has lost track of the command.";
    default:
      return `The command has ended: ${reason}.`;
  }
}

function helpOf(end: string | undefined, ending: Ending | undefined): { help?: string } {
  const oom = ending?.oomKills ?? 0;
  if (oom > 0) {
    const many = oom === 1 ? "a process" : `${oom} processes`;
    const peak = ending?.peakMemory === undefined ? "" : ` One process used ${bytes(ending.peakMemory)}.`;
    return {
      help: `The kernel of the guest killed ${many} for lack of memory.${peak} Give the machine more memory.`,
    };
  }
  const signals: Record<number, string> = {
    9: "If you did not send it, the kernel may have sent it for lack of memory: see the memory in the stats.",
    11: "The program accessed memory that it does not have. Fetch its core file as an artifact to see where.",
    6: "The program aborted itself: the last lines of its log often say why.",
  };
  if (ending?.reason === "signaled" && ending.signal !== undefined) {
    const help = signals[ending.signal];
    if (help !== undefined) return { help };
  }
  if (ending?.reason === "not-found") {
    return { help: "Commands run in the guest: check the spelling, the image, and PATH there." };
  }
  const help = HELP[end ?? ""];
  return help === undefined ? {} : { help };
}
