import { useEffect, useState } from "preact/hooks";
import { Feed } from "../feed";
import { get, reason, Refused } from "../server";
import type { LogLength } from "../types";
import { type LogOf, logApi } from "./api";

export type Opened =
  | { state: "loading" }
  | { state: "open"; started: number; length: LogLength }
  | { state: "none"; code: string; message: string };

/** Opens a log, and follows its length. A later job of this name is opened again. */
export function useLog({ name, attempt }: LogOf): [Opened, () => void] {
  const [opened, setOpened] = useState<Opened>({ state: "loading" });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const log = { name, attempt };
    let feed: Feed<LogLength> | undefined;
    let isOver = false;
    const fail = (error: unknown): void => {
      if (isOver) return;
      const code = error instanceof Refused ? error.code : "Failed";
      setOpened({ state: "none", code, message: reason(error) });
    };
    const open = async (): Promise<void> => {
      const { startedMs: started } = await get<{ startedMs: number }>(logApi(log, ""));
      if (isOver) return;
      const received = (length: LogLength): void => setOpened({ state: "open", started, length });
      const retry = async (): Promise<boolean> => {
        const again = await get<{ startedMs: number }>(logApi(log, ""));
        if (again.startedMs === started) return true;
        setRound((round) => round + 1);
        return false;
      };
      feed = new Feed(logApi(log, "/length", { started: String(started) }), received, {
        retry,
        isLast: ({ state }) => state !== "open",
      });
    };
    open().catch(fail);
    return () => {
      isOver = true;
      feed?.close();
    };
  }, [name, attempt, round]);
  return [opened, () => setRound((round) => round + 1)];
}
