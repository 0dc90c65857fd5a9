import type { VNode } from "preact";
import { tone } from "../jobs";
import type { Job } from "../types";

export function StateWord(props: { job: Pick<Job, "state" | "status"> }): VNode {
  const [look, word] = tone(props.job);
  return <span class={`state ${look}`}>{word}</span>;
}
