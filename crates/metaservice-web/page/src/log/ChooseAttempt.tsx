import type { VNode } from "preact";
import { plainLine } from "../format";
import { go } from "../route";
import type { Attempt } from "../types";
import { logAddress, type LogOf } from "./api";

/** Which attempt the log is of: the last one, or one before. */
export function ChooseAttempt({ log, attempts }: { log: LogOf; attempts: Attempt[] }): VNode {
  const last = attempts.length;
  const words = ({ number, worker, outcome }: Attempt): string => {
    const parts = [`${number} of ${last}`, worker, outcome];
    return plainLine(parts.filter((part) => part !== undefined).join(", "));
  };
  return (
    <label class="choice">
      Attempt
      <select
        value={log.attempt ?? last}
        onChange={(event) => {
          const number = Number(event.currentTarget.value);
          go(logAddress({ name: log.name, attempt: number === last ? undefined : number }));
        }}
      >
        {attempts.map((attempt) => (
          <option key={attempt.number} value={attempt.number}>
            {words(attempt)}
          </option>
        ))}
      </select>
    </label>
  );
}
