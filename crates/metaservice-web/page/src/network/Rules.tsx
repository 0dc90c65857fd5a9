import type { VNode } from "preact";
import { plainLine } from "../format";
import type { Policy } from "./records";

/** What the rules of a policy say. */
export function Rules({ policy }: { policy: Policy | null }): VNode | null {
  if (!policy) return null;
  const rules = (title: string, list: string[]): VNode => (
    <div>
      <dt>{title}</dt>
      <dd>{list.length === 0 ? "nothing" : list.map((rule) => <code key={rule}>{plainLine(rule)}</code>)}</dd>
    </div>
  );
  return (
    <dl class="policy">
      {rules("Rules allow", policy.allow)}
      {policy.deny.length > 0 && rules("Rules deny", policy.deny)}
      {policy.file !== undefined && rules("More rules are in", [policy.file])}
    </dl>
  );
}
